"""Puts this module in libvirt-python's place, for programs that cannot be changed."""

from __future__ import annotations

import sys

import hostel.libvirt


def replace_libvirt() -> None:
    """From now on ``import libvirt`` is this module, in this process; call it before anybody imports the other."""
    sys.modules["libvirt"] = hostel.libvirt
