"""Convert: copy images, one after another, into a new image or into an existing one.

>>> with graph.open("disk.raw", "raw") as source:  # doctest: +SKIP
...     convert([source], "disk.qcow2", "qcow2", settings=CopySettings(compress=True))
"""

from __future__ import annotations

import enum
import errno
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from hostel.block import creating, graph, registry
from hostel.block.chain import rounded_length
from hostel.block.composing import AlwaysCompressing
from hostel.block.driver import CACHE_MODES, Cache
from hostel.block.node import BlockNode
from hostel.block.options import Given, OptionError, Value
from hostel.block.powers import BitmapStore, Compressing, Creatable
from hostel.block.protocol import Creation
from hostel.errors import BlockError, UnsupportedFeature
from hostel.img import create
from hostel.img.copy import CopyJob, CopySettings, Feedback
from hostel.img.files import files, is_device
from hostel.img.target import closing, new_target, refuse_source, refuse_source_node, reported


class Bitmaps(enum.Enum):
    """Which persistent dirty bitmaps are copied."""

    NONE = "none"
    ALL = "all"
    CONSISTENT = "consistent"  # those that were stored properly; the others are reported


_INCONSISTENT: Final = "in-use"
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
    declared = creating.creation_options(driver, filename)
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
    found = create.Plan(filename, format, driver, declared, values)
    if found.is_header:
        raise OptionError(
            "A detached header has no room for data",
            hint="Create the header and a file for the data, and convert with -n --target-image-opts "
            "driver=luks,key-secret=ID,file.filename=DATA,header.filename=HEADER.",
        )
    return found


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
    bitmaps: Bitmaps = Bitmaps.NONE,
) -> None:
    """Create the target and copy the sources into it; when that fails, it is taken away again.

    Args:
        sources: open images, copied one after another.
        target: from :func:`plan_target`.
        settings: how to copy; what the target's own nature decides is filled in.
        feedback: who is told how it goes.
        cache: the target's cache mode.
        bitmaps: which of the only source's persistent bitmaps to copy as well.

    Raises:
        BlockError: with QEMU's whole text.
    """
    check_bitmaps(sources, target.driver, target.format, bitmaps)
    what = f"{target.filename}: error while converting {target.format}: "
    with reported(what):
        refuse_source(sources, target.filename)
    if target.is_unformatted and (
        is_device(target.filename) or creating.creation(target.filename) is Creation.IN_PLACE
    ):
        # It is there already, and holds whatever it held.
        is_path = registry.protocol_name(target.filename) == "file"
        with reported(
            f"Could not open '{target.filename}': " if is_path else what + creating.in_place(target.filename)
        ):
            node = graph.open(target.filename, "raw", read_only=False, cache=cache)
        convert_into(sources, node, settings, feedback, bitmaps=bitmaps)
        return
    with new_target(target, what, cache=cache, sources=sources) as node:
        settings = settings._replace(
            base=None if node.backing is None else _common_base(sources[0], node.backing),
            backing_end=None if node.backing is None else rounded_length(node.backing),
            reads_as_zeroes=node.backing is None and node.driver.starts_as_zeroes,
            compress=settings.compress or _always_compresses(node),
        )
        _check_store(node, bitmaps)
        CopyJob(sources, node, settings, feedback).run()
        _copy_bitmaps(sources[0], node, bitmaps, feedback)


def convert_into(
    sources: Sequence[BlockNode],
    target: BlockNode,
    settings: CopySettings = _DEFAULTS,
    feedback: Feedback = _NOBODY,
    *,
    bitmaps: Bitmaps = Bitmaps.NONE,
) -> None:
    """Copy the sources into an existing image, and close it.

    Raises:
        BlockError: with QEMU's whole text; the target is then closed and has part of the data.
    """
    with closing(target):
        with reported(f"Could not open '{target.filename}': "):
            refuse_source_node(sources, target)
        if target.length < total_length(sources):
            raise BlockError("output file is smaller than input file", errno=errno.EINVAL)
        check_bitmaps(sources, target.driver, target.format, bitmaps)
        _check_store(target, bitmaps)
        settings = settings._replace(compress=settings.compress or _always_compresses(target))
        CopyJob(sources, target, settings, feedback).run()
        _copy_bitmaps(sources[0], target, bitmaps, feedback)


