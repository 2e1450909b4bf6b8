"""The drivers we have, by the names QEMU uses; a driver's module is imported when it is first needed."""

from __future__ import annotations

import errno
import importlib
from typing import Any, Final, NamedTuple

from hostel.block import filename as names
from hostel.block.driver import FilterDriver, FormatDriver
from hostel.block.protocol import ProtocolDriver
from hostel.errors import BlockError, UnknownFormat, UnsupportedFeature


class FormatRow(NamedTuple):
    """A format.

    Attributes:
        target: ``module:Class``.
        magic: byte strings, with their offsets, of which one is found in every image; empty where a format has none.
        suffix: what the names of images end with, where nothing at their start tells the format.
        parts: edges beside ``file`` that only options describe, and that must be open before the image can be.
    """

    target: str
    magic: tuple[tuple[int, bytes], ...] = ()
    suffix: str = ""
    parts: tuple[str, ...] = ()

    def may_be(self, head: bytes, filename: str) -> bool:
        """Whether the driver is worth asking about an image of this name that starts with ``head``."""
        if self.suffix and filename.endswith(self.suffix):
            return True
        return has_magic(head, self.magic)


def has_magic(head: bytes, magic: tuple[tuple[int, bytes], ...]) -> bool:
    """Whether one of the byte strings is at its offset."""
    return any(head[offset : offset + len(value)] == value for offset, value in magic)


