"""``qemu-img bitmap``."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Final

from hostel.block.node import BlockNode
from hostel.cli.img.arguments import FORMAT, IMAGE_OPTS, OBJECT, Arguments, Command, size
from hostel.cli.qemu.failure import Failure
from hostel.cli.qemu.flag import Flag
from hostel.cli.qemu.opening import open_image
from hostel.cli.qemu.output import Output
from hostel.img import bitmap

_ACTIONS: Final = ("add", "remove", "clear", "enable", "disable", "merge")
_REMOVE_ALL: Final = "remove-all"


def _granularity(text: str) -> int:
    return size("granularity", text)


COMMAND: Final = Command(
    "bitmap",
    (
        Flag("merge", long="merge", value="bitmap"),
        *(Flag(name, long=name) for name in _ACTIONS if name != "merge"),
        Flag(_REMOVE_ALL, newer=(_REMOVE_ALL,)),
        Flag("source-file", "b", "source-file", "filename"),
        Flag("source-format", "F", "source-format", "fmt"),
        Flag("granularity", "g", "granularity", "granularity", _granularity),
        OBJECT,
        IMAGE_OPTS,
        FORMAT,
    ),
    "filename bitmap",
)


def run(arguments: Arguments, output: Output) -> int:
    """Change one bitmap of an image: every action that was asked for, in order, until one fails."""
    if arguments.has(_REMOVE_ALL):
        return _remove_all(arguments, output)
    _check(arguments)
    filename, name = arguments.operands
    granularity = _granularity(arguments.get("granularity") or "0") or None
    with ExitStack() as stack:
        node = stack.enter_context(
            open_image(
                output,
                filename,
                arguments.get("format"),
                image_opts=arguments.has("image-opts"),
                read_only=False,
                no_backing=True,
            )
        )
        source = node
        other = arguments.get("source-file")
        if other is not None:
            source = stack.enter_context(open_image(output, other, arguments.get("source-format"), no_backing=True))
        for action, wanted in arguments.in_order(*_ACTIONS):
            try:
                _act(action, node, name, granularity, source, wanted)
            except OSError as error:
                # What was done before it stays done.
                output.failed(error, f"Operation {action} on bitmap {name} failed: ")
                return 1
    return 0


def _remove_all(arguments: Arguments, output: Output) -> int:
    """Drop every bitmap; no other action goes with it, and no bitmap is named."""
    if any(map(arguments.has, (*_ACTIONS, "granularity", "source-file", "source-format"))):
        raise Failure("--remove-all cannot be combined with other actions")
    if len(arguments.operands) != 1:
        raise Failure("Expecting one image file name")
    with open_image(
        output,
        arguments.operands[0],
        arguments.get("format"),
        image_opts=arguments.has("image-opts"),
        read_only=False,
        no_backing=True,
    ) as node:
        for name in bitmap.names(node):
            bitmap.remove(node, name)
    return 0


def _check(arguments: Arguments) -> None:
    has = arguments.has
    for is_wrong, message in (
        (
            not any(map(has, _ACTIONS)),
            "Need at least one of --add, --remove, --clear, --enable, --disable, or --merge",
        ),
        (
            has("granularity") and _granularity(arguments.get("granularity") or "0") and not has("add"),
            "granularity only supported with --add",
        ),
        (has("source-format") and not has("source-file"), "-F only supported with -b"),
        (has("source-file") and not has("merge"), "Merge bitmap source file only supported with --merge"),
        (len(arguments.operands) != 2, "Expecting filename and bitmap name"),
    ):
        if is_wrong:
            raise Failure(message)


def _act(action: str, node: BlockNode, name: str, granularity: int | None, source: BlockNode, wanted: str) -> None:
    if action == "add":
        bitmap.add(node, name, granularity)
    elif action == "merge":
        bitmap.merge(node, name, source, wanted)
    else:
        bitmap.ACTIONS[action](node, name)
