"""The options an image can be opened with.

QEMU's caches and checks are tuned by them. Ours need no tuning: metadata is never written over and space is given back
whatever they say; so they are checked, and only these change what is done: ``lazy-refcounts``; ``discard-no-unref`` (of
QEMU 8.1), with which a cluster that is discarded keeps its place, so that the image does not get fragmented; and
whether snapshots' L2 tables are looked at as well before something is written.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any, Final

from hostel.block.formats.qcow2 import encryption
from hostel.block.formats.qcow2.geometry import Geometry
from hostel.block.formats.qcow2.layout import Header
from hostel.block.options import Kind, Option, Options, Value
from hostel.errors import BlockError
from hostel.units import MiB

_OVERLAP: Final = ("overlap-check", "overlap-check.template")
_OVERLAP_VALUES: Final = ("none", "constant", "cached", "all")
_CACHES: Final = ("cache-size", "l2-cache-size", "refcount-cache-size")
_L2_CACHE: Final = 32 * MiB
_MAX_CACHE: Final = 2**31 - 1  # entries
_MAX_INTERVAL: Final = 2**32 - 1  # seconds
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
    Option("discard-no-unref", Kind.BOOL, "Do not unreference discarded clusters"),
    *(Option(name, Kind.STRING, "Which overlap checks to perform (none, constant, cached, all)") for name in _OVERLAP),
    *(Option(f"overlap-check.{place}", Kind.BOOL, f"Check for unintended writes: {place}") for place in _PLACES),
    Option("cache-size", Kind.SIZE, "Maximum combined metadata (L2 tables and refcount blocks) cache size"),
    Option("l2-cache-size", Kind.SIZE, "Maximum L2 table cache size"),
    Option("l2-cache-entry-size", Kind.SIZE, "Size of each entry in the L2 cache"),
    Option("refcount-cache-size", Kind.SIZE, "Maximum refcount block cache size"),
    Option("cache-clean-interval", Kind.NUMBER, "Clean unused cache entries after this time (in seconds)"),
    *encryption.RUNTIME_OPTIONS,
)


def guards_inactive_tables(options: Mapping[str, Value]) -> bool:
    """Whether nothing shall be written over snapshots' L2 tables, which takes reading their L1 tables."""
    return bool(options.get("overlap-check.inactive-l2", "all" in [options.get(name) for name in _OVERLAP]))


def joined_options(before: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The options of an image that is opened again, by their names, as text: a new total overrides its old parts."""
    kept = dict(before)
    if any(name in changes for name in _OVERLAP):
        kept = {name: value for name, value in kept.items() if not name.startswith("overlap-check")}
    if "cache-size" in changes:
        for name in _CACHES[1:]:
            kept.pop(name, None)
    elif any(name in changes for name in _CACHES):
        kept.pop("cache-size", None)
    return {**kept, **changes}


def check_runtime_options(options: Mapping[str, Value], header: Header, geometry: Geometry) -> None:
    """Refuse what QEMU refuses, in its order.

    Raises:
        BlockError: a value is none that there is, or two contradict each other.
    """
    _check_caches(options, header, geometry)
    if int(options.get("cache-clean-interval", 0)) > _MAX_INTERVAL:
        raise BlockError("Cache clean interval too big", errno=errno.EINVAL)
    if options.get("lazy-refcounts") and header.version < 3:
        raise BlockError(
            "Lazy refcounts require a qcow2 image with at least qemu 1.1 compatibility level", errno=errno.EINVAL
        )
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
    if options.get("discard-no-unref") and header.version < 3:
        raise BlockError("discard-no-unref is only supported since qcow2 version 3", errno=errno.EINVAL)


def _check_caches(options: Mapping[str, Value], header: Header, geometry: Geometry) -> None:
    """Refuse sizes of caches that contradict each other (QEMU's ``read_cache_sizes``)."""
    sizes = {name: int(options[name]) for name in _CACHES if name in options}
    combined = sizes.get("cache-size")
    if combined is not None:
        if len(sizes) == len(_CACHES):
            raise BlockError(
                f"{', '.join(_CACHES[:2])} and {_CACHES[2]} may not be set at the same time", errno=errno.EINVAL
            )
        for name, value in sizes.items():
            if value > combined:
                raise BlockError(f"{name} may not exceed cache-size", errno=errno.EINVAL)
    entry = int(options.get("l2-cache-entry-size", geometry.cluster_size))
    if not 512 <= entry <= geometry.cluster_size or entry & (entry - 1):
        raise BlockError(
            f"L2 cache entry size must be a power of two between 512 and the cluster size ({geometry.cluster_size})",
            errno=errno.EINVAL,
        )
    needed = geometry.align(-(-header.size // geometry.cluster_size) * geometry.entry_size)
    refcounts = sizes.get("refcount-cache-size", 0)
    tables = min(needed, sizes.get("l2-cache-size", _L2_CACHE))
    if combined is not None and "l2-cache-size" in sizes:
        refcounts = combined - tables
    elif combined is not None:
        tables = min(needed, combined - refcounts)
    if tables // entry > _MAX_CACHE:
        raise BlockError("L2 cache size too big", errno=errno.EINVAL)
    if refcounts // geometry.cluster_size > _MAX_CACHE:
        raise BlockError("Refcount cache size too big", errno=errno.EINVAL)
