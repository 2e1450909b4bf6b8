"""``<source>`` of a disk and what is behind it: files, devices, servers, volumes (``virDomainDiskSourceFormat``)."""

from __future__ import annotations

import enum

from hostel.codec.xml import (
    STRING,
    YES_NO,
    Element,
    attr,
    child,
    children,
    choice,
    content,
    enumeration,
    hexadecimal,
    integer,
    nested,
    setting,
)
from hostel.model.authentication import Authentication
from hostel.model.domain.devices.seclabel import DeviceSecurityLabel
from hostel.model.encryption import Encryption
from hostel.model.scaled import Scaled

_U64 = 2**64 - 1

# virStorageFileFormat
FORMATS = (
    "raw", "dir", "bochs", "cloop", "dmg", "iso", "vpc", "vdi", "fat", "vhd", "ploop", "cow", "qcow", "qcow2", "qed",
    "vmdk",
)  # fmt: skip
PROTOCOLS = (
    "nbd", "rbd", "sheepdog", "gluster", "iscsi", "http", "https", "ftp", "ftps", "tftp", "ssh", "vxhs", "nfs",
)  # fmt: skip


class SourceType(enum.StrEnum):
    """``virStorageType``: what kind of thing a disk's data is in."""

    FILE = "file"
    BLOCK = "block"
    DIR = "dir"
    NETWORK = "network"
    VOLUME = "volume"
    NVME = "nvme"
    VHOSTUSER = "vhostuser"


class Host(Element, tag="host"):
    """A server's address, or its socket."""

    name: str | None = attr(default=None)
    port: str | None = attr(default=None)
    transport: str | None = attr(choice("tcp", "unix", "rdma"), default=None)
    socket: str | None = attr(default=None)


class Identity(Element, tag="identity", drop_empty=True):
    """User and group on an NFS server."""

    user: str | None = attr(default=None)
    group: str | None = attr(default=None)


class Initiator(Element, tag="initiator", drop_empty=True):
    """An iSCSI initiator's name."""

    iqn: str | None = setting(name="name", default=None)


class Cookie(Element, tag="cookie"):
    """An HTTP cookie."""

    name: str = attr()
    value: str | None = content(default=None)


class Cookies(Element, tag="cookies", drop_empty=True):
    """HTTP cookies."""

    cookies: list[Cookie] = children(Cookie, factory=list)


class Reconnect(Element, tag="reconnect"):
    """Whether to come back to a socket that went away, after how many seconds."""

    enabled: bool | None = attr(YES_NO, default=None)
    timeout: int | None = attr(integer(), default=None)


class NvmeAddress(Element, tag="address"):
    """The PCI address of an NVMe controller of the host."""

    domain: int = attr(hexadecimal(4, maximum=0xFFFFFFFF), default=0)
    bus: int = attr(hexadecimal(2), default=0)
    slot: int = attr(hexadecimal(2, maximum=0x1F), default=0)
    function: int = attr(hexadecimal(1, maximum=7), default=0)


class Slice(Element, tag="slice"):
    """A part of a storage, in bytes."""

    type: str | None = attr(choice("storage"), default=None)
    offset: int = attr(integer(maximum=_U64))
    size: int = attr(integer(maximum=_U64))


class Slices(Element, tag="slices", drop_empty=True):
    """Which part of a storage is the image."""

    slices: list[Slice] = children(Slice, factory=list)


class ReservationsSource(Element, tag="source"):
    """The socket of a helper for persistent reservations."""

    type: str | None = attr(choice("unix"), default=None)
    path: str | None = attr(default=None)
    mode: str | None = attr(choice("client"), default=None)


class Reservations(Element, tag="reservations"):
    """SCSI persistent reservations."""

    managed: bool | None = attr(YES_NO, default=None)
    source: ReservationsSource | None = child(ReservationsSource, default=None)


