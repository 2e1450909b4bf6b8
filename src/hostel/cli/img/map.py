"""``qemu-img map``."""

from __future__ import annotations

from typing import Final

from hostel.block.chain import rounded_length
from hostel.cli.img.arguments import FORCE_SHARE, IMAGE_OPTS, OBJECT, OUTPUT, Arguments, Command, size
from hostel.cli.qemu.failure import Failure
from hostel.cli.qemu.flag import Flag
from hostel.cli.qemu.opening import open_image
from hostel.cli.qemu.output import Output, reason
from hostel.cli.qemu.release import is_from
from hostel.img.map import MapEntry, map
from hostel.img.map_columns import rows

COMMAND: Final = Command(
    "map",
    (
        OBJECT,
        IMAGE_OPTS,
        Flag("format", "f", "format", "fmt"),
        Flag("start", "s", "start-offset", "offset", check=lambda text: size("start offset", text)),
        Flag("length", "l", "max-length", "len", check=lambda text: size("max length", text)),
        OUTPUT,
        FORCE_SHARE,
    ),
    "filename",
)
_HEADER: Final = f"{'Offset':<16}{'Length':<16}{'Mapped to':<16}File"


def run(arguments: Arguments, output: Output) -> int:
    """Print which ranges are data, and where they lie."""
    name = arguments.one_image()
    json = arguments.wants_json()
    start = size("start offset", arguments.get("start") or "0")
    limit = arguments.get("length")
    with open_image(
        output,
        name,
        arguments.get("format"),
        image_opts=arguments.has("image-opts"),
        force_share=arguments.has("force-share"),
    ) as node:
        end = whole = rounded_length(node)
        if limit is not None:
            end = min(end, start + size("max length", limit))
        tells = json and is_from(8, 2)
        blocks = rows(node) if (start, end) == (0, whole) else None
        if blocks is not None and node.storage is not None:
            from hostel.cli.img.map_rows import print_human, print_json

            if json:
                print_json(node, blocks, output, tells=tells)
            else:
                output.line(_HEADER)
                print_human(node, blocks, output, node.storage.filename)
            return 0
        entries = map(node, start, end, compressed=tells)
        try:
            if json:
                # An image without a byte in the range is one empty entry.
                nothing = MapEntry(start, 0, 0, False, False, False, None, None)
                first = next(entries, nothing)
                output.text("[" + _json(first, tells))
                for entry in entries:
                    output.text(",\n" + _json(entry, tells))
                output.text("]\n")
            else:
                output.line(_HEADER)
                for entry in entries:
                    output.text(_human(entry))
        except BrokenPipeError:
            raise  # nobody reads on; that is no fault of the image
        except OSError as error:
            raise Failure(f"Could not read file metadata: {reason(error)}") from None
    return 0


def _json(entry: MapEntry, tells: bool) -> str:
    start, length, depth, present, zero, data, offset, _, compressed = entry
    shown = f', "compressed": {_bool(compressed)}' if tells else ""
    place = "" if offset is None else f', "offset": {offset}'
    return (
        f'{{ "start": {start}, "length": {length}, "depth": {depth}, "present": {_bool(present)}, '
        f'"zero": {_bool(zero)}, "data": {_bool(data)}{shown}{place}}}'
    )


def _bool(value: bool) -> str:
    return "true" if value else "false"


def _human(entry: MapEntry) -> str:
    if not entry.data:
        return ""
    if entry.offset is None:
        raise Failure("File contains external, encrypted or compressed clusters.")
    if entry.zero:
        return ""
    return f"{_hex(entry.start):<16}{_hex(entry.length):<16}{_hex(entry.offset):<16}{entry.filename}\n"


def _hex(value: int) -> str:
    """C's ``%#x``, which writes zero without a prefix."""
    return f"{value:#x}" if value else "0"
