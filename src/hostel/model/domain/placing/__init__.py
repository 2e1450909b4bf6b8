"""Giving every device its place on a bus, as libvirt does for QEMU's machines."""
