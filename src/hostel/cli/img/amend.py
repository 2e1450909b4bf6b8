"""``qemu-img amend``."""

from __future__ import annotations

from typing import Final

from hostel.block.options import given_options
from hostel.cli.img.arguments import (
    FORMAT,
    IMAGE_OPTS,
    OBJECT,
    OPTIONS,
    PROGRESS,
    QUIET,
    Arguments,
    Command,
    asks_for_help,
)
from hostel.cli.img.progress import Progress
from hostel.cli.qemu.failure import Failure
from hostel.cli.qemu.flag import Flag
from hostel.cli.qemu.opening import cache_mode, open_image
from hostel.cli.qemu.output import Output
from hostel.errors import UsageError
from hostel.img.amend import amend, amend_options

COMMAND: Final = Command(
    "amend",
    (
        OBJECT,
        IMAGE_OPTS,
        PROGRESS,
        QUIET,
        FORMAT,
        Flag("cache", "t", value="cache", newer=("cache",)),
        Flag("force", long="force"),
        OPTIONS,
    ),
    "filename",
)


def run(arguments: Arguments, output: Output) -> int:
    """Change what an image was created with."""
    options = arguments.options()
    if options is None:
        raise UsageError("Must specify options (-o)")
    with Progress(output, arguments, step=1.0) as progress:
        format = arguments.get("format")
        if format is not None and asks_for_help(options):
            _print_options(output, format)
            return 0
        if len(arguments.operands) != 1:
            raise Failure("Expecting one image file name")
        with open_image(
            output,
            arguments.operands[0],
            format,
            image_opts=arguments.has("image-opts"),
            read_only=False,
            cache=cache_mode(arguments.text("cache", "writeback"), "cache option"),
        ) as node:
            if asks_for_help(options):
                _print_options(output, node.format)
                return 0
            amend(node, given_options(options), force=arguments.has("force"), report=progress.report)
    return 0


def _print_options(output: Output, format: str) -> None:
    try:
        declared = amend_options(format)
    except OSError as error:
        raise Failure(str(error)) from None
    output.text(f"Amend options for '{format}':\n{declared.describe()}")
