"""What every transport says alike: who a caller is, and that its stream goes on later."""

from __future__ import annotations

import ipaddress

from service.core.errors import Unavailable
from service.core.types import SessionInfo


def client_name(host: str) -> str:
    """An IPv4 address is itself, also where an IPv6 socket met it. What is no address (a unix socket) stays."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def resume_later(info: SessionInfo, *, handed_over: bool = False) -> Unavailable:
    """The last word of a stream whose server stops; `handed_over`: of one that is to go on at another worker."""
    why = "this worker has more streams than others" if handed_over else "the server stops"
    return Unavailable(
        f"{why}; resume session {info.session} in a moment, it goes on with frame {info.next_frame}",
        session=info.session,
        next_frame=info.next_frame,
        **({"handed_over": "true"} if handed_over else {}),
    )