FORMATS: Final[dict[str, FormatRow]] = {
    "qcow2": FormatRow("hostel.block.formats.qcow2.driver:Qcow2Driver", ((0, b"QFI\xfb"),)),
    "parallels": FormatRow(
        "hostel.block.formats.parallels.driver:ParallelsDriver", ((0, b"WithoutFreeSpace"), (0, b"WithouFreSpacExt"))
    ),
    "qcow": FormatRow("hostel.block.formats.qcow:QcowDriver", ((0, b"QFI\xfb\0\0\0\1"),)),
    "qed": FormatRow("hostel.block.formats.qed.driver:QedDriver", ((0, b"QED\0"),)),
    "luks": FormatRow("hostel.block.formats.luks:LuksDriver", ((0, b"LUKS\xba\xbe"),), parts=("header",)),
    "vdi": FormatRow("hostel.block.formats.vdi:VdiDriver", ((64, b"\x7f\x10\xda\xbe"),)),
    "vpc": FormatRow("hostel.block.formats.vpc.driver:VpcDriver", ((0, b"conectix"),)),
    "vhdx": FormatRow("hostel.block.formats.vhdx.driver:VhdxDriver", ((0, b"vhdxfile"),)),
    "bochs": FormatRow("hostel.block.formats.bochs:BochsDriver", ((0, b"Bochs Virtual HD Image\0"),)),
    "cloop": FormatRow("hostel.block.formats.cloop:CloopDriver", ((0, b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop"),)),
    "cow": FormatRow("hostel.block.formats.cow:CowDriver", ((0, b"OOOM"), (0, b"MOOO\1\0\0\0"))),
    "dmg": FormatRow("hostel.block.formats.dmg.driver:DmgDriver", suffix=".dmg"),
    "vmdk": FormatRow(
        "hostel.block.formats.vmdk.driver:VmdkDriver",
        # A descriptor is text: comments or blanks may stand before its version.
        ((0, b"KDMV"), (0, b"COWD"), (0, b"#"), (0, b" "), (0, b"version=")),
    ),
    "raw": FormatRow("hostel.block.formats.raw:RawDriver"),  # last: it always matches
}


class ProtocolRow(NamedTuple):
    """A protocol.

    Attributes:
        target: ``module:Class``.
        schemes: what stands before the colon in its file names.
    """

    target: str
    schemes: tuple[str, ...]


# The drivers of what is in this host's file system. The names they take are paths, which have no scheme.
FILES: Final[dict[str, str]] = {
    "file": "hostel.block.protocols.file:FileDriver",
    "host_cdrom": "hostel.block.protocols.host_device:HostCdromDriver",
    "host_device": "hostel.block.protocols.host_device:HostDeviceDriver",
    "host_floppy": "hostel.block.protocols.host_device:HostFloppyDriver",
}


# ``file`` is not among them: a name without a scheme is its, and the graph knows it.
PROTOCOLS: Final[dict[str, ProtocolRow]] = {
    "ftp": ProtocolRow("hostel.block.protocols.curl.driver:FtpDriver", ("ftp",)),
    "ftps": ProtocolRow("hostel.block.protocols.curl.driver:FtpsDriver", ("ftps",)),
    "gluster": ProtocolRow(
        "hostel.block.protocols.gluster.driver:GlusterDriver",
        ("gluster", "gluster+rdma", "gluster+tcp", "gluster+unix"),
    ),
    "http": ProtocolRow("hostel.block.protocols.curl.driver:HttpDriver", ("http",)),
    "https": ProtocolRow("hostel.block.protocols.curl.driver:HttpsDriver", ("https",)),
    "iscsi": ProtocolRow("hostel.block.protocols.iscsi.driver:IscsiDriver", ("iscsi",)),
    "nbd": ProtocolRow(
        "hostel.block.protocols.nbd.driver:NbdDriver",
        ("nbd", "nbd+tcp", "nbd+unix", "nbds", "nbds+tcp", "nbds+unix"),
    ),
    "nfs": ProtocolRow("hostel.block.protocols.nfs.driver:NfsDriver", ("nfs",)),
    "null-aio": ProtocolRow("hostel.block.protocols.null:NullAioDriver", ("null-aio",)),
    "null-co": ProtocolRow("hostel.block.protocols.null:NullDriver", ("null-co",)),
    "rbd": ProtocolRow("hostel.block.protocols.rbd.driver:RbdDriver", ("rbd",)),
    "sheepdog": ProtocolRow(
        "hostel.block.protocols.sheepdog.driver:SheepdogDriver", ("sheepdog", "sheepdog+tcp", "sheepdog+unix")
    ),
    "ssh": ProtocolRow("hostel.block.protocols.ssh.driver:SshDriver", ("ssh",)),
    "tftp": ProtocolRow("hostel.block.protocols.curl.driver:TftpDriver", ("tftp",)),
    "vvfat": ProtocolRow("hostel.block.protocols.vvfat.driver:VvfatDriver", ("fat",)),
}


class FilterRow(NamedTuple):
    """A filter.

    Attributes:
        target: ``module:Class``.
        edges: the options that describe its children, the primary one first.
        probes: the edges whose children, described by a name alone, have their format guessed; others are taken as is.
        scheme: what stands before the colon in its file names; empty where it has none.
        lists: its children are numbered (``children.0``).
    """

    target: str
    edges: tuple[str, ...] = ("file",)
    probes: tuple[str, ...] = ("file",)
    scheme: str = ""
    lists: bool = False


FILTERS: Final[dict[str, FilterRow]] = {
    "blkdebug": FilterRow("hostel.block.filters.blkdebug:BlkdebugDriver", ("image",), (), "blkdebug"),
    "blklogwrites": FilterRow("hostel.block.filters.blklogwrites:BlklogwritesDriver", ("file", "log")),
    "blkverify": FilterRow("hostel.block.filters.blkverify:BlkverifyDriver", ("raw", "test"), ("test",), "blkverify"),
    "compress": FilterRow("hostel.block.filters.compress:CompressDriver"),
    "copy-before-write": FilterRow(
        "hostel.block.jobs.copy_before_write:CopyBeforeWriteDriver", ("file", "target"), ("file", "target")
    ),
    "copy-on-read": FilterRow("hostel.block.filters.copy_on_read:CopyOnReadDriver"),
    "gzip": FilterRow("hostel.block.filters.packed.driver:GzipDriver", probes=(), scheme="gzip"),
    "preallocate": FilterRow("hostel.block.filters.preallocate:PreallocateDriver"),
    "quorum": FilterRow("hostel.block.filters.quorum:QuorumDriver", ("children",), ("children",), lists=True),
    "snapshot-access": FilterRow("hostel.block.jobs.copy_before_write:SnapshotAccessDriver"),
    "throttle": FilterRow("hostel.block.filters.throttle:ThrottleDriver"),
    "xz": FilterRow("hostel.block.filters.packed.driver:XzDriver", probes=(), scheme="xz"),
    "zstd": FilterRow("hostel.block.filters.packed.driver:ZstdDriver", probes=(), scheme="zstd"),
}


def format_driver(name: str) -> type[FormatDriver]:
    """Load a format's driver class.

    Raises:
        UnknownFormat: there is none of this name.
    """
    row = FORMATS.get(name)
    if row is None:
        raise UnknownFormat(f"Unknown driver '{name}'")
    driver: type[FormatDriver] = _load(row.target)
    return driver


def is_driver(name: str) -> bool:
    """Whether there is a driver of this name, of whatever kind."""
    return any(name in rows for rows in (FORMATS, FILES, PROTOCOLS, FILTERS))


def require_backing_format(name: object) -> None:
    """Refuse to write a format that there is not into an image, where it would be in the way of opening it.

    Raises:
        BlockError: there is no such driver (EINVAL); that none is named is nothing to be refused.
    """
    if name is not None and not is_driver(str(name)):
        raise BlockError(f"Parameter 'backing-fmt' does not accept value '{name}'", errno=errno.EINVAL)


def protocol_of(scheme: str) -> str | None:
    """The protocol that a file name's scheme is of, those of :data:`FILES` among them; None where there is none."""
    if scheme in FILES:
        return scheme
    return next((name for name, row in PROTOCOLS.items() if scheme in row.schemes), None)


def protocol_name(filename: str) -> str:
    """The protocol that a file name is of: ``file`` for a plain path, and for no name at all.

    Raises:
        BlockError: the name is of a protocol that we do not have.
    """
    scheme = names.protocol(filename)
    found = "file" if scheme is None else protocol_of(scheme)
    if found is None:
        raise UnsupportedFeature(
            f"Unknown protocol '{scheme}'", errno=errno.EINVAL, hint=f"For a file of that name write './{filename}'."
        )
    return found


def protocol_driver(name: str) -> type[ProtocolDriver]:
    """Load the driver class of one of :data:`PROTOCOLS`."""
    driver: type[ProtocolDriver] = _load(PROTOCOLS[name].target)
    return driver


def filter_of(scheme: str) -> str | None:
    """The filter that a file name's scheme is of; None where there is none."""
    return next((name for name, row in FILTERS.items() if row.scheme and row.scheme == scheme), None)


def filter_driver(name: str) -> type[FilterDriver]:
    """Load the driver class of one of :data:`FILTERS`."""
    driver: type[FilterDriver] = _load(FILTERS[name].target)
    return driver


def _load(target: str) -> Any:
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)
