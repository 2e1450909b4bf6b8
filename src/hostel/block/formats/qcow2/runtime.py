"""The options an image can be opened with.

QEMU's caches and checks are tuned by them. Ours need no tuning: metadata is never written over, space is given back
and refcounts are kept whatever they say; so they are checked, and change nothing.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Final

from hostel.block.options import Kind, Option, Options, Value
from hostel.errors import BlockError

_OVERLAP: Final = ("overlap-check", "overlap-check.template")
_OVERLAP_VALUES: Final = ("none", "constant", "cached", "all")
_PLACES: Final = (
    "main-header",
    "active-l1",
    "active-l2",
    "refcount-table",
    "refcount-block",
    "snapshot-table",
    "inactive-l1",
    "inactive-l2",
    "bitmap-directory",
)

RUNTIME_OPTIONS: Final = Options(
    Option("lazy-refcounts", Kind.BOOL, "Postpone refcount updates"),
    Option("pass-discard-request", Kind.BOOL, "Pass guest discard requests to the layer below"),
    Option("pass-discard-snapshot", Kind.BOOL, "Generate discard requests when snapshot related space is freed"),
    Option("pass-discard-other", Kind.BOOL, "Generate discard requests when other clusters are freed"),
    *(Option(name, Kind.STRING, "Which overlap checks to perform (none, constant, cached, all)") for name in _OVERLAP),
    *(Option(f"overlap-check.{place}", Kind.BOOL, f"Check for unintended writes: {place}") for place in _PLACES),
    Option("cache-size", Kind.SIZE, "Maximum combined metadata (L2 tables and refcount blocks) cache size"),
    Option("l2-cache-size", Kind.SIZE, "Maximum L2 table cache size"),
    Option("l2-cache-entry-size", Kind.SIZE, "Size of each entry in the L2 cache"),
    Option("refcount-cache-size", Kind.SIZE, "Maximum refcount block cache size"),
    Option("cache-clean-interval", Kind.NUMBER, "Clean unused cache entries after this time (in seconds)"),
)


def check_runtime_options(options: Mapping[str, Value], version: int) -> None:
    """Refuse what QEMU refuses.

    Raises:
        BlockError: a value is none that there is, or two contradict each other.
    """
    given = [str(options[name]) for name in _OVERLAP if name in options]
    if len(given) > 1 and given[0] != given[1]:
        raise BlockError(
            "Conflicting values for qcow2 options 'overlap-check' "
            f"('{given[0]}') and 'overlap-check.template' ('{given[1]}')",
            errno=errno.EINVAL,
        )
    if given and given[0] not in _OVERLAP_VALUES:
        raise BlockError(
            f"Unsupported value '{given[0]}' for qcow2 option 'overlap-check'. "
            f"Allowed are any of the following: {', '.join(_OVERLAP_VALUES)}",
            errno=errno.EINVAL,
        )
    if options.get("lazy-refcounts") and version < 3:
        raise BlockError(
            "Lazy refcounts require a qcow2 image with at least qemu 1.1 compatibility level", errno=errno.EINVAL
        )
