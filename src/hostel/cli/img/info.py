"""``qemu-img info``."""

from __future__ import annotations

from typing import Final

from hostel.block.powers import SnapshotInfo
from hostel.cli.img.arguments import FORCE_SHARE, IMAGE_OPTS, OBJECT, OUTPUT, Arguments, Command
from hostel.cli.qemu.failure import Failure
from hostel.cli.qemu.flag import Flag
from hostel.cli.qemu.opening import cache_mode, open_image
from hostel.cli.qemu.output import Output, dump
from hostel.cli.qemu.release import is_from
from hostel.codec.qobject import pretty_json
from hostel.img.info import ImageInfo, info
from hostel.units import format_size

COMMAND: Final = Command(
    "info",
    (
        OBJECT,
        IMAGE_OPTS,
        Flag("format", "f", "format", "fmt"),
        OUTPUT,
        Flag("backing-chain", long="backing-chain"),
        FORCE_SHARE,
        Flag("cache", value="cache", newer=("t", "cache")),
        Flag("limits", newer=("limits",)),
    ),
    "filename",
)


def run(arguments: Arguments, output: Output) -> int:
    """Print what is known of an image, or of its whole chain."""
    name = arguments.one_image()
    json = arguments.wants_json()
    chain = arguments.has("backing-chain")
    found = collect(arguments, output, name, chain=chain)
    if not json:
        output.text("\n".join(map(describe, found)))
    elif chain:
        output.line(pretty_json([image.to_json() for image in found]))
    else:
        output.line(pretty_json(found[0].to_json()))
    return 0


def collect(arguments: Arguments, output: Output, name: str, *, chain: bool) -> list[ImageInfo]:
    """Describe the image, and with ``chain`` each one below it."""
    found: list[ImageInfo] = []
    seen: set[str] = set()
    following: str | None = name
    format = arguments.get("format")
    while following is not None:
        if following in seen:
            raise Failure(f"Backing file '{following}' creates an infinite loop.")
        seen.add(following)
        with open_image(
            output,
            following,
            format,
            image_opts=not found and arguments.has("image-opts"),
            no_backing=True,
            no_io=True,
            force_share=arguments.has("force-share"),
            cache=cache_mode(arguments.text("cache", "writeback"), "cache option"),
        ) as node:
            image = info(node, limits=arguments.has("limits"), children=is_from(8, 0))
        found.append(image)
        following, format = (image.full_backing, image.backing_format) if chain else (None, None)
    return found


def describe(image: ImageInfo, path: str = "/") -> str:
    """One image as people read it, and the nodes below it; ``path`` is the way to it through them."""
    text = _describe_alone(image)
    for name, child in image.children or ():
        below = describe(child, f"{path}{name}/")
        text += f"Child node '{path}{name}':\n" + "".join(f"    {line}\n" for line in below[:-1].split("\n"))
    return text


def _describe_alone(image: ImageInfo) -> str:
    actual = "unavailable" if image.actual_size is None else format_size(image.actual_size)
    is_lowest = image.children == []
    lines = [
        f"{'filename' if is_lowest else 'image'}: {image.filename}",
        f"{'protocol type' if is_lowest else 'file format'}: {image.format}",
        f"{'file length' if is_lowest else 'virtual size'}: {format_size(image.virtual_size)} "
        f"({image.virtual_size} bytes)",
        f"disk size: {actual}",
    ]
    if image.details.encrypted:
        lines.append("encrypted: yes")
    if image.details.cluster_size is not None:
        lines.append(f"cluster_size: {image.details.cluster_size}")
    if image.details.dirty:
        lines.append("cleanly shut down: no")
    if image.backing is not None:
        place = f" (actual path: {image.full_backing})" if image.full_backing != image.backing else ""
        if image.full_backing is None:
            place = " (cannot determine actual path)"
        lines.append(f"backing file: {image.backing}{place}")
        if image.backing_format is not None:
            lines.append(f"backing file format: {image.backing_format}")
    if image.snapshots:
        lines += ["Snapshot list:", *snapshot_table(image.snapshots)]
    text = "\n".join(lines) + "\n"
    if image.details.specific is not None:
        text += "Format specific information:\n" + dump(image.details.specific, 1)
    if image.limits is not None:
        text += "Block limits:\n" + dump(image.limits, 1)
    return text


def snapshot_table(snapshots: list[SnapshotInfo]) -> list[str]:
    """A header and a line for each internal snapshot; the time is local."""
    header = f"{'ID':<10}{'TAG':<17}{'VM SIZE':>8}{'DATE':>20}{'VM CLOCK':>13}{'ICOUNT':>11}"
    return [header, *map(_snapshot_line, snapshots)]


def _snapshot_line(snapshot: SnapshotInfo) -> str:
    import time

    date = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(snapshot.date))
    seconds, nanoseconds = divmod(snapshot.vm_clock_nsec, 10**9)
    clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{nanoseconds // 10**6:03}"
    icount = "" if snapshot.icount is None else str(snapshot.icount)
    size = format_size(snapshot.vm_state_size)
    return f"{_padded(snapshot.id, 9)} {_padded(snapshot.name, 16)} {size:>8}{date:>20}{clock:>13}{icount:>11}"


def _padded(text: str, width: int) -> str:
    """Pad as C does, which counts bytes."""
    return text + " " * (width - len(text.encode(errors="surrogateescape")))
