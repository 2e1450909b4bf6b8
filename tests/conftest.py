"""Fixtures and marks that every test may use."""

from __future__ import annotations

import shutil

import pytest

# The Debian package that brings each tool, so that a skip says what to install.
PACKAGES = {
    "qemu-img": "qemu-utils",
    "qemu-io": "qemu-utils",
    "qemu-nbd": "qemu-utils",
    "qemu-system-x86_64": "qemu-system-x86",
    "virsh": "libvirt-clients",
    "virt-install": "virtinst",
    "nbdkit": "nbdkit",
    "busybox": "busybox-static",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip a test whose tool is missing, naming the package to install."""
    for item in items:
        needed = [mark.args[0] for mark in item.iter_markers("requires_tool")]
        if item.get_closest_marker("qemu"):
            needed.append("qemu-system-x86_64")
        for tool in needed:
            if shutil.which(tool) is None:
                item.add_marker(pytest.mark.skip(reason=f"needs {tool} (package {PACKAGES.get(tool, tool)})"))
