"""What an emulator can do, by its devices and its version."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostel.drivers.qemu import features

SCRIPT = """#!/bin/sh
case "$*" in
*-version*) echo 'QEMU emulator version {version} (Debian 1:{version})' ;;
*help*) {devices} ;;
*stdio*) echo '{{"return": {{"arch": "{target}"}}, "id": ""}}' ;;
esac
"""
DEVICES = """echo 'Controller/Bridge/Hub devices:'
echo 'name "piix3-usb-uhci", bus PCI'
echo 'name "virtio-net-pci", bus PCI, alias "virtio-net"'
echo 'name "vhost-vsock-pci", bus PCI'"""


def emulator(directory: Path, version: str, devices: str = DEVICES, target: str = "x86_64") -> str:
    path = directory / f"qemu-system-{target}"
    path.write_text(SCRIPT.format(version=version, devices=devices, target=target))
    path.chmod(0o755)
    return str(path)


def test_devices_are_features_under_libvirts_names(tmp_path: Path) -> None:
    found = features.features(emulator(tmp_path, "7.2.0"), tmp_path / "cache")
    assert {"piix3-usb-uhci", "virtio-net", "vhost-vsock"} <= found
    assert "lsi" not in found


@pytest.mark.parametrize(
    ("version", "has", "has_not"),
    [
        ("4.2.0", "iothread", "pcie-root-port.hotplug"),
        ("5.1.0", "virtio-net.rss", "rbd-encryption"),
        ("6.1.0", "rbd-encryption", "blockdev.nbd.tls-hostname"),
        ("7.2.4", "blockdev.nbd.tls-hostname", "no such flag"),
    ],
)
def test_what_no_device_tells_goes_by_the_version(tmp_path: Path, version: str, has: str, has_not: str) -> None:
    found = features.features(emulator(tmp_path, version), tmp_path / "cache")
    assert has in found
    assert has_not not in found


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("x86_64", {"cpu.migratable"}),
        ("i386", set()),
        ("aarch64", {"machine.virt.iommu"}),
        ("arm", {"machine.virt.iommu"}),
    ],
)
def test_what_no_device_tells_goes_by_the_guests_too(tmp_path: Path, target: str, expected: set[str]) -> None:
    found = features.features(emulator(tmp_path, "7.2.0", target=target), tmp_path / "cache")
    assert found & {"cpu.migratable", "machine.virt.iommu"} == expected


def test_emulator_that_tells_nothing_is_taken_for_the_usual_one(tmp_path: Path) -> None:
    assert features.features(emulator(tmp_path, "7.2.0", "true"), tmp_path / "cache") == features.USUAL


@pytest.mark.parametrize(("text", "nodes"), [("0\n", {0}), ("0-1,3\n", {0, 1, 3}), ("frob\n", None)])
def test_nodes_are_those_that_the_kernel_has_online(tmp_path: Path, text: str, nodes: set[int] | None) -> None:
    (tmp_path / "online").write_text(text)
    assert features.host_nodes(tmp_path / "online") == nodes
    assert features.host_nodes(tmp_path / "none") is None
