"""What an operating system can drive: a small table in place of libosinfo's database.

A name that is not in the table gets the hardware that every system knows. Where no name is given, the volume name of
the installation medium may tell; where it does not, a Linux of today is assumed, and the user is told so.

The names, identifiers and devices are libosinfo's (osinfo-db 2022).
"""

from __future__ import annotations

import os
import re
from typing import Final, NamedTuple

ASSUMED: Final = "linux2022"
GENERIC: Final = "generic"
_SECTOR: Final = 2048
_DESCRIPTOR: Final = 16 * _SECTOR  # ECMA-119, 8.4: the primary volume descriptor


class Hardware(NamedTuple):
    """What a family of systems has drivers for, and what it wants."""

    disk: bool = False
    net: bool = False
    scsi: bool = False
    serial: bool = False
    rng: bool = False
    balloon: bool = False
    gpu: bool = False
    usb3: bool = False
    q35: bool = False
    windows: bool = False
    efi: bool = False
    vcpus: int = 1


class System(NamedTuple):
    """One operating system: its short name, libosinfo's identifier where it is known, its hardware."""

    name: str
    identifier: str | None
    hardware: Hardware
    is_known: bool = True

    @property
    def is_generic(self) -> bool:
        """Whether nothing is known of it."""
        return self.name == GENERIC or not self.is_known


_PLAIN: Final = Hardware()
_MODERN: Final = Hardware(True, True, True, True, True, True, True, True, True, vcpus=2)
_NO_GPU: Final = _MODERN._replace(gpu=False)
_SINGLE: Final = _NO_GPU._replace(vcpus=1)
_FIRST_VIRTIO: Final = Hardware(disk=True, net=True, vcpus=2)
_EL6: Final = _FIRST_VIRTIO._replace(serial=True)
_BSD: Final = _FIRST_VIRTIO._replace(vcpus=1)
_WIN_OLD: Final = Hardware(windows=True, vcpus=2)
_WIN_7: Final = _WIN_OLD._replace(q35=True)
_WIN_10: Final = _WIN_7._replace(usb3=True)


class Family(NamedTuple):
    """Names of one kind: a pattern, an identifier made from what it matched, and the hardware."""

    pattern: str
    identifier: str
    hardware: Hardware


FAMILIES: Final = (
    Family(r"linux(2018|2020|2022)", "http://libosinfo.org/linux/{}", _MODERN),
    Family(r"linux(2016)", "http://libosinfo.org/linux/{}", _FIRST_VIRTIO),
    Family(r"fedora(2[4-9]|[3-9]\d)", "http://fedoraproject.org/fedora/{}", _MODERN),
    Family(r"centos([89])", "http://centos.org/centos/{}", _MODERN),
    Family(r"centos-stream([89])", "http://centos.org/centos-stream/{}", _NO_GPU),
    Family(r"centos(7\.\d)", "http://centos.org/centos/{}", _NO_GPU),
    Family(r"centos(6\.\d+)", "http://centos.org/centos/{}", _EL6),
    Family(r"rhel([89]\.\d+)", "http://redhat.com/rhel/{}", _MODERN),
    Family(r"rhel(7\.[2-9])", "http://redhat.com/rhel/{}", _NO_GPU),
    Family(r"rhel(6\.\d+)", "http://redhat.com/rhel/{}", _EL6),
    Family(r"almalinux([89])", "http://almalinux.org/almalinux/{}", _MODERN),
    Family(r"rocky([89])", "http://rockylinux.org/rocky/{}", _MODERN),
    Family(r"debian(1[1-9])", "http://debian.org/debian/{}", _MODERN),
    Family(r"debian(9|10)", "http://debian.org/debian/{}", _NO_GPU),
    Family(r"ubuntu(2[2-9]\.\d\d)", "http://ubuntu.com/ubuntu/{}", _NO_GPU),
    Family(r"ubuntu((?:18|19|20|21)\.\d\d)", "http://ubuntu.com/ubuntu/{}", _MODERN),
    Family(r"ubuntu(1[0246]\.\d\d)", "http://ubuntu.com/ubuntu/{}", _FIRST_VIRTIO),
    Family(r"opensuse(15\.\d)", "http://opensuse.org/opensuse/{}", _MODERN),
    Family(r"alpinelinux(3\.1[1-9])", "http://alpinelinux.org/alpinelinux/{}", _SINGLE),
    Family(r"freebsd(1[0-9]\.\d)", "http://freebsd.org/freebsd/{}", _BSD),
    Family(r"openbsd([67]\.\d)", "http://openbsd.org/openbsd/{}", _BSD),
    Family(r"win(xp|vista)", "http://microsoft.com/win/{}", _WIN_OLD),
    Family(r"win(7)", "http://microsoft.com/win/{}", _WIN_7),
    Family(r"win(8|8\.1|10|2k12|2k12r2|2k16|2k19|2k22)", "http://microsoft.com/win/{}", _WIN_10),
    Family(r"win(11)", "http://microsoft.com/win/{}", _WIN_10._replace(efi=True, vcpus=4)),
)