def _common_base(source: BlockNode, below: BlockNode) -> BlockNode | None:
    """What of a source's chain the target's backing image stands for: itself, where it is there, or the uppermost."""
    if source.backing is None:
        return None
    wanted = set(files(below, written=True))
    same = (each for each in source.backing.chain() if set(files(each, written=True)) == wanted)
    return next((each for each in same if wanted and each.format == below.format), source.backing)


def _always_compresses(target: BlockNode) -> bool:
    return isinstance(target.driver, AlwaysCompressing) and target.driver.always_compresses


def check_bitmaps(sources: Sequence[BlockNode], target: object, format: str, bitmaps: Bitmaps) -> None:
    """Refuse bitmaps that could not be copied, before anything is.

    Args:
        sources: the images that are copied.
        target: the target's driver, or its class.
        format: how that is called.
        bitmaps: what was asked for.

    Raises:
        BlockError: with QEMU's text.
    """
    check_sources(sources, bitmaps)
    if bitmaps is not Bitmaps.NONE and not isinstance(target, BitmapStore):
        raise _without_bitmaps(format)


def check_sources(sources: Sequence[BlockNode], bitmaps: Bitmaps) -> None:
    """Refuse bitmaps that cannot be read; whether the target keeps them is not known yet.

    Raises:
        BlockError: with QEMU's text.
    """
    if bitmaps is Bitmaps.NONE:
        return
    if len(sources) > 1:
        raise BlockError("Copying bitmaps only possible with single source", errno=errno.EINVAL)
    driver = sources[0].driver
    if not isinstance(driver, BitmapStore) or not driver.keeps_bitmaps:
        raise UnsupportedFeature("Source lacks bitmap support")
    for bitmap in reversed(driver.bitmaps()):  # QEMU's list has the last one first
        if bitmaps is Bitmaps.ALL and _INCONSISTENT in bitmap.flags:
            raise BlockError(
                f"Cannot copy inconsistent bitmap '{bitmap.name}'",
                errno=errno.EINVAL,
                hint="Try --skip-broken-bitmaps, or use 'qemu-img bitmap --remove' to delete it",
            )


def _check_store(target: BlockNode, bitmaps: Bitmaps) -> None:
    """Refuse a target that is too old for bitmaps, even where there are none to be copied."""
    if bitmaps is not Bitmaps.NONE and not (isinstance(target.driver, BitmapStore) and target.driver.keeps_bitmaps):
        raise _without_bitmaps(target.format)


def _without_bitmaps(format: str) -> BlockError:
    return UnsupportedFeature(f"Format driver '{format}' does not support bitmaps")


def _copy_bitmaps(source: BlockNode, target: BlockNode, bitmaps: Bitmaps, feedback: Feedback) -> None:
    if bitmaps is Bitmaps.NONE:
        return
    stored, store = source.driver, target.driver
    assert isinstance(stored, BitmapStore)
    assert isinstance(store, BitmapStore)
    found = stored.bitmaps()
    for bitmap in reversed(found):
        if _INCONSISTENT in bitmap.flags and feedback.warn is not None:
            feedback.warn(f"Skipping inconsistent bitmap '{bitmap.name}'")
    for name, granularity, flags in found:
        if _INCONSISTENT in flags:
            continue
        with target.lock(), reported(f"Failed to create bitmap {name}: "):
            store.bitmap_add(name, granularity, enabled="auto" in flags)
        with target.lock(), reported(f"Failed to populate bitmap {name}: "):
            store.bitmap_merge(name, stored.bitmap(name))
