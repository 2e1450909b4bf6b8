"""``qemu-img rebase``."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Final

from hostel.block import filename as names
from hostel.block import graph
from hostel.block.driver import Cache
from hostel.block.node import BlockNode
from hostel.cause import hint_of
from hostel.cli.img.arguments import FORCE_SHARE, FORMAT, IMAGE_OPTS, OBJECT, PROGRESS, QUIET, Arguments, Command
from hostel.cli.img.progress import Progress
from hostel.cli.qemu.flag import Flag
from hostel.cli.qemu.opening import cache_mode, open_image
from hostel.cli.qemu.output import Output, reason
from hostel.errors import BlockError, UsageError
from hostel.img import rebase

COMMAND: Final = Command(
    "rebase",
    (
        OBJECT,
        IMAGE_OPTS,
        FORCE_SHARE,
        QUIET,
        FORMAT,
        Flag("cache", "t", value="cache", newer=("cache",)),
        Flag("source-cache", "T", value="src_cache", newer=("backing-cache",)),
        PROGRESS,
        Flag("compress", "c", newer=("compress",)),
        Flag("unsafe", "u", newer=("backing-unsafe",)),
        Flag("backing", "b", value="backing_file", newer=("backing",)),
        Flag("backing-format", "F", value="backing_fmt", newer=("B", "backing-format")),
    ),
    "filename",
)


def run(arguments: Arguments, output: Output) -> int:
    """Give an overlay another backing file."""
    filename = arguments.one_image()
    unsafe = arguments.has("unsafe")
    backing, format = arguments.get("backing"), arguments.get("backing-format")
    if not unsafe and backing is None:
        raise UsageError("Must specify backing file (-b) or use unsafe mode (-u)")
    with ExitStack() as stack:
        progress = stack.enter_context(Progress(output, arguments, step=2.0))
        progress.percent(0)
        cache = cache_mode(arguments.text("cache", "writeback"), "cache option")
        source_cache = cache_mode(arguments.text("source-cache", "writeback"), "source cache option")
        node = open_image(
            output,
            filename,
            arguments.get("format"),
            image_opts=arguments.has("image-opts"),
            read_only=False,
            no_backing=unsafe,
            cache=cache,
        )
        stack.enter_context(node)
        if arguments.has("compress"):
            rebase.check_compression(node)
        if format is not None:
            rebase.check_format(format)
        if not unsafe:
            new = _new_backing(node, backing, format, source_cache, arguments.has("force-share"))
            if new is not None and not any(layer is new for layer in node.chain()):
                stack.enter_context(new)
            rebase.check_change(node, backing, format)
            rebase.rebase(node, new, compress=arguments.has("compress"), progress=progress.report)
        rebase.change_backing(node, backing or None, format)
        progress.percent(100)
    return 0


def _new_backing(
    node: BlockNode, backing: str | None, format: str | None, cache: Cache, force_share: bool
) -> BlockNode | None:
    """What the image will stand on: an image of its own chain, or one that is opened now."""
    if not backing:
        return None
    resolved = names.resolve(backing, node.place)
    found = rebase.find_in_chain(node, resolved)
    if found is not None:
        return found
    try:
        return graph.open(resolved, format, force_share=force_share, cache=cache)
    except OSError as error:
        hint = hint_of(error)
        message = f"Could not open new backing file '{backing}': {reason(error)}"
        raise BlockError(message, errno=error.errno, hint=hint) from None
