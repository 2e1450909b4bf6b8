"""Looking at one volume's file without trusting it.

Only the file itself is opened: the format is told from its first bytes, and what its metadata names (a backing file,
``json:`` names) is read as text and never followed. A file that cannot be made sense of is still a volume: its size on
the host stands for its capacity.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from typing import Final, NamedTuple

from hostel.block import filename, graph, probe
from hostel.block.blockdev import Described
from hostel.block.content import ISO_MAGIC
from hostel.block.driver import Reference
from hostel.block.node import BlockNode
from hostel.block.registry import FORMATS
from hostel.block.trust import Trust
from hostel.drivers.base import VolumeType
from hostel.drivers.storage.document import VOLUME_FORMATS, BackingDefinition, Permissions, VolumeFacts, shown_backing
from hostel.errors import BlockError
from hostel.img.foreign import recorded_length

# What XML 1.0 cannot write (section 2.2).
_UNWRITABLE: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class _Metadata(NamedTuple):
    format: str
    capacity: int
    backing: BackingDefinition | None = None
    compat: str | None = None
    cluster_size: int = 0
    features: tuple[str, ...] | None = None
    encryption: str = ""


def volume_type(status: os.stat_result) -> VolumeType | None:
    """The type of volume that a file is; None for what is no volume (FIFOs, sockets, character devices)."""
    if stat.S_ISREG(status.st_mode):
        return VolumeType.FILE
    if stat.S_ISDIR(status.st_mode):
        return VolumeType.DIR
    if stat.S_ISBLK(status.st_mode):
        return VolumeType.BLOCK
    return None


def inspect(name: str, path: str) -> VolumeFacts | None:
    """The facts of the volume at ``path``; None when there is no volume.

    Raises:
        OSError: the host refuses to look at it.
    """
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    kind = volume_type(status)
    if kind is None:
        return None
    allocation = status.st_blocks * 512
    permissions = Permissions(stat.S_IMODE(status.st_mode) & 0o777, status.st_uid, status.st_gid)
    times = (status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns)
    physical = status.st_size
    if kind is VolumeType.DIR:
        return VolumeFacts(name, path, kind, "dir", 0, 0, 0, permissions, times)
    if kind is VolumeType.BLOCK:
        physical = allocation = _device_length(path)
    found = _metadata(path, physical)
    return VolumeFacts(
        name,
        path,
        kind,
        found.format,
        found.capacity,
        allocation,
        physical,
        permissions,
        times,
        found.backing,
        found.compat,
        found.cluster_size,
        found.features,
        encryption=found.encryption,
    )


def image_facts(facts: VolumeFacts, format: str, image: Described) -> VolumeFacts:
    """The facts of an image of a server's, of a known format; what cannot be opened stays as long as its file.

    Args:
        facts: of its file.
        format: told from its first bytes.
        image: how it is opened.
    """
    found = _Metadata(format, facts.physical)
    if format in FORMATS:
        with contextlib.suppress(BlockError, OSError), open_untrusted(image) as node:
            found = _read(node, facts.path)
    return facts._replace(
        format=found.format,
        capacity=found.capacity,
        backing=found.backing,
        compat=found.compat,
        features=found.features,
    )


def detect_format(path: str) -> str:
    """The name of the format of a file, told from its first bytes; ``raw`` where none is recognised.

    Raises:
        OSError: it cannot be read.
    """
    with _opened(path) as descriptor:
        head = os.pread(descriptor, probe.HEAD_LENGTH, 0)
        found = probe.detect(head, "")  # by what is in it: a name says nothing to libvirt
        offset, magic = ISO_MAGIC
        if found == "raw" and os.pread(descriptor, len(magic), offset) == magic:
            return "iso"
        return found


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _metadata(path: str, physical: int) -> _Metadata:
    try:
        format = detect_format(path)
    except OSError:
        return _Metadata("raw", physical)
    if format == "luks":
        with contextlib.suppress(BlockError, OSError), open_untrusted(path, format) as node:
            return _Metadata("raw", node.length, encryption=format)
        return _Metadata("raw", physical, encryption=format)
    if format not in VOLUME_FORMATS:
        format = "raw"  # what libvirt has no name for is bytes to it
    if format == "raw":
        return _Metadata(format, physical)
    if format in FORMATS:
        # What the driver refuses, since it is broken or uses what we do not know, still says how long it is.
        with contextlib.suppress(BlockError, OSError), open_untrusted(path, format) as node:
            return _read(node, path)
    return _Metadata(format, _recorded_length(path, format) or physical)


def _recorded_length(path: str, format: str) -> int | None:
    """The virtual size that an image's header gives, read from its fixed place; None where there is none to believe."""
    try:
        with _opened(path) as descriptor:
            return recorded_length(format, lambda offset, length: os.pread(descriptor, length, offset))
    except OSError:
        return None


def open_untrusted(path: str | Described, format: str | None = None) -> BlockNode:
    """Open one image alone, for its metadata; what is described has its format in that."""
    return graph.open(
        path, format, read_only=True, no_backing=True, no_io=True, force_share=True, trust=Trust.UNTRUSTED
    )


def _read(node: BlockNode, path: str) -> _Metadata:
    backing = next((entry for entry in node.driver.references() if entry.child == "backing"), None)
    info = node.driver.info()
    specific = info.specific or {}
    compat = specific.get("compat")
    features = None
    if compat == "0.10":
        compat = None  # libvirt does not speak of the oldest
    if compat is not None:
        # libvirt's name for each of QEMU's.
        names = (("lazy-refcounts", "lazy_refcounts"), ("extended-l2", "extended_l2"))
        features = tuple(ours for theirs, ours in names if specific.get(theirs))
    return _Metadata(
        node.format,
        node.length,
        _shown(backing, path),
        str(compat) if compat is not None else None,
        (info.cluster_size or 0) if node.format == "qcow2" else 0,  # libvirt knows it of no other format
        features,
        _encryption(specific.get("encrypt")) if info.encrypted else "",
    )


def _encryption(described: object) -> str:
    """The name that libvirt has for how an image is encrypted; the old way has that of the format that began it."""
    is_luks = isinstance(described, dict) and described.get("format") == "luks"
    return "luks" if is_luks else "qcow"


def _shown(backing: Reference | None, path: str) -> BackingDefinition | None:
    if backing is None:
        return None
    # A document can show neither: the format may be any bytes, and so may the name.
    shown = backing.filename if filename.protocol(path) is not None else shown_backing(backing.filename, path)
    name = _UNWRITABLE.sub("\ufffd", shown)
    return BackingDefinition(name, backing.format if backing.format in VOLUME_FORMATS else None)


def _device_length(path: str) -> int:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return 0
    try:
        return os.lseek(descriptor, 0, os.SEEK_END)
    except OSError:
        return 0
    finally:
        os.close(descriptor)
