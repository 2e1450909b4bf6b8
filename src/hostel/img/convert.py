"""Convert: copy images, one after another, into a new image or into an existing one.

>>> with graph.open("disk.raw", "raw") as source:  # doctest: +SKIP
...     convert([source], "disk.qcow2", "qcow2", settings=CopySettings(compress=True))
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from hostel.block import graph
from hostel.block.driver import CACHE_MODES, Cache, Compressing, Creatable
from hostel.block.node import BlockNode
from hostel.block.options import Given, OptionError, Value
from hostel.block.protocols.file import FileDriver
from hostel.errors import BlockError, ImageLocked, UnsupportedFeature
from hostel.img import create
from hostel.img.copy import CopyJob, CopySettings, Feedback
from hostel.img.segments import rounded_length

UNSAFE: Final = CACHE_MODES["unsafe"]
_DEFAULTS: Final = CopySettings()
_NOBODY: Final = Feedback()


def plan_target(
    sources: Sequence[BlockNode],
    filename: str,
    format: str,
    *,
    given: Iterable[Given] = (),
    backing: str | None = None,
    backing_format: str | None = None,
    compress: bool = False,
) -> create.Plan:
    """Settle what the target will be; nothing is written.

    Raises:
        BlockError: with QEMU's text.
    """
    driver = create.creatable(format)
    declared = graph.creation_options(driver)
    values = create.convert(declared, given)
    values["size"] = total_length(sources)
    create.set_backing(values, declared, format, backing, backing_format)
    has_backing = "backing_file" in values
    if len(sources) > 1 and has_backing:
        raise OptionError(
            "Having a backing file for the target makes no sense when concatenating multiple input images"
        )
    if has_backing and "backing_fmt" not in values:
        raise OptionError("Use of backing file requires explicit backing format")
    if compress:
        _check_compressible(driver, values)
    return create.Plan(filename, format, driver, declared, values)


def _check_compressible(driver: Creatable, values: Mapping[str, Value]) -> None:
    if not isinstance(driver, Compressing):  # the class has what its instances have
        raise UnsupportedFeature("Compression not supported for this file format")
    if values.get("encryption") or "encrypt.format" in values:
        raise OptionError("Compression and encryption not supported at the same time")
    if values.get("preallocation", "off") != "off":
        raise OptionError("Compression and preallocation not supported at the same time")


def total_length(sources: Sequence[BlockNode]) -> int:
    """How long the sources are together, in bytes."""
    return sum(map(rounded_length, sources))


def convert(
    sources: Sequence[BlockNode],
    target: create.Plan,
    settings: CopySettings = _DEFAULTS,
    feedback: Feedback = _NOBODY,
    *,
    cache: Cache = UNSAFE,
) -> None:
    """Create the target and copy the sources into it; when that fails, it is taken away again.

    Args:
        sources: open images, copied one after another.
        target: from :func:`plan_target`.
        settings: how to copy; what the target's own nature decides is filled in.
        feedback: who is told how it goes.
        cache: the target's cache mode.

    Raises:
        BlockError: with QEMU's whole text.
    """
    with _reported(f"{target.filename}: error while converting {target.format}: "):
        refuse_source(sources, target.filename)
    if _is_device(target.filename) and target.format == "raw":
        # It is there already, and holds whatever it held.
        with _reported(f"Could not open '{target.filename}': "):
            node = graph.open(target.filename, "raw", read_only=False, cache=cache)
        convert_into(sources, node, settings, feedback)
        return
    with _vanishing(target.filename):
        with _reported(f"{target.filename}: error while converting {target.format}: "):
            create.create(target, cache=cache)
        with _reported(f"Could not open '{target.filename}': "):
            node = graph.open(target.filename, target.format, read_only=False, cache=cache)
        with _closing(node):
            settings = settings._replace(
                overlay=node.backing is not None,
                backing_end=None if node.backing is None else rounded_length(node.backing),
                reads_as_zeroes=node.backing is None,
            )
            CopyJob(sources, node, settings, feedback).run()


def convert_into(
    sources: Sequence[BlockNode],
    target: BlockNode,
    settings: CopySettings = _DEFAULTS,
    feedback: Feedback = _NOBODY,
) -> None:
    """Copy the sources into an existing image, and close it.

    Raises:
        BlockError: with QEMU's whole text; the target is then closed and has part of the data.
    """
    with _closing(target):
        if target.length < total_length(sources):
            raise BlockError("output file is smaller than input file", errno=errno.EINVAL)
        CopyJob(sources, target, settings, feedback).run()


def refuse_source(sources: Sequence[BlockNode], filename: str) -> None:
    """Refuse a target that one of the sources, or of what they stand on, is read from.

    Locks find that out as well, but ``-U`` takes none.

    Raises:
        ImageLocked: it is.
    """
    try:
        status = os.stat(filename)
    except (OSError, ValueError):
        return
    for source in sources:
        for node in source.chain():
            driver = node.file.driver if node.file is not None else None
            if isinstance(driver, FileDriver) and driver.identity == (status.st_dev, status.st_ino):
                raise ImageLocked(
                    'Failed to get "write" lock',
                    hint=f"Is another process using the image [{filename}]?\nIt is among the files that are read.",
                )


def _is_device(filename: str) -> bool:
    try:
        return stat.S_ISBLK(os.stat(filename).st_mode)
    except (OSError, ValueError):
        return False


@contextlib.contextmanager
def _vanishing(filename: str) -> Iterator[None]:
    """Leave nothing that looks like an image when the body fails."""
    is_new = not os.path.lexists(filename)
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            if is_new:
                os.unlink(filename)
            elif stat.S_ISREG(os.stat(filename).st_mode):
                os.truncate(filename, 0)
        raise


@contextlib.contextmanager
def _closing(node: BlockNode) -> Iterator[None]:
    """Flush and close a target, and report what fails of that as a failed write."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            node.close()
        raise
    try:
        try:
            node.flush()
        finally:
            node.close()
    except OSError as error:
        reason = error.message if isinstance(error, BlockError) else error.strerror
        raise BlockError(f"error while writing the target's metadata: {reason}", errno=error.errno) from None


@contextlib.contextmanager
def _reported(prefix: str) -> Iterator[None]:
    """Put QEMU's words before an error's own."""
    try:
        yield
    except BlockError as error:
        error.message = prefix + error.message
        raise
    except OSError as error:
        raise BlockError(f"{prefix}{error.strerror}", errno=error.errno) from None
