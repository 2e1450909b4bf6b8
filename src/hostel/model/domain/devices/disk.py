"""``<disk>`` (``virDomainDiskDefFormat``)."""

from __future__ import annotations

import enum
import re
from typing import Any, Final, Self

from hostel.codec.xml import (
    ON_OFF,
    YES_NO,
    Element,
    attr,
    child,
    choice,
    enumeration,
    flag,
    integer,
    setting,
    text,
)
from hostel.model.authentication import Authentication
from hostel.model.domain.devices.device import BootableDevice, VirtioOptions
from hostel.model.domain.devices.source import BackingStore, DiskSource, MetadataCache, Mirror, SourceType
from hostel.model.encryption import Encryption

_U64 = 2**64 - 1
# Digits name a partition, which takes the place of its disk.
_TARGET: Final = re.compile("(fd|hd|vd|sd|xvd|ubd)([a-z]+)[0-9]*")


class DiskDevice(enum.StrEnum):
    """How the guest sees the disk."""

    DISK = "disk"
    CDROM = "cdrom"
    FLOPPY = "floppy"
    LUN = "lun"


class DiskBus(enum.StrEnum):
    """``virDomainDiskBus``."""

    NONE = "none"
    IDE = "ide"
    FDC = "fdc"
    SCSI = "scsi"
    VIRTIO = "virtio"
    XEN = "xen"
    USB = "usb"
    UML = "uml"
    SATA = "sata"
    SD = "sd"


class DiskDriver(VirtioOptions, tag="driver", drop_empty=True):
    """Which back end, and how it opens the image."""

    name: str | None = attr(default=None)
    type: str | None = attr(default=None)
    cache: str | None = attr(
        choice("default", "none", "writethrough", "writeback", "directsync", "unsafe"), default=None
    )
    error_policy: str | None = attr(choice("default", "stop", "report", "ignore", "enospace"), default=None)
    rerror_policy: str | None = attr(choice("default", "stop", "report", "ignore"), default=None)
    io: str | None = attr(choice("default", "native", "threads", "io_uring"), default=None)
    ioeventfd: bool | None = attr(ON_OFF, default=None)
    event_idx: bool | None = attr(ON_OFF, default=None)
    copy_on_read: bool | None = attr(ON_OFF, default=None)
    discard: str | None = attr(choice("default", "unmap", "ignore"), default=None)
    iothread: int | None = attr(integer(1), default=None)
    detect_zeroes: str | None = attr(choice("default", "off", "on", "unmap"), default=None)
    queues: int | None = attr(integer(), default=None)
    queue_size: int | None = attr(integer(), default=None)
    metadata_cache: MetadataCache | None = child(MetadataCache, default=None)


class Geometry(Element, tag="geometry"):
    """Cylinders, heads and sectors that firmware is told."""

    cyls: int = attr(integer())
    heads: int = attr(integer())
    secs: int = attr(integer())
    trans: str | None = attr(choice("default", "none", "auto", "lba"), default=None)


class BlockIo(Element, tag="blockio", drop_empty=True):
    """Sector sizes that the guest is told, in bytes."""

    logical_block_size: int | None = attr(integer(), default=None)
    physical_block_size: int | None = attr(integer(), default=None)
    discard_granularity: int | None = attr(integer(), default=None)


class DiskTarget(Element, tag="target"):
    """The disk's name in the document, which also says where on its bus it is."""

    dev: str = attr()
    bus: DiskBus | None = attr(enumeration(DiskBus), default=None)
    tray: str | None = attr(choice("open", "closed"), default=None)
    removable: bool | None = attr(ON_OFF, default=None)
    rotation_rate: int | None = attr(integer(0, 65534), default=None)

    @property
    def prefix(self) -> str | None:
        """``vd`` of ``vda``; None where it is no name of that kind."""
        found = _TARGET.fullmatch(self.dev)
        return found[1] if found else None

    @property
    def position(self) -> int | None:
        """Which disk of its prefix it is, from 0: 2 for ``hdc``, 26 for ``vdaa``; None where the name has no place."""
        found = _TARGET.fullmatch(self.dev)
        if found is None or len(found[2]) > 6:
            return None
        position = 0
        for letter in found[2]:
            position = position * 26 + ord(letter) - ord("a") + 1
        return position - 1


