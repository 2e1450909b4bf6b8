"""``--disk``: the options of a disk, its content, and its place on a bus."""

from __future__ import annotations

import os
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from hostel.cli.virt_install.device import ADDRESSES, BOOT_ORDER, BOOT_PARAMETER, VIRTIO, set_boot_order
from hostel.cli.virt_install.guest import Guest
from hostel.cli.virt_install.part import Part
from hostel.cli.virt_install.storage import DEFAULT_POOL, Medium, NewVolume, Storage
from hostel.cli.virt_install.suboption import Given, Kind, Refusal, Sub, SubOptions, on_off
from hostel.errors import UsageError

_SOURCES: Final = {"file": "source/@file", "block": "source/@dev", "dir": "source/@dir"}
_MAY_BE_EMPTY: Final = ("cdrom", "floppy")
# The first letters of a target, and how many disks a bus of that name takes.
_PREFIXES: Final = {"virtio": ("vd", 1024), "fdc": ("fd", 2), "ide": ("hd", 4), "xen": ("xvd", 1024)}
_OTHER_PREFIX: Final = ("sd", 1024)

DISK: Final = SubOptions(
    "--disk",
    (
        *ADDRESSES,
        BOOT_ORDER,
        BOOT_PARAMETER,
        *VIRTIO,
        *(Sub(name) for name in ("backing_store", "backing_format", "pool", "vol", "size", "format", "sparse", "type")),
        Sub("perms"),
        Sub("bus"),
        Sub("cache"),
        Sub("source.dir", "source/@dir"),
        Sub("source.file", "source/@file"),
        Sub("source.dev", "source/@dev"),
        Sub("source.pool", "source/@pool", aliases=("source_pool",)),
        Sub("source.volume", "source/@volume", aliases=("source_volume",)),
        Sub("source.name", "source/@name", aliases=("source_name",)),
        Sub("source.protocol", "source/@protocol", aliases=("source_protocol",)),
        Sub("source.startupPolicy", "source/@startupPolicy", aliases=("startup_policy",)),
        Sub("source.host[0-9]*.name", "source/host[{}]/@name", aliases=("source_host_name",)),
        Sub("source.host[0-9]*.port", "source/host[{}]/@port", Kind.NUMBER, aliases=("source_host_port",)),
        Sub("source.host[0-9]*.transport", "source/host[{}]/@transport", aliases=("source_host_transport",)),
        Sub("source.host[0-9]*.socket", "source/host[{}]/@socket", aliases=("source_host_socket",)),
        Sub("path"),
        Sub("device", "@device"),
        Sub("snapshot", "@snapshot", aliases=("snapshot_policy",)),
        Sub("rawio", "@rawio"),
        Sub("serial", "serial"),
        Sub("wwn", "wwn"),
        Sub("readonly", "readonly", Kind.FLAG),
        Sub("shareable", "shareable", Kind.FLAG),
        Sub("transient", "transient", Kind.FLAG),
        Sub("transient.shareBacking", "transient/@shareBacking", Kind.YES_NO),
        Sub("target.bus", "target/@bus"),
        Sub("target.removable", "target/@removable", Kind.ON_OFF, aliases=("removable",)),
        Sub("target.dev", "target/@dev", aliases=("target",)),
        Sub("target.rotation_rate", "target/@rotation_rate", Kind.NUMBER, aliases=("rotation_rate",)),
        Sub("driver.cache", "driver/@cache"),
        Sub("driver.discard", "driver/@discard", aliases=("discard",)),
        Sub("driver.detect_zeroes", "driver/@detect_zeroes", aliases=("detect_zeroes",)),
        Sub("driver.name", "driver/@name", aliases=("driver_name",)),
        Sub("driver.type", "driver/@type", aliases=("driver_type",)),
        Sub("driver.copy_on_read", "driver/@copy_on_read", Kind.ON_OFF),
        Sub("driver.io", "driver/@io", aliases=("io",)),
        Sub("driver.iothread", "driver/@iothread", Kind.NUMBER),
        Sub("driver.queues", "driver/@queues", Kind.NUMBER),
        Sub("driver.error_policy", "driver/@error_policy", aliases=("error_policy",)),
        *(
            Sub(f"iotune.{what}_{unit}_sec", f"iotune/{what}_{unit}_sec", Kind.NUMBER, aliases=(f"{what}_{unit}_sec",))
            for unit in ("bytes", "iops")
            for what in ("read", "write", "total")
        ),
        *(
            Sub(f"blockio.{name}", f"blockio/@{name}", aliases=(name,))
            for name in ("logical_block_size", "physical_block_size")
        ),
        *(Sub(f"geometry.{name}", f"geometry/@{name}", Kind.NUMBER) for name in ("cyls", "heads", "secs")),
        Sub("geometry.trans", "geometry/@trans"),
    ),
    ("path",),
    (("bus", "target.bus"), ("cache", "driver.cache")),
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

    def __init__(self) -> None:
        super().__init__("disk")
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
        for path in ("source/@file", "source/@dev", "source/@dir", "source/@protocol", "source/@name", "source/host"):
            self.clear(path)
        if medium is None:
            return
        if medium.type == "network":
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
            self.put("source/@name", parts.path.removeprefix("/") + (f"?{parts.query}" if parts.query else ""))
        if parts.hostname:
            self.put("source/host[0]/@name", parts.hostname)
        if port:
            self.put("source/host[0]/@port", str(port))


def read_disk(guest: Guest, storage: Storage, text: str) -> None:
    """``--disk``: one disk, of what exists or of a volume to make; ``none`` for none.

    Raises:
        UsageError: the content is missing, or cannot be made.
        VirtError: a pool or a volume that is named is missing.
    """
    if text == "none":
        return
    given = DISK.read(text)
    disk = Disk()
    if kind := given.pop("type", None):
        disk.put("@type", kind)
    request = _request(given)
    DISK.apply(given, disk, {"boot.order": set_boot_order}, guest)
    _fill(guest, storage, disk, request)
    if disk.medium is None and not disk.has("source") and disk.device not in _MAY_BE_EMPTY:
        raise UsageError(f"Device type '{disk.device}' requires a path")
    guest.devices["disk"].append(disk)


def _request(given: Given) -> Request:
    """Take what is about the content out of what was typed."""
    for name in ("path", "pool", "vol", "size", "format", "sparse", "backing_store", "backing_format", "perms"):
        if name in given and given[name] is None:
            raise UsageError(f"Option '{name}' had no value set.")
    permissions = given.pop("perms", None)
    if permissions not in (None, "", "ro", "rw", "sh"):
        raise Refusal(f"Unknown 'perms' value '{permissions}'")
    if permissions in ("ro", "sh"):
        given["readonly" if permissions == "ro" else "shareable"] = "on"
    pool, volume = given.pop("pool", None) or None, given.pop("vol", None) or None
    if volume is not None:
        if volume.count("/") != 1:
            raise UsageError("Storage volume must be specified as vol=poolname/volname")
        pool, volume = volume.split("/")
    sparse = given.pop("sparse", None) or "yes"
    return Request(
        given.pop("path", None) or None,
        pool,
        volume,
        _size(given.pop("size", None)),
        given.pop("format", None) or None,
        on_off("sparse", sparse),
        given.pop("backing_store", None) or None,
        given.pop("backing_format", None) or None,
    )


def _size(text: str | None) -> float | None:
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        raise Refusal(f"Improper value for 'size': '{text}' is not a number of GiB, such as 10 or 0.5") from None


def _fill(guest: Guest, storage: Storage, disk: Disk, request: Request) -> None:
    """Find or plan the content that was asked for."""
    if disk.get("source/@pool") is not None or disk.get("source/@volume") is not None:
        place = storage.place_named(disk.get("source/@pool") or "")
        if place.pool is None:
            place = storage.place_named(place.name)
        assert place.pool is not None
        disk.medium = storage.medium_of(place.pool.volume(disk.get("source/@volume") or ""))
        return
    written = next((value for path in _SOURCES.values() if (value := disk.get(path)) is not None), None)
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
    new = _plan(guest, storage, disk, request, pool)
    disk.insert(Medium("file", new.path, exists=False, format=new.format, new=new))


def _plan(guest: Guest, storage: Storage, disk: Disk, request: Request, pool: str | None) -> NewVolume:
    format = request.format or "qcow2"
    if pool is not None:
        place = storage.place_named(pool)
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


def cdrom(medium: Medium) -> Disk:
    """A CD-ROM drive with a medium."""
    disk = Disk()
    disk.put("@device", "cdrom")
    disk.insert(medium)
    return disk


def complete(guest: Guest) -> None:
    """Give every disk its type, driver, bus and target."""
    for disk in disks(guest):
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
    if not guest.host.is_qemu:
        return
    if disk.medium is not None or disk.has("source"):
        disk.default("driver/@name", "qemu")
    format = disk.medium.format if disk.medium is not None else None
    if disk.get("driver/@name") == "qemu" and format is not None:
        disk.default("driver/@type", "raw" if format == "iso" or disk.get("@type") == "block" else format)
    if disk.device != "disk":
        return
    if disk.get("@type") == "block":
        disk.default("driver/@cache", "none")
        disk.default("driver/@io", "native")
    if disk.get("@type") == "block" or (disk.new is not None and disk.new.allocation == 0):
        disk.default("driver/@discard", "unmap")


def _bus(guest: Guest, disk: Disk) -> str:
    if disk.device == "floppy":
        return "fdc"
    if guest.is_hvm and disk.device == "disk" and guest.virtio(supported=guest.hardware.disk):
        return "virtio"
    return "sata" if guest.is_hvm and guest.is_q35 else "ide"


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


def letters(index: int) -> str:
    """The letters of the disk of an index: a to z, aa, ab and so on."""
    text = ""
    index += 1
    while index:
        index, letter = divmod(index - 1, 26)
        text = chr(ord("a") + letter) + text
    return text
