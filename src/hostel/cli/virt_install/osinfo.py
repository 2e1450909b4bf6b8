"""What an operating system can drive: a small table in place of libosinfo's database.

A name that is not in the table is looked up in libosinfo's database where the host has it
(:mod:`hostel.cli.virt_install.oshardware`), and else gets the hardware that every system knows. Where no name is given,
the volume name of the installation medium may tell; where it does not, a Linux of today is assumed, and the user is
told so.

The names, identifiers and devices are libosinfo's (osinfo-db 2022).
"""

from __future__ import annotations

import os
import re
from typing import Final, NamedTuple

from hostel.cli.virt_install.database import Descriptor

ASSUMED: Final = "linux2022"
GENERIC: Final = "generic"
_SECTOR: Final = 2048
_DESCRIPTOR: Final = 16 * _SECTOR  # ECMA-119, 8.4: the primary volume descriptor


class Hardware(NamedTuple):
    """What a family of systems has drivers for, and what it wants: memory in MiB, its disk in GiB, 0 where unknown."""

    disk: bool = False
    net: bool = False
    scsi: bool = False
    serial: bool = False
    rng: bool = False
    balloon: bool = False
    gpu: bool = False
    input: bool = False
    usb3: bool = False
    q35: bool = False
    windows: bool = False
    efi: bool = False
    local_time: bool = False  # its clock shows the time of the place
    card: str = "e1000"  # the network card that every PC's hypervisor has
    vcpus: int = 1
    memory: int = 0
    storage: int = 0


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
_MODERN: Final = Hardware(True, True, True, True, True, True, True, True, True, True, vcpus=2)
_NO_GPU: Final = _MODERN._replace(gpu=False)
_NO_PCIE: Final = _NO_GPU._replace(q35=False, input=False)
_FIRST_VIRTIO: Final = Hardware(disk=True, net=True, vcpus=2)
_FIRST_SERIAL: Final = Hardware(disk=True, net=True, serial=True, rng=True, balloon=True)
_EL6: Final = _FIRST_VIRTIO._replace(serial=True)
_EL70: Final = _EL6._replace(rng=True, usb3=True)
_BSD: Final = _FIRST_VIRTIO._replace(vcpus=1)
_WIN_OLD: Final = Hardware(windows=True, local_time=True)
_WIN_7: Final = Hardware(windows=True, local_time=True, q35=True, vcpus=2)
_WIN_10: Final = _WIN_7._replace(usb3=True)


class Family(NamedTuple):
    """Names of one kind: a pattern, an identifier made from what it matched, and the hardware."""

    pattern: str
    identifier: str
    hardware: Hardware


def _with(hardware: Hardware, memory: int, storage: int, vcpus: int = 2) -> Hardware:
    return hardware._replace(memory=memory, storage=storage, vcpus=vcpus)


