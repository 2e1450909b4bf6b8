"""Guests that send with no hardware address but their own (``mac_filter`` of ``qemu.conf``; ``virebtables.c``).

Each tap has a table of its own, which is gone at once. libvirt's rules let other ports' frames pass by a chain whose
policy is to drop; with today's ``ebtables`` that policy is not set, and its filter does nothing.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

from hostel.drivers.fault import system_fault
from hostel.drivers.link import nft
from hostel.drivers.link.nft import TABLE
from hostel.errors import ErrorDomain, VirtError

_PREFIX: Final = f"{TABLE}_mac_"
_EARLY: Final = -250  # before rules that others have, which may accept


def hold(folder: Path, name: str, mac: str) -> None:
    """Drop frames from a tap that have another source; it is written down in a folder before.

    Raises:
        VirtError: nft refused, or is not installed; ``SYSTEM_ERROR``: it cannot be written down.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (folder / name).touch(mode=0o600)
    except OSError as error:
        raise system_fault(error, f"cannot write '{folder / name}'", ErrorDomain.NETWORK) from error
    chains = "".join(
        f"  chain {hook} {{\n    type filter hook {hook} priority {_EARLY}; policy accept;\n"
        f'    iifname "{name}" ether saddr != {mac} drop\n  }}\n'
        for hook in ("input", "forward")
    )
    nft.apply(f"{_gone(name)}table bridge {_PREFIX}{name} {{\n{chains}}}\n")


def let_go(folder: Path, name: str) -> None:
    """Take that back, if it was done; what cannot be taken back stays written down."""
    if (folder / name).exists():
        with contextlib.suppress(VirtError, OSError):
            nft.apply(_gone(name))
            (folder / name).unlink()


def _gone(name: str) -> str:
    """The change after which a tap has no table, whether or not it had one."""
    return f"add table bridge {_PREFIX}{name}\ndelete table bridge {_PREFIX}{name}\n"
