"""Puts these modules in libvirt-python's place, for programs that cannot be changed."""

from __future__ import annotations

import sys

import hostel.libvirt
import hostel.libvirt.lxc
import hostel.libvirt.qemu


def replace_libvirt() -> None:
    """From now on ``import libvirt``, ``libvirt_qemu`` and ``libvirt_lxc`` are of this package, in this process.

    Call it before anybody imports the others.
    """
    sys.modules["libvirt"] = hostel.libvirt
    sys.modules["libvirt_qemu"] = hostel.libvirt.qemu
    sys.modules["libvirt_lxc"] = hostel.libvirt.lxc
