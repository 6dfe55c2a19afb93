"""Which shipped bundle suits this machine, when the user names none."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

FLOAT, INT8 = "s2spp-light", "s2spp-light-int8"
AUTO = "auto"
# x86: VNNI, as AVX-512 or as AVX; ARM: dot products.
_DOT_PRODUCTS = {"avx512_vnni", "avx_vnni", "asimddp"}


def has_dot_products(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor multiplies and adds 8-bit numbers in one instruction. Without, int8 is hardly faster, and
    on x86 its sums overflow."""
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return False
    flags = (line.split(":", 1)[1].split() for line in lines if line.lower().startswith(("flags", "features")))
    return not _DOT_PRODUCTS.isdisjoint(next(flags, []))


def suitable(provider: str) -> tuple[str, str]:
    """(name of a shipped bundle, why that one)."""
    if provider != "cpu":
        return FLOAT, f"float, for the provider {provider}"
    if has_dot_products():
        return INT8, "int8, since this processor has 8-bit dot products"
    return FLOAT, "float, since this processor has no 8-bit dot products"
