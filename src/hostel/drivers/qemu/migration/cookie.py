"""What source and destination tell each other past the client: libvirt's cookies (``qemu_migration_cookie.c``).

What a cookie has beyond this is not for us, and passed over, unless it says that it must be understood.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import stat
import uuid
from pathlib import Path
from typing import Final

from hostel.codec.xml import STRING, YES_NO, Element, attr, child, children, integer, settings, text
from hostel.drivers.fault import fault
from hostel.drivers.link import openvswitch
from hostel.drivers.qemu.lockmanager import holding
from hostel.drivers.qemu.running import Running
from hostel.drivers.qemu.settings import read as read_settings
from hostel.drivers.qemu.status import Place
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode, ErrorDomain, ModelError, VirtError
from hostel.model.domain.actual import actual
from hostel.model.domain.domain import Domain

_U64: Final = integer(maximum=2**64 - 1)
_I64: Final = integer(minimum=-(2**63), maximum=2**63 - 1)
_AUTOMATIC: Final = ("pause-before-switchover", "late-block-activate")
# What can be wanted of us that we do as a matter of course.
_UNDERSTOOD: Final = frozenset(
    {"persistent", "network", "nbd", "statistics", "capabilities", "allowReboot", "lockstate", "memory-hotplug"}
)
# What libvirt knows besides, and we cannot do.
_KNOWN: Final = frozenset({"graphics", "cpu-hotplug", "cpu", "block-dirty-bitmaps"})


class CopiedDisk(Element, tag="disk"):
    """A disk that the source has; ``capacity`` in bytes."""

    target: str = attr()
    capacity: int = attr(_U64)


class Nbd(Element, tag="nbd"):
    """Disks that are copied: from the source which ones, from the destination the port where they are taken."""

    port: int | None = attr(integer(maximum=65535), default=None)
    disks: list[CopiedDisk] = children(CopiedDisk, factory=list)


class Capability(Element, tag="cap"):
    """A capability of QEMU's migration; ``auto`` is used where both have it."""

    name: str = attr()
    auto: bool = attr(YES_NO, default=False)


class Capabilities(Element, tag="capabilities"):
    """What QEMU's migration can do there."""

    caps: list[Capability] = children(Capability, factory=list)


class Numbers(Element, tag="statistics"):
    """How it went; times in milliseconds since 1970, and lengths of time in milliseconds."""

    started: int | None = text(_U64, default=None)
    stopped: int | None = text(_U64, default=None)
    sent: int | None = text(_U64, default=None)
    delta: int | None = text(_I64, default=None)
    time_elapsed: int | None = text(_U64, default=None)
    downtime: int | None = text(_U64, default=None)
    setup_time: int | None = text(_U64, default=None)
    memory_total: int | None = text(_U64, default=None)
    memory_processed: int | None = text(_U64, default=None)
    memory_remaining: int | None = text(_U64, default=None)
    memory_bps: int | None = text(_U64, default=None)
    memory_constant: int | None = text(_U64, default=None)
    memory_normal: int | None = text(_U64, default=None)
    memory_normal_bytes: int | None = text(_U64, default=None)
    memory_dirty_rate: int | None = text(_U64, default=None)
    memory_iteration: int | None = text(_U64, default=None)
    memory_page_size: int | None = text(_U64, default=None)
    disk_total: int | None = text(_U64, default=None)
    disk_processed: int | None = text(_U64, default=None)
    disk_remaining: int | None = text(_U64, default=None)
    disk_bps: int | None = text(_U64, default=None)


class PortData(Element, tag="interface"):
    """What a switch's controller has written on the port of an interface, by its place in the document."""

    index: int = attr(integer())
    kind: str = attr(name="vporttype")
    data: str | None = text(tag="portdata", default=None)


class Ports(Element, tag="network", drop_empty=True):
    """What goes along with the ports of interfaces."""

    interfaces: list[PortData] = children(PortData, factory=list)


class LockState(Element, tag="lockstate"):
    """What a lock manager says of the machine's locks; only one has something to say that says it."""

    driver: str = attr()
    leases: str | None = text(default=None)


class Cookie(Element, tag="qemu-migration"):
    """A cookie; ``name`` is the domain's at the source."""

    name: str = text()
    uuid: str = text()
    hostname: str = text()
    hostuuid: str = text()
    features: list[str] = settings(STRING, tag="feature", name="name", factory=list)
    lock_state: LockState | None = child(LockState, default=None)
    domain: Domain | None = child(Domain, default=None)
    network: Ports | None = child(Ports, default=None)
    nbd: Nbd | None = child(Nbd, default=None)
    statistics: Numbers | None = child(Numbers, default=None)
    capabilities: Capabilities | None = child(Capabilities, default=None)
    place: Place | None = child(Place, default=None)


