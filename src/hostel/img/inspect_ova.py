"""The disks of an OVA, each looked at where it lies in the archive."""

from __future__ import annotations

from collections.abc import Callable

from hostel.block.formats.raw import RawDriver
from hostel.block.node import BlockNode
from hostel.errors import InvalidImage
from hostel.img.foreign import Claim
from hostel.img.inspection import ArchivedDisk, Level, Look
from hostel.img.ova import Disk, Ova, read_ova, wrong_digests


def look_at_archive(
    look: Look, look_at_image: Callable[[Look, str], str], limit: int | None, *, digests: bool
) -> tuple[ArchivedDisk, ...] | None:
    """Look at the disks of an OVA; None for any other archive.

    Args:
        look: at the archive.
        look_at_image: looks at one image, and says of which format it is.
        limit: bytes that a disk may have; None for no limit.
        digests: read all files, and hold them against the manifest.
    """
    try:
        ova = read_ova(look.read, look.length)
    except InvalidImage as error:
        look.add(Level.UNSAFE, "malformed", f"The archive makes no sense: {error}")
        return None
    if ova is None:
        return None
    look.name(Claim("extent", name) for name in ova.outside)
    if digests:
        _check_digests(look, ova)
    return tuple(_look_at_disk(look, disk, look_at_image, limit) for disk in ova.disks)


def _check_digests(look: Look, ova: Ova) -> None:
    if ova.digests is None:
        look.add(Level.WARNING, "no-manifest", "The archive has no manifest, and so no digests")
        return
    for text in wrong_digests(ova, look.read):
        look.add(Level.UNSAFE, "digest", text)


def _look_at_disk(look: Look, disk: Disk, look_at_image: Callable[[Look, str], str], limit: int | None) -> ArchivedDisk:
    # The archive's own end may be cut off within the zeroes that fill a file up; raw shows them.
    window = RawDriver(look.file, disk.offset, disk.window, probed=False)
    below = Look(BlockNode(window, look.file.filename, read_only=True))
    format = look_at_image(below, disk.name)
    for finding in below.findings:
        look.add(finding.level, finding.code, f"{disk.name}: {finding.message}")
    look.name(below.names)
    if limit is not None and (below.virtual_size is None or below.virtual_size > limit):
        much = "is unknown" if below.virtual_size is None else f"is {below.virtual_size} bytes"
        text = f"{disk.name}: The virtual size {much}, and may not be over {limit} bytes"
        look.add(Level.UNSAFE, "virtual-size", text)
    return ArchivedDisk(disk, format, below.virtual_size)
