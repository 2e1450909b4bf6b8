"""Whether an image is safe to accept: looked at by itself, without following anything that it names.

One file is opened, for reading, once. Its format is told by content and held against what was expected; a driver then
opens it untrusted, as metadata alone; what it names (backing file, data file, extents) is reported as text. What is
read, kept and computed is bounded, whatever the image claims: 256 MiB of tables, about 100 MiB of memory, seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from hostel.block import filename as names
from hostel.block import probe
from hostel.block.content import look as look_at_content
from hostel.block.driver import BlockDriver, FormatDriver, OpenMode, Reference
from hostel.block.formats.parallels.layout import read_header as parallels_header
from hostel.block.formats.qcow import read_header as qcow_header
from hostel.block.formats.qed.layout import read_header as qed_header
from hostel.block.formats.vdi import Header as VdiHeader
from hostel.block.node import BlockNode
from hostel.block.permission import Permission
from hostel.block.powers import Unpacking
from hostel.block.protocols.file import FileDriver, open_file
from hostel.block.registry import FORMATS, format_driver
from hostel.block.trust import Trust
from hostel.errors import BlockError, ImageLocked, UnsupportedFeature, UsageError
from hostel.img import foreign
from hostel.img.foreign import Claim
from hostel.img.inspect_blocks import (
    look_at_parallels_table,
    look_at_qcow_tables,
    look_at_vdi_map,
    look_at_vhdx_table,
    look_at_vmdk_tables,
    look_at_vpc_table,
)
from hostel.img.inspect_entries import look_at_qed_tables
from hostel.img.inspect_luks import look_at_detached_header, look_at_encryption
from hostel.img.inspect_ova import look_at_archive
from hostel.img.inspect_packed import look_inside_wrapper
from hostel.img.inspect_qcow2 import look_at_header, look_at_tables
from hostel.img.inspect_vmdk import MAX_NAMES, look_at_descriptor
from hostel.img.inspection import Inside, Inspection, Level, Look
from hostel.units import SECTOR, KiB, MiB

# A CD's file system is a raw image to QEMU, and a format of its own to those who sort uploads.
ISO: Final = "iso"
EXPECTED: Final = (*sorted(FORMATS), ISO)

_HEAD: Final = 64 * KiB  # bytes in which a format is looked for; text may start with long comments
_MAX_UNPACKED: Final = 4 * MiB  # bytes of a compressed part of the disk that is still unpacked; usual are 1 MiB at most
# Of formats whose tables are looked at by themselves.
_TABLES: Final[Mapping[str, Callable[[Look], None]]] = {
    "parallels": lambda look: look_at_parallels_table(look, parallels_header(look.file)),
    "qcow": lambda look: look_at_qcow_tables(look, qcow_header(look.file)),
    "qed": lambda look: look_at_qed_tables(look, qed_header(look.file)),
    "vdi": lambda look: look_at_vdi_map(look, VdiHeader.unpack(look.read(0, VdiHeader.SIZE))),
    "vhdx": look_at_vhdx_table,
    "vmdk": look_at_vmdk_tables,
    "vpc": look_at_vpc_table,
}
_UNTRUSTED: Final = OpenMode(read_only=True, no_io=True, force_share=True, trust=Trust.UNTRUSTED)
_FOOTERS: Final = {"vpc": b"conectix", "dmg": b"koly"}  # what the last sector of a format without a header starts with


def inspect(
    path: str, *, expected: str | None = None, max_virtual_size: int | None = None, check_digests: bool = False
) -> Inspection:
    """Look at the image in the file at ``path``, which is a path whatever it looks like, never a protocol's name.

    Args:
        path: of a regular file or a block device.
        expected: one of :data:`EXPECTED`; None takes what the content is of.
        max_virtual_size: a larger disk is unsafe, bytes; None for no limit.
        check_digests: of an OVA, read all that is in it, and hold it against its manifest.

    Raises:
        UsageError: there is no such format.
        BlockError: the file cannot be opened, or is none.
        OSError: the host's own errors while reading.
    """
    if expected is not None and expected not in EXPECTED:
        raise UsageError(f"Unknown format '{expected}'; known are {', '.join(EXPECTED)}")
    with BlockNode(open_file(path, _UNTRUSTED), path, read_only=True) as file:
        look = Look(file)
        _look_for_users(look)
        head = look.read(0, _HEAD)
        formats = _formats(look, head, path)
        format = formats[0] if formats else "raw"
        _compare_formats(look, formats, expected)
        _look_inside(look, format)
        packed = look.content.packed if look.content is not None and not formats else None
        inside = look_inside_wrapper(look, packed, max_virtual_size) if packed else None
        disks = None
        if packed == "tar":
            disks = look_at_archive(look, _look_at_part, max_virtual_size, digests=check_digests)
        _judge_names(look)
        _judge_size(look, max_virtual_size)
        _judge_content(look, inside, is_ova=disks is not None)
        order = list(Level)
        return Inspection(
            filename=path,
            format=format,
            expected=expected,
            formats=tuple(formats),
            file_size=look.length,
            actual_size=_allocated(file),
            virtual_size=look.virtual_size,
            names=tuple(look.names),
            snapshots=look.snapshots,
            encrypted=look.encrypted,
            content=look.content,
            inside=inside,
            disks=disks,
            findings=tuple(sorted(look.findings, key=lambda each: order.index(each.level))),
        )


def _allocated(file: BlockNode) -> int:
    found = getattr(file.driver, "allocated_length", 0)
    return int(found)


def _look_for_users(look: Look) -> None:
    """Say when somebody may write the file: then what was found holds no longer than it takes to find it."""
    assert isinstance(look.file.driver, FileDriver)
    shared = Permission.ALL & ~(Permission.WRITE | Permission.RESIZE)
    try:
        look.file.driver.lock(Permission.CONSISTENT_READ, shared)
    except ImageLocked as error:
        holders = (error.hint or "").partition("It is open in ")[2].rstrip(".")
        who = f"{holders} uses it" if holders else "another process may use it"
        look.add(Level.WARNING, "in-use", f"The file may change: {who} ({error})")


# ---- which format


def _formats(look: Look, head: bytes, path: str) -> list[str]:
    found = probe.matching(head, path)
    last = look.read(max(0, look.length - SECTOR), SECTOR)
    return found + [name for name, magic in _FOOTERS.items() if last.startswith(magic) and name not in found]


def _compare_formats(look: Look, formats: list[str], expected: str | None) -> None:
    """Find out whether all programs, and the caller, take the file for the same thing."""
    if not look.length:
        look.add(Level.UNSAFE, "empty", "The file is empty")
        return
    content = look_at_content(look.read)
    others = [each for each in content.names() if each not in formats] if formats else []
    if len(formats) + len(others) > 1:
        both = ", ".join(formats + others)
        look.add(Level.UNSAFE, "ambiguous", f"The file can be taken for more than one thing: {both}")
    found = formats[0] if formats else ISO if expected == ISO and content.filesystem == "iso9660" else "raw"
    if expected is not None and found != expected:
        named = "no known format" if found == "raw" else found
        look.add(Level.UNSAFE, "format-mismatch", f"The format should be {expected}; the content is of {named}")
    elif expected is None and not formats:
        look.add(
            Level.WARNING,
            "format-guessed",
            "The content is of no known format, so it is taken for raw: say so (-f raw), and name the format "
            "wherever the image is used",
        )


# ---- what the format says


def _look_inside(look: Look, format: str) -> None:
    if not look.length:
        return
    if format == "raw":
        _look_at_raw(look)
    else:
        _look_with_driver(look, format_driver(format))


def _look_at_part(look: Look, name: str) -> str:
    """Look at an image in an archive; returns its format."""
    formats = _formats(look, look.read(0, _HEAD), name)
    if len(formats) > 1:
        look.add(Level.UNSAFE, "ambiguous", f"It can be taken for more than one thing: {', '.join(formats)}")
    _look_inside(look, formats[0] if formats else "raw")
    return formats[0] if formats else "raw"


def _look_at_raw(look: Look) -> None:
    look.virtual_size = -(-look.length // SECTOR) * SECTOR
    if look.length % SECTOR:
        look.add(
            Level.WARNING,
            "partial-sector",
            f"The file's {look.length} bytes are no whole number of sectors: it may be cut off, or no disk",
        )
    look.content = look_at_content(look.read)


def _look_with_driver(look: Look, driver_class: type[FormatDriver]) -> None:
    is_qcow2 = driver_class.name == "qcow2"
    look.virtual_size = foreign.recorded_length(driver_class.name, look.read)
    if is_qcow2 and not look_at_header(look):
        return
    if driver_class.name == "vmdk":
        look_at_descriptor(look)
    if driver_class.name == "luks" and look_at_detached_header(look):
        return
    try:
        driver = driver_class.open(look.file, _UNTRUSTED)
    except BlockError as error:
        _refused(look, error)
        return
    try:
        look.virtual_size = driver.length
        look.name(_claim(each) for each in driver.references()[:MAX_NAMES])
        if is_qcow2 and look.encrypted:
            look_at_encryption(look, driver.info())
        is_small = look_at_tables(look) if is_qcow2 else _look_at_info(look, driver)
        if driver_class.name in _TABLES:
            _TABLES[driver_class.name](look)
        if is_small and look.is_safe and not look.encrypted:
            _look_at_guest(look, driver_class)
    except BlockError as error:
        _refused(look, error)
    finally:
        driver.close()


def _claim(reference: Reference) -> Claim:
    if reference.essential:
        return Claim("extent", reference.filename)
    format = "raw" if reference.format == "file" else reference.format  # bytes that no format's driver opens
    return Claim(reference.child, reference.filename, format)


def _look_at_info(look: Look, driver: BlockDriver) -> bool:
    info = driver.info()
    look.encrypted = info.encrypted
    look_at_encryption(look, info)
    if info.dirty:
        look.add(Level.WARNING, "dirty", "The image was not closed properly")
    return True


def _refused(look: Look, error: BlockError) -> None:
    code = "unsupported-feature" if isinstance(error, UnsupportedFeature) else "malformed"
    look.add(Level.UNSAFE, code, f"The image cannot be opened: {error}")


def _look_at_guest(look: Look, driver_class: type[FormatDriver]) -> None:
    """Read a few of the guest's bytes, of an image in which nothing unsafe was found."""
    driver = driver_class.open(look.file, _UNTRUSTED._replace(no_io=False))
    try:
        node = BlockNode(driver, look.file.filename, read_only=True)
        is_costly = False

        def read(offset: int, length: int) -> bytes:
            nonlocal is_costly
            length = min(length, node.length - offset)
            if length <= 0:
                return b""
            if isinstance(driver, Unpacking) and driver.unpacked_length(offset, length) > _MAX_UNPACKED:
                is_costly = True
                return b""
            return bytes(node.read(offset, length))

        look.content = look_at_content(read)
        inner = probe.matching(read(0, _HEAD), "")
    finally:
        driver.close()
    if is_costly:
        look.add(
            Level.WARNING,
            "large-chunk",
            f"Of the disk not all that tells its content was looked at: more than {_MAX_UNPACKED} bytes are compressed "
            "as one",
        )
    if inner:
        look.add(
            Level.UNSAFE,
            "nested-format",
            f"The disk inside starts as {inner[0]} does: a raw copy of it would be taken for another image",
        )