class DiskSource(Element, tag="source", drop_empty=True):
    """Where a disk's data is; which attributes count depends on the disk's ``type``."""

    file: str | None = attr(default=None)
    fdgroup: str | None = attr(default=None)
    dev: str | None = attr(default=None)
    dir: str | None = attr(default=None)
    protocol: str | None = attr(choice(*PROTOCOLS), default=None)
    name: str | None = attr(default=None)
    query: str | None = attr(default=None)
    tls: bool | None = attr(YES_NO, default=None)
    tls_hostname: str | None = attr(name="tlsHostname", default=None)
    pool: str | None = attr(default=None)
    volume: str | None = attr(default=None)
    mode: str | None = attr(choice("host", "direct"), default=None)
    type: str | None = attr(choice("pci", "unix"), default=None)
    path: str | None = attr(default=None)
    managed: bool | None = attr(YES_NO, default=None)
    namespace: int | None = attr(integer(1), default=None)
    startup_policy: str | None = attr(
        choice("default", "mandatory", "requisite", "optional"), name="startupPolicy", default=None
    )
    index: int | None = attr(integer(), default=None)
    hosts: list[Host] = children(Host, factory=list)
    identity: Identity | None = child(Identity, default=None)
    snapshot: str | None = setting(name="name", default=None)
    config: str | None = setting(name="file", default=None)
    initiator: Initiator | None = child(Initiator, default=None)
    ssl_verify: bool | None = setting(YES_NO, tag="ssl", name="verify", default=None)
    cookies: Cookies | None = child(Cookies, default=None)
    readahead: int | None = setting(integer(maximum=_U64), name="size", default=None)
    timeout: int | None = setting(integer(maximum=_U64), name="seconds", default=None)
    address: NvmeAddress | None = child(NvmeAddress, default=None)
    reconnect: Reconnect | None = child(Reconnect, default=None)
    slices: Slices | None = child(Slices, default=None)
    seclabels: list[DeviceSecurityLabel] = children(DeviceSecurityLabel, factory=list)
    auth: Authentication | None = child(Authentication, default=None)
    encryption: Encryption | None = child(Encryption, default=None)
    reservations: Reservations | None = child(Reservations, default=None)

    @property
    def slice(self) -> Slice | None:
        """The part of the storage that is the image; None where all of it is."""
        return next((item for item in self.slices.slices if item.type), None) if self.slices is not None else None


class MaxSize(Scaled, tag="max_size"):
    """The most that a cache may take."""

    DEFAULT_UNIT = "bytes"


class MetadataCache(Element, tag="metadata_cache", drop_empty=True):
    """A qcow2 driver's cache of metadata."""

    max_size: MaxSize | None = child(MaxSize, default=None)


class ImageFormat(Element, tag="format"):
    """The format of an image behind the disk."""

    type: str = attr(choice(*FORMATS))
    metadata_cache: MetadataCache | None = child(MetadataCache, default=None)


class BackingStore(Element, tag="backingStore"):
    """The image that an overlay stands on; without a type it says that there is none."""

    type: SourceType | None = attr(enumeration(SourceType), default=None)
    index: int | None = attr(integer(), default=None)
    image_format: ImageFormat | None = child(ImageFormat, default=None)
    source: DiskSource | None = child(DiskSource, default=None)
    backing_store: BackingStore | None = nested(default=None)


class Mirror(Element, tag="mirror"):
    """The target of a running copy job; live documents only."""

    type: SourceType | None = attr(enumeration(SourceType), default=None)
    file: str | None = attr(default=None)
    format_name: str | None = attr(STRING, name="format", default=None)
    job: str | None = attr(choice("copy", "active-commit"), default=None)
    ready: str | None = attr(choice("yes", "abort", "pivot"), default=None)
    image_format: ImageFormat | None = child(ImageFormat, default=None)
    source: DiskSource | None = child(DiskSource, default=None)
    backing_store: BackingStore | None = child(BackingStore, default=None)