def host_uuid(directories: Directories) -> str:
    """What we call this host: daemons that keep their state apart are different ones."""
    machine = Path("/etc/machine-id")
    known = machine.read_text() if machine.is_file() else socket.gethostname()
    digest = hashlib.sha256(f"{known}\0{directories.state.resolve()}".encode()).digest()
    return str(uuid.UUID(bytes=digest[:16], version=4))


def new(directories: Directories, name: str, uuid: str) -> Cookie:
    """A cookie with nothing but who sends it about what."""
    return Cookie(name=name, uuid=uuid, hostname=socket.gethostname(), hostuuid=host_uuid(directories))


def written(cookie: Cookie) -> bytes:
    """A cookie as it is sent."""
    return cookie.format().encode() + b"\0"


def read(data: bytes, directories: Directories, name: str, uuid: str) -> Cookie | None:
    """What the other side has sent; None where that is nothing.

    Raises:
        VirtError: ``INTERNAL_ERROR``: it is no cookie, about another domain, of this very host, or wants what we do
            not know.
    """
    if not data:
        return None
    if not data.endswith(b"\0"):
        raise _wrong("Migration cookie was not NULL terminated")
    try:
        cookie = Cookie.parse(data[:-1].decode())
    except (ModelError, UnicodeDecodeError) as error:
        raise _wrong(f"migration cookie: {error}") from error
    if cookie.name != name:
        raise _wrong(f"Incoming cookie data had unexpected name {cookie.name} vs {name}")
    if cookie.uuid != uuid:
        raise _wrong(f"Incoming cookie data had unexpected UUID {cookie.uuid} vs {uuid}")
    if cookie.hostuuid == host_uuid(directories):
        raise _wrong(f"Attempt to migrate guest to the same host {cookie.hostuuid}")
    for feature in cookie.features:
        if feature not in _UNDERSTOOD | _KNOWN:
            raise _wrong(f"Unknown migration cookie feature {feature}")
        if feature not in _UNDERSTOOD:
            raise _wrong(f"Unsupported migration cookie feature {feature}")
    locks = cookie.lock_state
    if locks is not None and locks.driver != (ours := read_settings(directories).lock_manager):
        raise _wrong(f"Source host lock driver {locks.driver} different from target {ours}")
    return cookie


def add_locks(cookie: Cookie, machine: Running) -> None:
    """Tell of a machine's locks, where its lock manager has something to say.

    Raises:
        VirtError: it does not answer.
    """
    if state := holding.state_of(machine):
        cookie.lock_state = LockState(driver=machine.status.lock_manager, leases=state)
        cookie.features.append("lockstate")


def capabilities(machine: Running) -> Capabilities:
    """What QEMU's migration can do here: libvirt uses what it has itself only where the other side has it too.

    Raises:
        VirtError: QEMU does not answer.
    """
    names = [str(item["capability"]) for item in machine.ask("query-migrate-capabilities")]
    return Capabilities(caps=[Capability(name=name, auto=name in _AUTOMATIC) for name in names])


def ports_of(domain: Domain) -> Ports:
    """What goes along with the ports of a machine that moves away.

    Raises:
        VirtError: a switch does not answer.
    """
    found = []
    for number, interface in enumerate(map(actual, domain.devices.interfaces)):
        name = interface.target.dev if interface.target is not None else None
        if openvswitch.is_switched(interface.virtualport) and name is not None:
            data = openvswitch.port_data(name) or None
            found.append(PortData(index=number, kind="openvswitch", data=data))
    return Ports(interfaces=found)


def take_ports(domain: Domain, ports: Ports) -> None:
    """Write on the ports of a machine that has come what went along; as libvirt, go on where a switch refuses it."""
    interfaces = domain.devices.interfaces
    for item in ports.interfaces:
        target = interfaces[item.index].target if item.index < len(interfaces) else None
        if item.kind == "openvswitch" and item.data and target is not None and target.dev is not None:
            with contextlib.suppress(VirtError):
                openvswitch.set_port_data(target.dev, item.data)


def place_of(directories: Directories) -> Place:
    """Where this host's state is."""
    return Place(**{name: str(path.absolute()) for name, path in directories._asdict().items()}, boot=_boot())


def known_place(cookie: Cookie | None) -> Place | None:
    """Where the destination's state is, if that is on this host and ours alone."""
    place = cookie.place if cookie is not None else None
    if place is None or place.boot != _boot():
        return None
    try:
        status = Path(place.state).lstat()
    except (OSError, ValueError):
        return None
    is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022
    return place if is_ours and all(path.is_absolute() for path in directories_of(place)) else None


def directories_of(place: Place) -> Directories:
    """The directories of a place."""
    return Directories(Path(place.config), Path(place.state), Path(place.cache), Path(place.data))


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _wrong(message: str) -> VirtError:
    return fault(ErrorCode.INTERNAL_ERROR, message, ErrorDomain.QEMU)