# ---- what it means


def _judge_names(look: Look) -> None:
    whats = {"backing": "backing file", "data-file": "external data file", "extent": "extent"}
    for claim in look.names:
        what = whats.get(claim.role, claim.role)
        of = f" of format {claim.format}" if claim.format and claim.role == "backing" else ""
        code = what.replace(" ", "-")
        look.add(Level.UNSAFE, code, f"The image names {_article(what)} {what}{of}, {_kind(claim.filename)}")


def _article(what: str) -> str:
    return "an" if what[0] in "aeiou" else "a"


def _kind(name: str) -> str:
    if name.startswith("json:"):
        return f"as a pseudo-protocol's options: '{name}'"
    if (protocol := names.protocol(name)) is not None:
        return f"by the protocol '{protocol}': '{name}'"
    return f"by {'an absolute' if name.startswith('/') else 'a relative'} path: '{name}'"


def _judge_size(look: Look, limit: int | None) -> None:
    if limit is None:
        return
    if look.virtual_size is None:
        look.add(Level.UNSAFE, "virtual-size", f"The virtual size is unknown, and may not be over {limit} bytes")
    elif look.virtual_size > limit:
        look.add(
            Level.UNSAFE, "virtual-size", f"The virtual size is {look.virtual_size} bytes, and may not be over {limit}"
        )
    elif look.snapshot_size > limit:
        look.add(
            Level.UNSAFE,
            "virtual-size",
            f"The virtual size in a snapshot is {look.snapshot_size} bytes, and may not be over {limit}",
        )


def _judge_content(look: Look, inside: Inside | None, *, is_ova: bool) -> None:
    content = look.content
    if is_ova:
        look.add(Level.WARNING, "packed", "The content is an OVA, not a disk: its disks are opened by their places")
    elif inside is not None:
        what = "no known format" if inside.format == "raw" else f"{inside.format}, by its first bytes"
        look.add(
            Level.WARNING,
            "packed",
            f"The content is packed with {inside.wrapper}, and inside is {what}: unpack it, and look at that",
        )
    elif content is not None and content.packed is not None:
        look.add(
            Level.WARNING,
            "packed",
            f"The content is compressed or an archive ({content.packed}), not a disk: unpack it, and look at that",
        )