# Volume names of installation media, and the system each stands for.
MEDIA: Final = (
    (r"CentOS 7 x86_64", "centos7.0"),
    (r"CentOS-8.*", "centos8"),
    (r"CentOS-Stream-(\d).*", "centos-stream{}"),
    (r"RHEL-(\d+)[-.](\d+).*", "rhel{}.{}"),
    (r"AlmaLinux-(\d).*", "almalinux{}"),
    (r"Rocky-(\d).*", "rocky{}"),
    (r"Fedora-.*-(\d\d)(?:-.*)?", "fedora{}"),
    (r"Debian (\d+)\..*", "debian{}"),
    (r"Ubuntu(?:-Server)? (\d\d\.\d\d).*", "ubuntu{}"),
    (r"openSUSE-Leap-(\d\d\.\d).*", "opensuse{}"),
    (r"alpine-\w+ (\d\.\d\d).*", "alpinelinux{}"),
)
_MICROSOFT: Final = "MICROSOFT CORPORATION"


def find(name: str) -> System:
    """The system of a name; one that the table does not have gets plain hardware."""
    if name == GENERIC:
        return System(GENERIC, None, _PLAIN)
    for family in FAMILIES:
        if match := re.fullmatch(family.pattern, name):
            return System(name, family.identifier.format(match[1]), family.hardware)
    return System(name, None, _PLAIN, is_known=False)


def find_identifier(identifier: str) -> System | None:
    """The system that libosinfo's identifier names; None where the table has none."""
    for family in FAMILIES:
        pattern = re.escape(family.identifier).replace(r"\{\}", r"([\w.]+)")
        if match := re.fullmatch(pattern, identifier):
            stem = family.pattern.partition("(")[0]
            system = find(stem + match[1])
            if system.identifier == identifier:
                return system
    return None


def detect(path: str) -> str | None:
    """The name of the system that an installation medium holds, told by its volume name; None where it does not tell.

    Only one sector is read; what cannot be read tells nothing.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        sector = os.pread(descriptor, _SECTOR, _DESCRIPTOR)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    if sector[:6] != b"\x01CD001":
        return None
    volume, publisher = _field(sector, 40, 32), _field(sector, 318, 128)
    for pattern, name in MEDIA:
        if match := re.fullmatch(pattern, volume):
            found = find(name.format(*match.groups()))
            return found.name if found.is_known else None
    return "win10" if publisher.startswith(_MICROSOFT) else None


def _field(sector: bytes, offset: int, length: int) -> str:
    return sector[offset : offset + length].decode("ascii", "replace").strip(" \0")


def listing() -> list[str]:
    """What ``--osinfo list`` prints: one line a family, as patterns."""
    return [GENERIC, *(family.pattern.replace("(", "").replace(")", "") for family in FAMILIES)]
