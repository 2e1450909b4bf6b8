"""``--disk``: the options of a disk, its content, and its place on a bus."""

from __future__ import annotations

import os
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from hostel.cli.virt_install.device import ADDRESSES, BOOT_ORDER, BOOT_PARAMETER, VIRTIO, set_boot_order
from hostel.cli.virt_install.guest import Guest
from hostel.cli.virt_install.option import Option
from hostel.cli.virt_install.part import Part
from hostel.cli.virt_install.storage import DEFAULT_FORMAT, DEFAULT_POOL, Medium, NewVolume, Storage
from hostel.cli.virt_install.suboption import (
    FLAG,
    NUMBER,
    ON_OFF,
    TEXT,
    YES_NO,
    Given,
    Refusal,
    Sub,
    SubOptions,
    at,
    on_off,
    within,
)
from hostel.cli.virt_install.tree import Node
from hostel.errors import HostelError, UsageError

_SOURCES: Final = {"file": "source/@file", "block": "source/@dev", "dir": "source/@dir"}
_MAY_BE_EMPTY: Final = ("cdrom", "floppy")
# The first letters of a target, and how many disks a bus of that name takes.
_PREFIXES: Final = {"virtio": ("vd", 1024), "fdc": ("fd", 2), "ide": ("hd", 4), "xen": ("xvd", 1024)}
_OTHER_PREFIX: Final = ("sd", 1024)

_PLACE: Final = ("path", "pool", "vol", "size", "format", "sparse", "backing_store", "backing_format", "perms")
_RESERVATIONS: Final = ("managed", "source.type", "source.path", "source.mode")

DISK: Final = SubOptions(
    "--disk",
    (
        *ADDRESSES,
        BOOT_ORDER,
        BOOT_PARAMETER,
        *VIRTIO,
        *(Sub(name) for name in ("backing_store", "backing_format", "pool", "vol", "size", "format", "sparse")),
        Sub("type"),
        Sub("perms"),
        Sub("bus", "target/@bus"),
        Sub("cache", "driver/@cache"),
        at("source.dir"),
        at("source.file"),
        at("source.dev"),
        *(at(f"source.{name}", TEXT, f"source_{name}") for name in ("pool", "volume", "name", "protocol")),
        at("source.startupPolicy", TEXT, "startup_policy"),
        at("source.type"),
        at("source.namespace", NUMBER),
        at("source.managed", YES_NO),
        *(at(f"source.address.{name}", NUMBER) for name in ("domain", "bus", "slot", "function")),
        *(
            at(f"source.host[0-9]*.{name}", NUMBER if name == "port" else TEXT, f"source_host_{name}")
            for name in ("name", "port", "transport", "socket")
        ),
        at("source.seclabel[0-9]*.model", TEXT, "seclabel[0-9]*.model"),
        at("source.seclabel[0-9]*.relabel", YES_NO, "seclabel[0-9]*.relabel"),
        Sub(
            "source.seclabel[0-9]*.label",
            "source/seclabel[{}]/label",
            comma=True,
            aliases=("seclabel[0-9]*.label",),
        ),
        Sub("path"),
        at("device"),
        at("snapshot", TEXT, "snapshot_policy"),
        at("sgio"),
        at("rawio"),
        *within("", "serial", "wwn"),
        *within("", "readonly", "shareable", "transient", kind=FLAG),
        at("transient.shareBacking", YES_NO),
        at("target.bus"),
        at("target.removable", ON_OFF, "removable"),
        at("target.dev", TEXT, "target"),
        at("target.rotation_rate", NUMBER, "rotation_rate"),
        at("driver.cache"),
        *(at(f"driver.{name}", TEXT, name) for name in ("discard", "detect_zeroes")),
        *(at(f"driver.{name}", TEXT, f"driver_{name}") for name in ("name", "type")),
        at("driver.copy_on_read", ON_OFF),
        at("driver.io", TEXT, "io"),
        at("driver.iothread", NUMBER),
        at("driver.queues", NUMBER),
        at("driver.error_policy", TEXT, "error_policy"),
        *(
            Sub(f"iotune.{what}_{unit}_sec", f"iotune/{what}_{unit}_sec", NUMBER, aliases=(f"{what}_{unit}_sec",))
            for unit in ("bytes", "iops")
            for what in ("read", "write", "total")
        ),
        *(at(f"blockio.{name}", TEXT, name) for name in ("logical_block_size", "physical_block_size")),
        *(at(f"geometry.{name}", NUMBER) for name in ("cyls", "heads", "secs")),
        at("geometry.trans"),
        *(at(f"source.reservations.{name}", TEXT, f"reservations.{name}") for name in _RESERVATIONS),
    ),
    ("path",),
    (("bus", "target.bus"), ("cache", "driver.cache")),
    owner="disk",
)


