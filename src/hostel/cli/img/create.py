"""``qemu-img create``."""

from __future__ import annotations

from typing import Final

from hostel.block.options import given_options
from hostel.cli.img.arguments import FORMAT, OBJECT, OPTIONS, QUIET, Arguments, Command, asks_for_help, size
from hostel.cli.qemu.failure import Failure
from hostel.cli.qemu.flag import Flag
from hostel.cli.qemu.output import Output
from hostel.errors import UsageError
from hostel.img import create as images

COMMAND: Final = Command(
    "create",
    (
        OBJECT,
        QUIET,
        FORMAT,
        Flag("backing", "b", value="backing_file", newer=("backing",)),
        Flag("backing-format", "F", value="backing_fmt", newer=("B", "backing-format")),
        Flag("unsafe", "u", newer=("backing-unsafe",)),
        OPTIONS,
    ),
    "filename [size]",
)


def run(arguments: Arguments, output: Output) -> int:
    """Create an image."""
    format = arguments.text("format", "raw")
    options = arguments.options()
    operands = arguments.operands
    if asks_for_help(options):
        output.text(creation_help(format, operands[0] if operands else None))
        return 0
    if not operands:
        raise UsageError("Expecting image file name")
    filename = operands[0]
    length = size("image size", operands[1]) if len(operands) > 1 else None
    if len(operands) > 2:
        raise UsageError(f"Unexpected argument: {operands[2]}")
    try:
        plan = images.plan(
            filename,
            format,
            length,
            given=given_options(options or ""),
            backing=arguments.get("backing"),
            backing_format=arguments.get("backing-format"),
            open_backing=not arguments.has("unsafe"),
        )
        if not output.quiet:
            output.line(f"Formatting '{filename}', fmt={format} {plan.describe()}")
            output.flush()
        images.create(plan)
    except OSError as error:
        output.failed(error, f"{filename}: ")
        return 1
    return 0


def creation_help(format: str, filename: str | None) -> str:
    """What ``-o help`` prints: with a file name, the options of its protocol too.

    Raises:
        Failure: images of this format cannot be created, or not where the name says.
    """
    from hostel.block import creating

    try:
        driver = images.creatable(format)
        if filename is not None:
            return "Supported options:\n" + creating.creation_options(driver, filename).describe()
    except OSError as error:
        raise Failure(str(error)) from None
    return (
        f"Supported {format} options:\n{driver.create_options.describe()}\n"
        "The protocol level may support further options.\n"
        "Specify the target filename to include those options.\n"
    )