FAMILIES: Final = (
    Family(r"linux(2020|2022)", "http://libosinfo.org/linux/{}", _with(_MODERN, 4096, 25)),
    Family(r"linux(2018)", "http://libosinfo.org/linux/{}", _with(_MODERN, 2048, 15)),
    Family(r"linux(2016)", "http://libosinfo.org/linux/{}", _with(_FIRST_VIRTIO, 2048, 15)),
    Family(r"fedora(2[4-9]|[3-9]\d)", "http://fedoraproject.org/fedora/{}", _with(_MODERN, 2048, 20)),
    Family(r"fedora-(rawhide|unknown)", "http://fedoraproject.org/fedora/{}", _with(_MODERN, 2048, 20)),
    Family(r"fedora(23)", "http://fedoraproject.org/fedora/{}", _with(_NO_GPU, 2048, 20)),
    Family(r"fedora(19|2[0-2])", "http://fedoraproject.org/fedora/{}", _with(_NO_PCIE, 2048, 20)),
    Family(r"fedora(17|18)", "http://fedoraproject.org/fedora/{}", _with(_FIRST_SERIAL._replace(scsi=True), 1152, 9)),
    Family(r"fedora(15|16)", "http://fedoraproject.org/fedora/{}", _with(_FIRST_SERIAL, 1152, 9)),
    Family(r"fedora(14)", "http://fedoraproject.org/fedora/{}", _with(_FIRST_SERIAL, 512, 9)),
    Family(r"fedora(1[0-3])", "http://fedoraproject.org/fedora/{}", _FIRST_SERIAL),
    Family(r"fedora(9)", "http://fedoraproject.org/fedora/{}", Hardware(net=True, serial=True, balloon=True)),
    Family(r"fedora([1-8])", "http://fedoraproject.org/fedora/{}", _PLAIN),
    Family(r"silverblue(2[89]|3[01])", "http://fedoraproject.org/silverblue/{}", _with(_MODERN, 2048, 20)),
    Family(r"silverblue(3[2-9])", "http://fedoraproject.org/silverblue/{}", _with(_MODERN, 3072, 20)),
    Family(r"centos(8)", "http://centos.org/centos/{}", _with(_MODERN, 1536, 20)),
    Family(r"centos-stream([89])", "http://centos.org/centos-stream/{}", _with(_NO_GPU, 1536, 20)),
    Family(r"centos(7\.\d)", "http://centos.org/centos/{}", _with(_NO_GPU, 1024, 20)),
    Family(r"centos(6\.\d+)", "http://centos.org/centos/{}", _with(_EL6, 1024, 9)),
    Family(r"centos(5\.(?:[6-9]|1[01]))", "http://centos.org/centos/{}", _BSD),
    Family(r"centos(5\.[0-5])", "http://centos.org/centos/{}", _PLAIN),
    Family(r"rhel([89]\.\d+)", "http://redhat.com/rhel/{}", _with(_MODERN, 1536, 20)),
    Family(r"rhel(7\.[2-9])", "http://redhat.com/rhel/{}", _with(_NO_GPU, 1024, 20)),
    Family(r"rhel(7\.[01])", "http://redhat.com/rhel/{}", _with(_EL70, 1024, 20)),
    Family(r"rhel(6\.\d+)", "http://redhat.com/rhel/{}", _with(_EL6, 1024, 9)),
    Family(r"rhel(5\.(?:[6-9]|1[01]))", "http://redhat.com/rhel/{}", _with(_BSD, 1024, 5, 1)),
    Family(r"rhel(5\.[0-5])", "http://redhat.com/rhel/{}", _with(_PLAIN, 1024, 5, 1)),
    Family(r"almalinux([89])", "http://almalinux.org/almalinux/{}", _with(_MODERN, 1536, 20)),
    Family(r"rocky([89](?:\.\d)?)", "http://rockylinux.org/rocky/{}", _with(_MODERN, 1536, 20)),
    Family(r"debian(1[1-9]|testing)", "http://debian.org/debian/{}", _with(_MODERN, 1024, 20)),
    Family(r"debian(9|10)", "http://debian.org/debian/{}", _with(_NO_GPU, 1024, 20)),
    Family(r"debian(8)", "http://debian.org/debian/{}", _with(_NO_PCIE, 1024, 20)),
    Family(r"debian(7)", "http://debian.org/debian/{}", _with(_NO_PCIE._replace(rng=False), 1024, 20)),
    Family(r"debian([56])", "http://debian.org/debian/{}", _with(_FIRST_VIRTIO, 512, 5)),
    Family(r"ubuntu(2[2-9]\.\d\d)", "http://ubuntu.com/ubuntu/{}", _with(_NO_GPU, 4096, 25)),
    Family(r"ubuntu((?:19\.10|2[01]\.\d\d))", "http://ubuntu.com/ubuntu/{}", _with(_MODERN, 4096, 25)),
    Family(r"ubuntu((?:18\.\d\d|19\.04))", "http://ubuntu.com/ubuntu/{}", _with(_MODERN, 2048, 15)),
    Family(r"ubuntu(17\.\d\d)", "http://ubuntu.com/ubuntu/{}", _with(_NO_GPU, 1024, 15)),
    Family(r"ubuntu(16\.04)", "http://ubuntu.com/ubuntu/{}", _with(_FIRST_VIRTIO, 2048, 15)),
    Family(r"ubuntu(12\.04)", "http://ubuntu.com/ubuntu/{}", _with(_FIRST_VIRTIO, 512, 5)),
    Family(r"ubuntu(1[2-6]\.\d\d)", "http://ubuntu.com/ubuntu/{}", _with(_FIRST_VIRTIO, 1024, 15)),
    Family(r"ubuntu(1[01]\.\d\d)", "http://ubuntu.com/ubuntu/{}", _with(_FIRST_VIRTIO, 512, 5)),
    Family(r"opensuse(15\.\d|42\.[23])", "http://opensuse.org/opensuse/{}", _with(_MODERN, 2048, 16)),
    Family(r"opensuse(tumbleweed)", "http://opensuse.org/opensuse/{}", _with(_MODERN, 2048, 20)),
    Family(r"opensuse(13\.[12])", "http://opensuse.org/opensuse/{}", _with(_NO_PCIE, 2048, 10)),
    Family(r"sle(15)", "http://suse.com/sle/{}", _with(_MODERN, 1024, 16, 1)),
    Family(r"sle(15)sp(\d)", "http://suse.com/sle/{}.{}", _with(_MODERN, 1024, 16, 1)),
    Family(r"sles(12)sp([2-5])", "http://suse.com/sles/{}.{}", _with(_MODERN, 1024, 16, 1)),
    Family(r"archlinux", "http://archlinux.org/archlinux/rolling", _with(_MODERN, 1024, 0, 1)),
    Family(r"gentoo", "http://gentoo.org/gentoo/rolling", _with(_NO_GPU, 512, 5, 1)),
    Family(
        r"alpinelinux(3\.1[1-9])",
        "http://alpinelinux.org/alpinelinux/{}",
        _with(_NO_GPU, 768, 4, 1)._replace(balloon=True),
    ),
    Family(r"freebsd(1[0-9]\.\d)", "http://freebsd.org/freebsd/{}", _BSD),
    Family(r"openbsd(7\.[1-9])", "http://openbsd.org/openbsd/{}", _BSD),
    Family(r"openbsd(7\.0|6\.\d|5\.[4-9])", "http://openbsd.org/openbsd/{}", _BSD._replace(card="pcnet")),
    Family(r"openbsd(4\.[2-58])", "http://openbsd.org/openbsd/{}", _PLAIN),
    Family(r"openbsd(4\.[679]|5\.[0-3])", "http://openbsd.org/openbsd/{}", Hardware(card="pcnet")),
    Family(r"freedos(1\.2)", "http://freedos.org/freedos/{}", _PLAIN),
    Family(r"win(xp)", "http://microsoft.com/win/{}", _with(_WIN_OLD, 512, 10)),
    Family(r"win(vista)", "http://microsoft.com/win/{}", _with(_WIN_OLD, 1024, 40)),
    Family(r"win(2k3(?:r2)?)", "http://microsoft.com/win/{}", _with(_WIN_OLD, 1024, 8)),
    Family(r"win(2k8)", "http://microsoft.com/win/{}", _with(_WIN_OLD, 2048, 40)),
    Family(r"win(7)", "http://microsoft.com/win/{}", _with(_WIN_7, 4096, 40)),
    Family(r"win(2k8r2)", "http://microsoft.com/win/{}", _with(_WIN_7, 2048, 40)),
    Family(r"win(8|8\.1|10)", "http://microsoft.com/win/{}", _with(_WIN_10, 4096, 40)),
    Family(r"win(2k16|2k19|2k22)", "http://microsoft.com/win/{}", _with(_WIN_10, 2048, 40)),
    Family(r"win(2k12(?:r2)?)", "http://microsoft.com/win/{}", _with(_WIN_10, 1024, 64)),
    Family(r"win(11)", "http://microsoft.com/win/{}", _with(_WIN_10._replace(efi=True), 8192, 128, 4)),
)
_CODENAMES: Final = {
    "debianbullseye": "debian11", "debianbuster": "debian10", "debianstretch": "debian9", "debianjessie": "debian8",
}  # fmt: skip

