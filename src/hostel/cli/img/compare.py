"""``qemu-img compare``: exit code 0 for the same content, 1 for another, 2 and more for errors."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Final

from hostel.block.chain import rounded_length
from hostel.block.node import BlockNode
from hostel.cli.img.arguments import FORCE_SHARE, IMAGE_OPTS, OBJECT, PROGRESS, QUIET, Arguments, Command
from hostel.cli.img.progress import Progress
from hostel.cli.qemu.failure import Failure
from hostel.cli.qemu.flag import Flag, make_object
from hostel.cli.qemu.opening import cache_mode, open_image
from hostel.cli.qemu.output import Output
from hostel.errors import UsageError
from hostel.img import compare

_NOT_OPEN: Final = 2
_NO_STATUS: Final = 3
_NOT_READ: Final = 4


def _make_object(text: str) -> None:
    try:
        make_object(text)
    except Failure as error:
        raise Failure(error.message, _NOT_OPEN, error.hint) from None


COMMAND: Final = Command(
    "compare",
    (
        OBJECT._replace(check=_make_object),
        IMAGE_OPTS,
        Flag("format", "f", value="fmt", newer=("a-format",)),
        Flag("second-format", "F", value="fmt", newer=("b-format",)),
        Flag("source-cache", "T", value="src_cache", newer=("cache",)),
        PROGRESS,
        QUIET,
        Flag("strict", "s", newer=("strict",)),
        FORCE_SHARE,
    ),
    "filename1 filename2",
)


def run(arguments: Arguments, output: Output) -> int:
    """Compare two images."""
    if len(arguments.operands) != 2:
        raise UsageError("Expecting two image file names")
    with ExitStack() as stack:
        progress = stack.enter_context(Progress(output, arguments, step=2.0))
        try:
            first, second = (
                stack.enter_context(_open(arguments, output, name, arguments.get(format)))
                for name, format in zip(arguments.operands, ("format", "second-format"), strict=True)
            )
        except OSError as error:
            output.failed(error)
            return _NOT_OPEN
        except Failure as error:
            raise Failure(error.message, _NOT_OPEN) from None
        progress.percent(0)
        try:
            return _compare(first, second, arguments.has("strict"), output, progress)
        except compare.CompareError as error:
            output.failed(error)
            return _NOT_READ if error.reading else _NO_STATUS


def _open(arguments: Arguments, output: Output, name: str, format: str | None) -> BlockNode:
    return open_image(
        output,
        name,
        format,
        image_opts=arguments.has("image-opts"),
        force_share=arguments.has("force-share"),
        cache=cache_mode(arguments.text("source-cache", "writeback"), "source cache option"),
    )


def _compare(first: BlockNode, second: BlockNode, strict: bool, output: Output, progress: Progress) -> int:
    lengths = rounded_length(first), rounded_length(second)
    differ = lengths[0] != lengths[1]
    if strict and differ:
        output.note("Strict mode: Image size mismatch!")
        return 1
    found = compare.first_difference(first, second, strict=strict, progress=progress.report)
    if found is None and differ:
        output.note("Warning: Image size mismatch!")
        found = compare.first_data(compare.longer(first, second), min(lengths), progress=progress.report)
    if found is None:
        output.note("Images are identical.")
        return 0
    if found.is_status:
        output.note(f"Strict mode: Offset {found.offset} block status mismatch!")
    else:
        output.note(f"Content mismatch at offset {found.offset}!")
    return 1
