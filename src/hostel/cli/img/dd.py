"""``qemu-img dd``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from hostel.block.chain import rounded_length
from hostel.cli.img.arguments import FORCE_SHARE, FORMAT, IMAGE_OPTS, OBJECT, PROGRESS, Arguments, Command, size
from hostel.cli.img.progress import Progress
from hostel.cli.qemu.failure import Failure
from hostel.cli.qemu.flag import Flag
from hostel.cli.qemu.opening import open_image
from hostel.cli.qemu.output import Output
from hostel.img import dd

_OPERANDS: Final = ("bs", "count", "if", "of", "skip")
_BLOCK: Final = 512
_MAX_BLOCK: Final = 2**31 - 1

COMMAND: Final = Command(
    "dd",
    (
        IMAGE_OPTS,
        FORCE_SHARE,
        FORMAT,
        Flag("target-format", "O", value="output_fmt", newer=("output-format",)),
        OBJECT,
        PROGRESS,
    ),
    "[bs=block_size] [count=blocks] [skip=blocks] if=input of=output",
)


def run(arguments: Arguments, output: Output) -> int:
    """Copy a part of an image into a new one."""
    given = _operands(arguments.operands)
    if "if" not in given or "of" not in given:
        raise Failure("Must specify both input and output files")
    name, target_name = str(given["if"]), str(given["of"])
    source = open_image(
        output,
        name,
        arguments.get("format"),
        image_opts=arguments.has("image-opts"),
        force_share=arguments.has("force-share"),
    )
    with source, Progress(output, arguments, step=1.0) as progress:
        count = given.get("count")
        chosen = dd.select(
            rounded_length(source),
            int(given.get("bs", _BLOCK)),
            None if count is None else int(count),
            int(given.get("skip", 0)),
        )
        plan = dd.plan_target(target_name, arguments.text("target-format", "raw"), chosen.end - chosen.start)
        dd.dd(source, chosen, plan, progress.report)
        if chosen.beyond:
            output.error(f"{name}: cannot skip to specified offset")
    return 0


def _operands(words: Sequence[str]) -> dict[str, str | int]:
    """The operands; sizes are converted in the order in which they are given."""
    given: dict[str, str | int] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or name not in _OPERANDS:
            raise Failure(f"unrecognized operand {name if equals else word}")
        if name == "bs":
            given[name] = size(name, value, minimum=1, maximum=_MAX_BLOCK)
        else:
            given[name] = size(name, value) if name in ("count", "skip") else value
    return given
