"""Hostel: the QEMU/KVM storage and virtual-machine stack as one Python package."""

from __future__ import annotations

__version__ = "0.1.0"
