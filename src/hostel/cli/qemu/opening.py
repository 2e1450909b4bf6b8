"""Opening what a command line names: a file name, or with ``--image-opts`` a list of options."""

from __future__ import annotations

from hostel.block import blockdev, graph
from hostel.block.driver import CACHE_MODES, WRITEBACK, Cache
from hostel.block.node import BlockNode
from hostel.block.options import Given, given_options
from hostel.cause import hint_of
from hostel.cli.qemu.failure import Failure
from hostel.cli.qemu.output import Output, reason
from hostel.errors import BlockError, ReadOnly


def open_image(
    output: Output,
    name: str,
    format: str | None,
    *,
    image_opts: bool = False,
    read_only: bool = True,
    no_backing: bool = False,
    check: bool = False,
    no_io: bool = False,
    force_share: bool = False,
    exclusive: bool = False,
    writable_backing: int = 0,
    cache: Cache = WRITEBACK,
    unmap: bool = False,
) -> BlockNode:
    """Open an image that the command line names, and warn where a guess of raw restricts writing.

    What is zeroed gives no space back without ``unmap``, and then options must not ask for that.

    Raises:
        BlockError: with QEMU's whole text.
        Failure: the options contradict each other.
    """
    if image_opts and format is not None:
        raise Failure("--image-opts and --format are mutually exclusive")
    try:
        node = graph.open(
            _described(output, name, force_share=force_share) if image_opts else name,
            format,
            read_only=read_only,
            no_backing=no_backing,
            check=check,
            no_io=no_io,
            force_share=force_share,
            exclusive=exclusive,
            writable_backing=writable_backing,
            cache=cache,
            unmap=unmap,
        )
    except OSError as error:
        raise could_not_open(name, error) from None
    if node.read_only and not read_only:
        node.close()
        raise could_not_open(name, ReadOnly("Block node is read-only"))
    warn_of_guesses(output, node)
    return node


def _described(output: Output, text: str, *, force_share: bool) -> blockdev.Described:
    options = image_options(output, text)
    if force_share and options.get("force-share", "on") != "on":
        raise Failure("--force-share/-U conflicts with image options")
    return blockdev.from_options(options)


def could_not_open(name: str, error: OSError) -> BlockError:
    """QEMU's error for an image that cannot be opened, from the error that says why."""
    hint = hint_of(error)
    return BlockError(f"Could not open '{name}': {reason(error)}", errno=error.errno, hint=hint)


def warn_of_guesses(output: Output, node: BlockNode) -> None:
    """Warn of an image that was taken for raw and may be written, and of those below it."""
    if node.probed and node.format == "raw" and not node.read_only:
        warn_of_guess(output, (node.file or node).filename)
    for child in node.driver.children.values():
        warn_of_guesses(output, child)


def warn_of_guess(output: Output, filename: str) -> None:
    """Say that an image without a known header was taken for raw, and what that restricts."""
    output.diagnostic(
        f"WARNING: Image format was not specified for '{filename}' and probing guessed raw.\n"
        "         Automatically detecting the format is dangerous for raw images, "
        "write operations on block 0 will be restricted.\n"
        "         Specify the 'raw' format explicitly to remove the restrictions."
    )


def image_options(output: Output, text: str) -> dict[str, str]:
    """The options of ``--image-opts``; a first one without a name is ``file``."""
    head, comma, tail = text.partition(",")
    if head and "=" not in head:
        text = f"file={head}{comma}{tail}"
    values: dict[str, str] = {}
    for given in given_options(text):
        if given.bare:
            warn_of_flag(output, given)
        values[given.name] = given.value
    return values


def warn_of_flag(output: Output, given: Given) -> None:
    """Say that an option without a value is out of fashion."""
    shown = given.name if given.value == "on" else f"no{given.name}"
    output.warning(f"short-form boolean option '{shown}' deprecated")
    output.diagnostic(f"Please use {given.name}={given.value} instead")


def cache_mode(text: str, what: str) -> Cache:
    """The cache mode that an option names; ``what`` is how QEMU calls the option.

    Raises:
        Failure: there is no such mode.
    """
    try:
        return CACHE_MODES[text]
    except KeyError:
        raise Failure(f"Invalid {what}: {text}") from None
