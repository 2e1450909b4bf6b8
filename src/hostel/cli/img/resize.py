"""``qemu-img resize``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from hostel.block.options import Kind, Option
from hostel.block.powers import Preallocation
from hostel.cli.img.arguments import FORMAT, IMAGE_OPTS, OBJECT, QUIET, Arguments, Command
from hostel.cli.qemu.failure import Failure
from hostel.cli.qemu.flag import Flag
from hostel.cli.qemu.opening import open_image
from hostel.cli.qemu.output import Output
from hostel.errors import UsageError
from hostel.img.resize import resize
from hostel.units import INT64_MAX


def _check_preallocation(text: str) -> None:
    if text not in {mode.value for mode in Preallocation}:
        raise Failure(f"Invalid preallocation mode '{text}'")


class _Resize(Command):
    """The size is the last word whatever it looks like: ``-1G`` is no option. As of 10.1, a long option may follow."""

    def parse(self, words: Sequence[str]) -> Arguments:
        if len(words) < 2 and words not in (["-h"], ["--help"]):
            raise UsageError("Not enough arguments")
        if words[-1] == "-h" or (words[-1].startswith("--") and words[-1] != "--"):
            return super().parse(words)
        arguments = super().parse(words[:-1])
        return Arguments(arguments.given, (*arguments.operands, words[-1]))


COMMAND: Final = _Resize(
    "resize",
    (
        OBJECT,
        IMAGE_OPTS,
        FORMAT,
        Flag("preallocation", long="preallocation", value="prealloc", check=_check_preallocation),
        QUIET,
        Flag("shrink", long="shrink"),
    ),
    "filename [+ | -]size",
)

_SIZE: Final = Option("size", Kind.SIZE, "Virtual disk size")


def run(arguments: Arguments, output: Output) -> int:
    """Change an image's virtual size."""
    if len(arguments.operands) != 2:
        raise UsageError("Expecting image file name and size")
    name, text = arguments.operands
    sign = {"+": 1, "-": -1}.get(text[:1], 0)
    given = int(_SIZE.convert(text[1:] if sign else text))
    preallocation = Preallocation(arguments.get("preallocation") or "off")
    with open_image(
        output, name, arguments.get("format"), image_opts=arguments.has("image-opts"), read_only=False
    ) as node:
        current = node.length
        size = current + sign * given if sign else given
        if not 0 < size <= INT64_MAX:
            raise Failure("New image size must be positive")
        if size <= current and preallocation is not Preallocation.OFF:
            raise Failure("Preallocation can only be used for growing images")
        if size < current and not arguments.has("shrink"):
            output.error("Use the --shrink option to perform a shrink operation.")
            output.warning(
                "Shrinking an image will delete all data beyond the shrunken image's end. Before performing such an "
                "operation, make sure there is no important data there."
            )
            return 1
        resize(node, size, preallocation)
    output.note("Image resized.")
    return 0
