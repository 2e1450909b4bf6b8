"""``qemu-img commit``."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Final

from hostel.cli.img.arguments import FORMAT, IMAGE_OPTS, OBJECT, PROGRESS, QUIET, Arguments, Command, size
from hostel.cli.img.progress import Progress
from hostel.cli.qemu.flag import Flag
from hostel.cli.qemu.opening import cache_mode, open_image, warn_of_guess
from hostel.cli.qemu.output import Output
from hostel.img import commit
from hostel.img.copy import Feedback


def _rate(text: str) -> int:
    return size("rate limit", text)


COMMAND: Final = Command(
    "commit",
    (
        OBJECT,
        QUIET,
        IMAGE_OPTS,
        FORMAT,
        Flag("cache", "t", value="cache", newer=("cache",)),
        Flag("base", "b", value="base", newer=("base",)),
        Flag("rate", "r", value="rate_limit", check=_rate, newer=("rate-limit",)),
        Flag("drop", "d", newer=("drop",)),
        PROGRESS,
    ),
    "filename",
)


def run(arguments: Arguments, output: Output) -> int:
    """Write an overlay's data into the image it stands on."""
    filename = arguments.one_image()
    base = arguments.get("base")
    cache = cache_mode(arguments.text("cache", "writeback"), "cache option")
    image_opts = arguments.has("image-opts")
    with ExitStack() as stack:
        # Which image of the chain is to be written must be known before any is opened for writing.
        with open_image(
            output, filename, arguments.get("format"), image_opts=image_opts, force_share=True, unmap=True
        ) as node:
            if node.probed and node.format == "raw":
                warn_of_guess(output, (node.file or node).filename)
            progress = stack.enter_context(Progress(output, arguments, step=1.0))
            progress.percent(0)
            depth = commit.find_base(node, base, filename)
            found = node.format
        node = open_image(
            output,
            filename,
            None if image_opts else found,
            image_opts=image_opts,
            read_only=False,
            writable_backing=depth,
            cache=cache,
            unmap=True,
        )
        stack.enter_context(node)
        commit.commit(
            node,
            depth,
            rate=_rate(arguments.get("rate") or "0"),
            empty=base is None and not arguments.has("drop"),
            feedback=Feedback(progress.report, progress.shown),
        )
        progress.percent(100)
    output.note("Image committed.")
    return 0