class IoTune(Element, tag="iotune", drop_empty=True):
    """Throttling: bytes and operations a second, bursts, and how many seconds these may last."""

    total_bytes_sec: int | None = text(integer(maximum=_U64), default=None)
    read_bytes_sec: int | None = text(integer(maximum=_U64), default=None)
    write_bytes_sec: int | None = text(integer(maximum=_U64), default=None)
    total_iops_sec: int | None = text(integer(maximum=_U64), default=None)
    read_iops_sec: int | None = text(integer(maximum=_U64), default=None)
    write_iops_sec: int | None = text(integer(maximum=_U64), default=None)
    total_bytes_sec_max: int | None = text(integer(maximum=_U64), default=None)
    read_bytes_sec_max: int | None = text(integer(maximum=_U64), default=None)
    write_bytes_sec_max: int | None = text(integer(maximum=_U64), default=None)
    total_iops_sec_max: int | None = text(integer(maximum=_U64), default=None)
    read_iops_sec_max: int | None = text(integer(maximum=_U64), default=None)
    write_iops_sec_max: int | None = text(integer(maximum=_U64), default=None)
    size_iops_sec: int | None = text(integer(maximum=_U64), default=None)
    group_name: str | None = text(default=None)
    total_bytes_sec_max_length: int | None = text(integer(maximum=_U64), default=None)
    read_bytes_sec_max_length: int | None = text(integer(maximum=_U64), default=None)
    write_bytes_sec_max_length: int | None = text(integer(maximum=_U64), default=None)
    total_iops_sec_max_length: int | None = text(integer(maximum=_U64), default=None)
    read_iops_sec_max_length: int | None = text(integer(maximum=_U64), default=None)
    write_iops_sec_max_length: int | None = text(integer(maximum=_U64), default=None)


class Transient(Element, tag="transient"):
    """Writes are thrown away when the guest ends."""

    share_backing: bool | None = attr(YES_NO, name="shareBacking", default=None)


class Disk(BootableDevice, tag="disk"):
    """A disk, CD-ROM, floppy or logical unit."""

    type: SourceType = attr(enumeration(SourceType), default=SourceType.FILE)
    device: DiskDevice = attr(enumeration(DiskDevice), default=DiskDevice.DISK)
    model: str | None = attr(choice("virtio", "virtio-transitional", "virtio-non-transitional"), default=None)
    rawio: bool | None = attr(YES_NO, default=None)
    sgio: str | None = attr(choice("filtered", "unfiltered"), default=None)
    snapshot: str | None = attr(choice("no", "internal", "external", "manual"), default=None)
    driver: DiskDriver | None = child(DiskDriver, default=None)
    auth: Authentication | None = child(Authentication, default=None)
    source: DiskSource | None = child(DiskSource, default=None)
    backing_store: BackingStore | None = child(BackingStore, default=None)
    backend_domain: str | None = setting(tag="backenddomain", name="name", default=None)
    geometry: Geometry | None = child(Geometry, default=None)
    blockio: BlockIo | None = child(BlockIo, default=None)
    mirror: Mirror | None = child(Mirror, default=None)
    target: DiskTarget = child(DiskTarget)
    iotune: IoTune | None = child(IoTune, default=None)
    readonly: bool = flag(default=False)
    shareable: bool = flag(default=False)
    transient: Transient | None = child(Transient, default=None)
    serial: str | None = text(default=None)
    wwn: str | None = text(default=None)
    vendor: str | None = text(default=None)
    product: str | None = text(default=None)
    encryption: Encryption | None = child(Encryption, default=None)

    @classmethod
    def from_node(cls, node: Any) -> Self:
        """Read the element; a drive of whose medium it says nothing is of no other type than ``file``.

        Raises:
            ModelError: it is malformed; the path says where.
        """
        disk = super().from_node(node)
        if disk.source is None:
            disk.type = SourceType.FILE
        return disk

    @property
    def image_format(self) -> str:
        """The image's format; ``raw`` where the document says nothing."""
        return (self.driver.type if self.driver else None) or "raw"
