"""Who a caller is, as far as the network tells: one name for a client, whichever transport it uses."""

from __future__ import annotations

import ipaddress


def client_name(host: str) -> str:
    """An IPv4 address is itself, also where an IPv6 socket met it. What is no address (a unix socket) stays."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)
