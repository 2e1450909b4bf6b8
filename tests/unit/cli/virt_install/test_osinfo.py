"""What operating systems can drive, and how a medium tells which one it holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostel.cli.virt_install import osinfo


@pytest.mark.parametrize(
    ("name", "identifier", "virtio", "q35"),
    [
        ("linux2022", "http://libosinfo.org/linux/2022", True, True),
        ("fedora37", "http://fedoraproject.org/fedora/37", True, True),
        ("centos7.0", "http://centos.org/centos/7.0", True, True),
        ("centos6.10", "http://centos.org/centos/6.10", True, False),
        ("win10", "http://microsoft.com/win/10", False, True),
        ("winxp", "http://microsoft.com/win/xp", False, False),
    ],
)
def test_a_name_tells_the_devices(name: str, identifier: str, virtio: bool, q35: bool) -> None:
    system = osinfo.find(name)
    assert (system.identifier, system.hardware.disk, system.hardware.q35) == (identifier, virtio, q35)
    assert osinfo.find_identifier(identifier) == system
    assert not system.is_generic


@pytest.mark.parametrize("name", ["nosuch", "fedora99x", "centos77.0", "win10x", ""])
def test_an_unknown_name_gets_plain_hardware_and_is_known_to_be_unknown(name: str) -> None:
    system = osinfo.find(name)
    assert (system.is_known, system.is_generic, system.hardware) == (False, True, osinfo.Hardware())
    assert osinfo.find_identifier(f"http://nosuch/{name}") is None


def medium(path: Path, volume: str, publisher: str = "") -> Path:
    """An ISO image as far as its volume descriptor (ECMA-119, 8.4)."""
    sector = bytearray(2048)
    sector[:6] = b"\x01CD001"
    sector[40:72] = volume.encode().ljust(32)
    sector[318:446] = publisher.encode().ljust(128)
    path.write_bytes(bytes(16 * 2048) + bytes(sector))
    return path


@pytest.mark.parametrize(
    ("volume", "name"),
    [
        ("CentOS 7 x86_64", "centos7.0"),
        ("CentOS-8-BaseOS-x86_64", "centos8"),
        ("CentOS-Stream-9-BaseOS-x86_64", "centos-stream9"),
        ("RHEL-9-1-0-BaseOS-x86_64", "rhel9.1"),
        ("Fedora-S-dvd-x86_64-37", "fedora37"),
        ("Debian 11.6.0 amd64 n", "debian11"),
        ("Ubuntu-Server 22.04.1 LTS amd64", "ubuntu22.04"),
        ("alpine-virt 3.17.0 x86_64", "alpinelinux3.17"),
        ("Fedora-S-dvd-x86_64-12", "fedora12"),
        ("HOSTEL", None),
    ],
)
def test_the_volume_name_of_a_medium_tells_the_system(tmp_path: Path, volume: str, name: str | None) -> None:
    assert osinfo.detect(str(medium(tmp_path / "a.iso", volume))) == name


def test_microsofts_media_are_windows(tmp_path: Path) -> None:
    path = medium(tmp_path / "a.iso", "CCCOMA_X64FRE_EN-US_DV9", "MICROSOFT CORPORATION. ONE MICROSOFT WAY")
    assert osinfo.detect(str(path)) == "win10"


@pytest.mark.parametrize("content", [b"", b"x" * 32768, bytes(16 * 2048) + b"\x02CD001" + bytes(2042)])
def test_what_is_no_medium_tells_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.iso").write_bytes(content)
    assert osinfo.detect(str(tmp_path / "a.iso")) is None


def test_what_cannot_be_read_tells_nothing(tmp_path: Path) -> None:
    assert osinfo.detect(str(tmp_path / "nosuch")) is None
    assert osinfo.detect(str(tmp_path)) is None
