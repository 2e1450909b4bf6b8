"""The images of a disk, top first, as its document has them: finding one, and taking some out of the middle."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from hostel.drivers.fault import fault
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.devices.disk import Disk, DiskBus, DiskDriver
from hostel.model.domain.devices.source import BackingStore, DiskSource, ImageFormat, SourceType
from hostel.model.domain.domain import Domain

_NUMBERED: Final = re.compile(r"([a-z]+)\[([0-9]+)\]")


class Place(NamedTuple):
    """Where an image is, and which volume that is, if it was opened as one."""

    path: str
    pool: str = ""
    volume: str = ""

    def is_of(self, source: DiskSource) -> bool:
        """Whether a source of a definition names it; its volume may be out of reach by now."""
        if source.pool is not None and source.volume is not None and self.pool:
            return (self.pool, self.volume) == (source.pool, source.volume)
        return self.path == _path(source)


class Image(NamedTuple):
    """One image of a disk's chain.

    Attributes:
        number: its number, from which its nodes have their names.
        type: what kind of thing its data is in.
        source: where that is.
        format: its format.
        below: what the document says of what it stands on.
    """

    number: int
    type: SourceType
    source: DiskSource
    format: str
    below: BackingStore | None

    @property
    def path(self) -> str:
        """The file, device, or name on a server."""
        return _path(self.source)

    @property
    def place(self) -> Place:
        """Where it is, and which volume."""
        return Place(self.path, self.source.pool or "", self.source.volume or "")

    @property
    def file(self) -> str | None:
        """The file's path on this host; None where the image is no file, or is only a part of one."""
        return self.source.file if self.type == SourceType.FILE and self.source.slice is None else None


def images(disk: Disk) -> Iterator[Image]:
    """Every image that the document names, top first."""
    if disk.source is None:
        return
    yield Image(disk.source.index or 0, disk.type, disk.source, disk.image_format, disk.backing_store)
    below = disk.backing_store
    while below is not None and below.source is not None and below.type is not None:
        fmt = below.image_format.type if below.image_format is not None else "raw"
        yield Image(below.index or below.source.index or 0, below.type, below.source, fmt, below.backing_store)
        below = below.backing_store


def _path(source: DiskSource) -> str:
    return source.file or source.dev or source.name or ""


def disk_of(image: Image, disk: Disk) -> Disk:
    """A disk in another's place that has nothing but an image."""
    source = image.source.copy()
    source.index = image.number
    return Disk(type=image.type, target=disk.target, driver=DiskDriver(type=image.format), source=source)


def mirror_image(disk: Disk) -> Image | None:
    """The target of the disk's copy."""
    mirror = disk.mirror
    if mirror is None or mirror.source is None or mirror.type is None:
        return None
    fmt = mirror.image_format.type if mirror.image_format is not None else "raw"
    return Image(mirror.source.index or 0, mirror.type, mirror.source, fmt, mirror.backing_store)


def find_disk(domain: Domain, name: str) -> Disk:
    """The disk with a target, or else with a source.

    Raises:
        VirtError: ``INVALID_ARG``.
    """
    for disk in domain.devices.disks:
        if disk.target.dev == name:
            return disk
    if name.startswith("/"):
        for disk in domain.devices.disks:
            if disk.source is not None and name in (disk.source.file, disk.source.dev):
                return disk
    message = f"invalid argument: disk '{name}' not found in domain"
    raise VirtError(ErrorCode.INVALID_ARG, message, domain=ErrorDomain.QEMU)


def find_image(disk: Disk, name: str | None, *, beneath: Image | None = None) -> Image:
    """The image that a path or ``vda[2]`` names; the last of the chain where nothing is named.

    Raises:
        VirtError: ``INVALID_ARG`` when the chain, below ``beneath``, has no such image.
    """
    chain = list(images(disk))
    start = 0
    if beneath is not None:
        start = next(position for position, item in enumerate(chain, 1) if item.number == beneath.number)
    candidates = chain[start:]
    target = disk.target.dev
    if not chain:
        raise _invalid(f"disk '{target}' has no image")
    if name is None:
        if not candidates:
            raise _invalid(f"could not find base image in chain for '{target}'")
        return candidates[-1]
    numbered = _NUMBERED.fullmatch(name)
    for item in candidates:
        if numbered is not None:
            if numbered[1] == target and int(numbered[2]) == item.number:
                return item
        elif item.path == name or (item.file is not None and os.path.realpath(item.file) == os.path.realpath(name)):
            return item
    if numbered is not None:
        raise _invalid(f"could not find backing store index '{numbered[2]}' in chain for '{target}'")
    where = f"beneath '{beneath.path}' in chain for '{target}'" if beneath is not None else f"in chain for '{target}'"
    raise _invalid(f"could not find image '{name}' {where}")