class Request(NamedTuple):
    """What was said about the content of a disk."""

    path: str | None
    pool: str | None
    volume: str | None
    size: float | None
    format: str | None
    sparse: bool
    backing: str | None
    backing_format: str | None


class Disk(Part):
    """A disk, and where its content is; ``medium`` is None for an empty drive."""

    def __init__(self, base: Node | None = None) -> None:
        super().__init__("disk", base=base)
        self.medium: Medium | None = None

    @property
    def device(self) -> str:
        """``disk``, ``cdrom``, ``floppy`` or ``lun``."""
        return self.get("@device") or "disk"

    @property
    def new(self) -> NewVolume | None:
        """The volume that will be made for it."""
        return self.medium.new if self.medium else None

    def insert(self, medium: Medium | None) -> None:
        """Take a medium, or none."""
        self.medium = medium
        for name in ("file", "dev", "dir", "volume", "pool", "name", "protocol"):
            if self.get(f"source/@{name}") is not None:
                self.put(f"source/@{name}", None)
        self.clear("source/host")
        if medium is None:
            return
        if medium.source:
            self.put("@type", "network")
            for path, value in medium.source:
                self.put(path, value)
        elif medium.type == "network":
            self._insert_url(medium.path)
        else:
            kind = self.get("@type") or medium.type
            self.put(_SOURCES.get(kind, "source/@file"), medium.path)

    def _insert_url(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise UsageError(f"{url}: {error}") from None
        protocol, _, transport = parts.scheme.partition("+")
        self.put("source/@protocol", protocol)
        if transport:
            self.put("source/host[0]/@transport", transport)
            self.put("source/host[0]/@socket", parts.path)
        elif parts.path.strip("/"):
            self.put("source/@name", parts.path.removeprefix("/"))
        if parts.query:
            self.put("source/@query", parts.query)
        if parts.hostname:
            self.put("source/host[0]/@name", parts.hostname)
        if port:
            self.put("source/host[0]/@port", str(port))

    def source_path(self, storage: Storage) -> str | None:
        """Where the content is: a path, or the address of what is elsewhere; None for an empty drive.

        Raises:
            VirtError: it is a volume, and its pool cannot be asked.
        """
        if self.medium is not None:
            return self.medium.path
        for path in _SOURCES.values():
            if (found := self.get(path)) is not None:
                return found
        if (pool := self.get("source/@pool")) is not None:
            place = storage.place_named(pool).pool
            return None if place is None else place.volume(self.get("source/@volume") or "").path
        protocol = self.get("source/@protocol")
        if protocol is None:
            return None
        host, port = self.get("source/host[0]/@name"), self.get("source/host[0]/@port")
        transport = self.get("source/host[0]/@transport")
        name = self.get("source/@name") or self.get("source/host[0]/@socket") or ""
        return "".join(
            (
                protocol,
                f"+{transport}" if transport else "",
                "://",
                f"{host}:{port}" if host and port else host or "",
                f"/{name.removeprefix('/')}" if name else "",
            )
        )


def _fill_disk(guest: Guest, part: Part, given: Given) -> None:
    """A disk of what exists, or of a volume to make.

    Raises:
        UsageError: the content is missing, or cannot be made.
        VirtError: a pool or a volume that is named is missing.
    """
    assert isinstance(part, Disk)
    if kind := given.pop("type", None):
        part.put("@type", kind)
    request = _request(given)
    DISK.apply(given, part, {"boot.order": set_boot_order}, guest)
    _find_content(guest, part, request)
    needs_content = part.device not in _MAY_BE_EMPTY and part.get("@type") in (None, *_SOURCES, "volume", "network")
    is_remote = part.get("@type") == "network" and part.has("source")
    if part.base is None and needs_content and not is_remote and part.source_path(guest.storage) is None:
        raise UsageError(f"Device type '{part.device}' requires a path")


def _request(given: Given) -> Request:
    """Take what is about the content out of what was typed."""
    for name in _PLACE:
        if name in given and given[name] is None:
            raise UsageError(f"Option '{name}' had no value set.")
    permissions = given.pop("perms", None)
    if permissions not in (None, "ro", "rw", "sh"):
        raise Refusal(f"Unknown 'perms' value '{permissions}'")
    if permissions in ("ro", "sh"):
        given["readonly" if permissions == "ro" else "shareable"] = "on"
    pool, volume = given.pop("pool", None) or None, given.pop("vol", None) or None
    if volume is not None:
        if volume.count("/") != 1:
            raise UsageError("Storage volume must be specified as vol=poolname/volname")
        pool, volume = volume.split("/")
    sparse = on_off("sparse", given.pop("sparse", None) or "") if "sparse" in given else True
    return Request(
        given.pop("path", None),
        pool,
        volume,
        _size(given.pop("size", None)),
        given.pop("format", None) or None,
        sparse,
        given.pop("backing_store", None) or None,
        given.pop("backing_format", None) or None,
    )


def _size(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        raise Refusal(f"Improper value for 'size': '{text}' is not a number of GiB, such as 10 or 0.5") from None


def _find_content(guest: Guest, disk: Disk, request: Request) -> None:
    """Find or plan the content that was asked for."""
    storage, is_new = guest.storage, disk.base is None
    if is_new and (disk.get("source/@pool") is not None or disk.get("source/@volume") is not None):
        place = storage.place_named(disk.get("source/@pool") or "")
        if place.pool is None:
            place = storage.place_named(place.name)
        assert place.pool is not None
        disk.medium = storage.medium_of(place.pool.volume(disk.get("source/@volume") or ""))
        return
    if request.path == "":
        disk.insert(None)
        return
    written = next((value for path in _SOURCES.values() if is_new and (value := disk.get(path)) is not None), None)
    if (path := request.path or written) is not None:
        disk.insert(storage.locate(path))
    pool = request.pool
    is_empty = disk.medium is None and not disk.has("source")
    if request.size and pool is None and is_empty and disk.get("@type") in (None, "file"):
        pool = DEFAULT_POOL
    if pool is None and (disk.medium is None or disk.medium.exists):
        _name_format(disk, request)
        return
    if request.volume is not None:
        place = storage.place_named(pool or "")
        if place.pool is None:
            raise UsageError(f"no storage pool with matching name '{pool}'")
        disk.insert(storage.medium_of(place.pool.volume(request.volume)))
        _name_format(disk, request)
        return
    new = _plan(guest, disk, request, pool)
    disk.insert(storage.medium_to_be(new))


def _plan(guest: Guest, disk: Disk, request: Request, pool: str | None) -> NewVolume:
    storage, format = guest.storage, request.format
    if pool is not None:
        place = storage.place_named(pool)
        if format is None and place.holds_files:
            format = DEFAULT_FORMAT
        taken = {
            os.path.basename(other.medium.path)
            for other in disks(guest)
            if other.medium is not None and os.path.dirname(other.medium.path) == place.directory
        }
        name = storage.free_name(place, guest.name or "disk", format, taken)
    else:
        assert disk.medium is not None
        name = os.path.basename(disk.medium.path)
        if request.size is None:
            raise UsageError(f"Size must be specified for non existent volume '{name}'")
        place = storage.place_of(disk.medium.path)
        if format is None and place.holds_files:
            format = DEFAULT_FORMAT
    return storage.plan(
        place,
        name,
        request.size,
        sparse=request.sparse,
        format=format,
        backing=request.backing,
        backing_format=request.backing_format,
    )


def _name_format(disk: Disk, request: Request) -> None:
    """Take ``format=`` for what exists as said: what the bytes look like may be the doing of a guest."""
    if request.format is not None and disk.medium is not None and disk.medium.format is not None:
        disk.medium = disk.medium._replace(format=request.format)


def disks(guest: Guest) -> list[Disk]:
    """The guest's disks."""
    return [part for part in guest.devices["disk"] if isinstance(part, Disk)]


def cdrom(medium: Medium | None) -> Disk:
    """A CD-ROM drive with a medium, or empty."""
    disk = Disk()
    disk.put("@device", "cdrom")
    disk.insert(medium)
    return disk


def complete(guest: Guest, disk: Part) -> None:
    """Give a disk its type, driver, bus and target."""
    assert isinstance(disk, Disk)
    disk.default("@device", "disk")
    disk.default("@type", _type(disk))
    _driver(guest, disk)
    disk.default("target/@bus", _bus(guest, disk))
    if disk.device == "cdrom":
        disk.put("readonly", "")
    if disk.get("target/@dev") is None:
        _name(guest, disk)


def _type(disk: Disk) -> str:
    if disk.get("source/@pool") is not None:
        return "volume"
    if disk.medium is not None:
        return disk.medium.type
    return "network" if disk.get("source/@protocol") is not None else "file"


def _driver(guest: Guest, disk: Disk) -> None:
    if guest.host.driver not in ("qemu", "xen"):
        return
    if disk.medium is not None or (disk.has("source") and disk.get("@type") != "nvme"):
        is_phy = guest.host.driver == "xen" and disk.get("@type") == "block"
        disk.default("driver/@name", "phy" if is_phy else "qemu")
    medium = disk.medium
    format = medium.format if medium is not None else None
    if disk.get("driver/@name") == "qemu" and medium is not None and format is not None:
        disk.default(
            "driver/@type", "raw" if format == "iso" or "block" in (disk.get("@type"), medium.type) else format
        )
    if disk.device != "disk" or not guest.host.is_qemu:
        return
    if disk.get("@type") == "block":
        disk.default("driver/@cache", "none")
        disk.default("driver/@io", "native")
    if disk.get("@type") == "block" or (disk.new is not None and disk.new.allocation == 0):
        disk.default("driver/@discard", "unmap")


def _bus(guest: Guest, disk: Disk) -> str:
    if disk.device == "floppy":
        return "fdc"
    if guest.is_paravirtual:
        return "xen"
    if not guest.is_hvm:
        return "ide"
    if disk.device == "disk" and guest.virtio(supported=guest.hardware.disk):
        return "virtio"
    if disk.device == "cdrom" and not guest.is_x86 and guest.virtio(supported=guest.hardware.scsi):
        return "scsi"
    if guest.is_arm:
        return "sd"
    return "sata" if guest.is_q35 or guest.host.driver == "bhyve" else "ide"


def _name(guest: Guest, disk: Disk) -> None:
    """Give a disk the target after all that its bus has, or the first hole where there is none after."""
    bus = disk.get("target/@bus") or ""
    prefix, limit = _PREFIXES["fdc"] if disk.device == "floppy" else _PREFIXES.get(bus, _OTHER_PREFIX)
    targets = (other.get("target/@dev") for other in disks(guest))
    ahead = {target for target in targets if target is not None and target.startswith(prefix)}
    hole: str | None = None
    for index in range(limit):
        name = prefix + letters(index)
        if name in ahead:
            ahead.discard(name)
            continue
        hole = hole or name
        if not ahead:
            hole = name
            break
    if hole is None:
        raise UsageError(f"Only {limit} disks for bus '{bus}' are supported")
    disk.put("target/@dev", hole)


def option(storage: Storage) -> Option:
    """The option; a disk that exists may be found by where its content is."""

    def is_at(part: Part, value: str | None) -> bool:
        assert isinstance(part, Disk)
        try:
            return part.source_path(storage) == value
        except HostelError:
            return False

    return Option(DISK, _fill_disk, lookups={"path": is_at})


def letters(index: int) -> str:
    """The letters of the disk of an index: a to z, aa, ab and so on."""
    text = ""
    index += 1
    while index:
        index, letter = divmod(index - 1, 26)
        text = chr(ord("a") + letter) + text
    return text
