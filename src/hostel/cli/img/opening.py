"""Opening what a command line names: a file name, or with ``--image-opts`` a list of options."""

from __future__ import annotations

from collections.abc import Mapping

from hostel.block import graph
from hostel.block.driver import CACHE_MODES, WRITEBACK, Cache
from hostel.block.node import BlockNode
from hostel.block.options import OptionError, Value
from hostel.cli.img.arguments import Arguments, Failure
from hostel.cli.img.output import Output, reason
from hostel.errors import BlockError


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
    cache: Cache = WRITEBACK,
) -> BlockNode:
    """Open an image that the command line names, and warn where a guess of raw restricts writing.

    Raises:
        BlockError: with QEMU's whole text.
        Failure: the options contradict each other.
    """
    filename, options = name, dict[str, Value]()
    if image_opts:
        if format is not None:
            raise Failure("--image-opts and --format are mutually exclusive")
        filename, format, options = described(name)
    try:
        node = graph.open(
            filename,
            format,
            read_only=read_only,
            no_backing=no_backing,
            check=check,
            no_io=no_io,
            force_share=force_share,
            cache=cache,
            options=options,
        )
    except OSError as error:
        raise could_not_open(name, error) from None
    if node.probed and node.format == "raw" and not read_only:
        warn_of_guess(output, filename)
    return node


def could_not_open(name: str, error: OSError) -> BlockError:
    """QEMU's error for an image that cannot be opened, from the error that says why."""
    hint = error.hint if isinstance(error, BlockError) else None
    return BlockError(f"Could not open '{name}': {reason(error)}", errno=error.errno, hint=hint)


def warn_of_guess(output: Output, filename: str) -> None:
    """Say that an image without a known header was taken for raw, and what that restricts."""
    output.diagnostic(
        f"WARNING: Image format was not specified for '{filename}' and probing guessed raw.\n"
        "         Automatically detecting the format is dangerous for raw images, "
        "write operations on block 0 will be restricted.\n"
        "         Specify the 'raw' format explicitly to remove the restrictions."
    )


def described(text: str) -> tuple[str, str | None, dict[str, Value]]:
    """The file name, format and runtime options that ``--image-opts`` describes.

    Raises:
        OptionError: an option is unknown, or its value is wrong.
    """
    from hostel.block.options import split_options

    return from_tree(split_options(text))


def from_tree(given: Mapping[str, str]) -> tuple[str, str | None, dict[str, Value]]:
    """The same from options by their dotted names.

    Raises:
        OptionError: an option is unknown, or its value is wrong.
    """
    from hostel.block import registry

    rest = dict(given)
    format = rest.pop("driver", None)
    filename = rest.pop("filename", None)
    if format == "file":
        format = "raw"
    protocol = rest.pop("file.driver", "file")
    if protocol != "file":
        raise OptionError(f"Unknown driver '{protocol}'")
    filename = rest.pop("file.filename", filename)
    if filename is None:
        raise OptionError("The 'file' block driver requires a file name")
    if format is None:
        if rest:
            raise OptionError(f"Block protocol 'file' doesn't support the option '{next(iter(rest))}'")
        return filename, None, {}
    return filename, format, registry.format_driver(format).options.convert(rest)


def cache_mode(arguments: Arguments, name: str, default: str, what: str) -> Cache:
    """The cache mode that an option names; ``what`` is how QEMU calls the option.

    Raises:
        Failure: there is no such mode.
    """
    text = arguments.get(name) or default
    try:
        return CACHE_MODES[text]
    except KeyError:
        raise Failure(f"Invalid {what}: {text}") from None