def check_jobs_supported(disk: Disk) -> None:
    """Refuse a disk whose images cannot be changed while its guest runs (``qemuDomainDiskBlockJobIsSupported``).

    Raises:
        VirtError: ``OPERATION_UNSUPPORTED``.
    """
    if disk.target.bus == DiskBus.SD:
        what = f"disk '{disk.target.dev}' using bus 'sd'"
    elif disk.transient is not None:
        what = f"transient disk '{disk.target.dev}'"
    elif disk.type == SourceType.VHOSTUSER:
        what = f"vhostuser disk '{disk.target.dev}'"
    else:
        return
    raise fault(ErrorCode.OPERATION_UNSUPPORTED, f"block jobs are not supported on {what}", ErrorDomain.QEMU)


def _invalid(message: str) -> VirtError:
    return fault(ErrorCode.INVALID_ARG, message, ErrorDomain.STORAGE)


def drop_below(disk: Disk, over: int, base: int) -> list[Image]:
    """Put the image ``over`` directly on ``base``, or on nothing where that is 0; returns what was between."""
    chain = list(images(disk))
    position = next(index for index, item in enumerate(chain) if item.number == over)
    end = next((index for index, item in enumerate(chain) if item.number == base), len(chain))
    between = chain[position + 1 : end]
    place: Disk | BackingStore = disk
    for _ in range(position):
        assert place.backing_store is not None
        place = place.backing_store
    below: BackingStore | None = disk.backing_store
    for _ in range(end - 1):
        below = below.backing_store if below is not None else None
    place.backing_store = below if base else BackingStore()
    return between


def go_over(disk: Disk, image: Image) -> None:
    """Make an image the disk's own top; it keeps what it stands on, and opens with what its own source says.

    One with the number 0 gets none, as in a definition.
    """
    driver = disk.driver = disk.driver or DiskDriver()
    policy = disk.source.startup_policy if disk.source is not None else None
    disk.type, disk.source, driver.type = image.type, image.source.copy(), image.format
    disk.source.index = image.number or None
    disk.source.startup_policy = policy
    disk.auth = disk.encryption = None
    disk.backing_store = image.below.copy() if image.below is not None else None


def untold(below: BackingStore | None) -> BackingStore | None:
    """What a definition has to say of the images below a disk's own, since their metadata does not.

    That is the images down to the last one that opens with a secret: what is below that one, the images tell, and
    without such a one everything. An encrypted image that is taken for a plain one would be read as it is, and written
    over.
    """
    told: list[BackingStore] = []
    place = below
    while place is not None and place.source is not None:
        told.append(place)
        place = place.backing_store
    while told and told[-1].source is not None and not (told[-1].source.encryption or told[-1].source.auth):
        told.pop()
    found: BackingStore | None = None
    for item in reversed(told):
        found = BackingStore(
            type=item.type,
            image_format=item.image_format,
            source=item.source.copy() if item.source is not None else None,
            backing_store=found,
        )
        if found.source is not None:
            found.source.index = None
    return found


def over(disk: Disk, image: Image) -> Disk:
    """A disk as it is with an image on what it was; what opened its own image opens that still."""
    top = next(images(disk))
    after = disk.copy()
    below = top.source.copy()
    below.index = below.startup_policy = None
    below.auth, below.encryption = below.auth or disk.auth, below.encryption or disk.encryption
    after.auth = after.encryption = None
    after.backing_store = BackingStore(
        type=top.type,
        index=top.number or None,
        image_format=ImageFormat(type=top.format),
        source=below,
        backing_store=disk.backing_store.copy() if disk.backing_store is not None else None,
    )
    after.type, after.source = image.type, image.source.copy()
    after.source.index = image.number or None
    after.driver = after.driver or DiskDriver()
    after.driver.type = image.format
    return after


def replace_source(definition: Domain, target: str, old: Place, image: Image, resolved: Callable[[Disk], Disk]) -> bool:
    """Have a definition's disk that is on ``old`` start from another image; False where it is on something else.

    ``resolved`` says which file a volume is.
    """
    for disk in definition.devices.disks:
        if disk.target.dev != target or disk.source is None:
            continue
        if not old.is_of(resolved(disk).source or disk.source):
            return False
        go_over(disk, image._replace(number=0, below=untold(image.below)))
        return True
    return False


def retell(definition: Domain, live: Disk) -> bool:
    """Have a definition that says what a disk stands on say what the live disk stands on now; False where it does not.

    Args:
        definition: the domain's.
        live: the live disk, whose chain a job has changed below its own image.
    """
    for disk in definition.devices.disks:
        if disk.target.dev == live.target.dev and disk.backing_store is not None:
            disk.backing_store = untold(live.backing_store)
            return True
    return False


def defined_path(disk: Disk) -> str:
    """Where a disk's top is, in one word."""
    top = next(images(disk), None)
    return "" if top is None else top.path
