"""Check of the platform. Imports only the standard library, as LiteRT may be missing."""

from __future__ import annotations

import platform
import struct

MACHINES_32_BIT = ("armv6l", "armv7l", "armv8l", "i386", "i486", "i586", "i686")


def describe_problem() -> str:
    """Describe why the device cannot run on this machine; "" if it can."""
    bits, machine = 8 * struct.calcsize("P"), platform.machine()
    if bits == 64 and machine not in MACHINES_32_BIT:
        return ""
    return (
        f"this is a 32-bit system ({machine}, Python of {bits} bits), for which there is no "
        "LiteRT; install the 64-bit edition of Raspberry Pi OS"
    )
