"""``qemu-img measure``."""

from __future__ import annotations

from typing import Final

from hostel.block.node import BlockNode
from hostel.block.options import given_options
from hostel.block.powers import Measured
from hostel.cli.img.arguments import FORCE_SHARE, IMAGE_OPTS, OBJECT, OPTIONS, Arguments, Command, size
from hostel.cli.img.load import LOAD, load
from hostel.cli.qemu.failure import Failure
from hostel.cli.qemu.flag import Flag
from hostel.cli.qemu.opening import open_image
from hostel.cli.qemu.output import Output
from hostel.codec.qobject import pretty_json
from hostel.errors import BlockError
from hostel.img import measure as measuring
from hostel.img.create import creatable


def _check_output(text: str) -> None:
    if text not in ("human", "json"):
        raise Failure("--output must be used with human or json as argument.")


COMMAND: Final = Command(
    "measure",
    (
        Flag("output", long="output", value="ofmt", check=_check_output),
        Flag("target-format", "O", value="output_fmt", newer=("target-format",)),
        OPTIONS,
        Flag("size", long="size", value="N", check=lambda text: size("image size", text), newer=("s",)),
        OBJECT,
        IMAGE_OPTS,
        Flag("format", "f", value="fmt", newer=("format", "source-format")),
        LOAD,
        FORCE_SHARE,
    ),
    "[filename]",
)


def run(arguments: Arguments, output: Output) -> int:
    """Print how large an image would be."""
    _check(arguments)
    if not arguments.operands:
        _print(arguments, output, *_measure(arguments, output, size("image size", arguments.get("size") or "")))
        return 0
    with open_image(
        output,
        arguments.operands[0],
        arguments.get("format"),
        image_opts=arguments.has("image-opts"),
        force_share=arguments.has("force-share"),
    ) as node:
        load(arguments, node)
        _print(arguments, output, *_measure(arguments, output, node))
    return 0


def _check(arguments: Arguments) -> None:
    named = bool(arguments.operands)
    if len(arguments.operands) > 1:
        raise Failure("At most one filename argument is allowed.")
    if not named and any(map(arguments.has, ("image-opts", "format", "snapshot"))):
        raise Failure("--image-opts, -f, and -l require a filename argument.")
    if named and arguments.has("size"):
        raise Failure("--size N cannot be used together with a filename.")
    if not named and not arguments.has("size"):
        raise Failure("Either --size N or one filename must be specified.")


def _measure(arguments: Arguments, output: Output, source: BlockNode | int) -> tuple[Measured, int | None]:
    format = arguments.text("target-format", "raw")
    driver = creatable(format)
    try:
        values = measuring.options(driver, given_options(arguments.options() or ""))
    except BlockError as error:
        output.failed(error)
        raise Failure(f"Invalid options for file format '{format}'") from None
    found = measuring.measure(measuring.measuring(format), values, source)
    return found, None if isinstance(source, int) else measuring.bitmaps_length(source, values)


def _print(arguments: Arguments, output: Output, found: Measured, bitmaps: int | None) -> None:
    if arguments.wants_json():
        members = {"required": found.required, "fully-allocated": found.fully_allocated, "bitmaps": bitmaps}
        output.line(pretty_json({key: value for key, value in members.items() if value is not None}))
        return
    output.line(f"required size: {found.required}")
    output.line(f"fully allocated size: {found.fully_allocated}")
    if bitmaps is not None:
        output.line(f"bitmaps size: {bitmaps}")