# Volume names of installation media, and the system each stands for.
MEDIA: Final = (
    (r"CentOS_(6\.\d+)_Final", "centos{}"),
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
_GROUP: Final = re.compile(r"\((?!\?)(?:[^()]|\([^()]*\))*\)")
_MICROSOFT: Final = "MICROSOFT CORPORATION"


def find(name: str) -> System:
    """The system of a name; one that neither the table nor the host's database has gets plain hardware."""
    if name == GENERIC:
        return System(GENERIC, None, _PLAIN)
    name = _CODENAMES.get(name, name)
    for family in FAMILIES:
        if match := re.fullmatch(family.pattern, name):
            return System(name, family.identifier.format(*match.groups()), family.hardware)
    from hostel.cli.virt_install import oshardware

    return oshardware.named(name) or System(name, None, _PLAIN, is_known=False)


def find_identifier(identifier: str) -> System | None:
    """The system that libosinfo's identifier names; None where neither the table nor the host's database has it."""
    for family in FAMILIES:
        pattern = re.escape(family.identifier).replace(r"\{\}", r"([\w.]+)")
        if match := re.fullmatch(pattern, identifier):
            name = family.pattern
            for part in match.groups():
                name = _GROUP.sub(part, name, count=1)
            system = find(name)
            if system.identifier == identifier:
                return system
    from hostel.cli.virt_install import oshardware

    return oshardware.identified(identifier) if identifier else None


def detect(path: str) -> str | None:
    """The name of the system that an installation medium holds, told by its volume name; None where it does not tell.

    Only one sector is read; what cannot be read tells nothing.
    """
    told = describe(path)
    if told is None:
        return None
    for pattern, name in MEDIA:
        if match := re.fullmatch(pattern, told.volume):
            found = find(name.format(*match.groups()))
            return found.name if found.is_known else None
    return "win10" if told.publisher.startswith(_MICROSOFT) else None


def describe(path: str) -> Descriptor | None:
    """What an installation medium says of itself; None where it is no CD-ROM, or cannot be read."""
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
    fields = ((40, 32), (8, 32), (318, 128), (574, 128))  # of the volume, the system, who published it, what made it
    size = int.from_bytes(sector[80:84], "little") * int.from_bytes(sector[128:130], "little")
    volume, system, publisher, application = (_field(sector, offset, length) for offset, length in fields)
    return Descriptor(volume, system, publisher, application, size)


def _field(sector: bytes, offset: int, length: int) -> str:
    return sector[offset : offset + length].decode("ascii", "replace").strip(" \0")


def listing() -> list[str]:
    """What ``--osinfo list`` prints: the names of the host's database; without one, one line a family, as patterns."""
    from hostel.cli.virt_install import oshardware

    if names := oshardware.names():
        return [*names, "", "You can see additional information with:", "", "  osinfo-query os", ""]
    return [GENERIC, *(family.pattern.replace("(?:", "").replace("(", "").replace(")", "") for family in FAMILIES)]
