"""How large an image's file will be, before there is one."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from typing import Final

from hostel.block.formats.qcow2 import layout
from hostel.block.formats.qcow2.create import VERSIONS, check_creation
from hostel.block.formats.qcow2.encryption import read_plan
from hostel.block.options import Value
from hostel.block.powers import Measured, Preallocation
from hostel.errors import BlockError, NoSpace

_ENTRY: Final = 8  # bytes of an entry of an L1 or a refcount table


def measure(size: int, options: Mapping[str, Value], data: Iterable[tuple[int, int]] | None) -> Measured:
    """Measure an image of ``size`` bytes with the given creation options.

    Args:
        size: the virtual size, bytes.
        options: as for creation.
        data: offset and length of what will be written, in order; None for an empty image.

    Raises:
        BlockError: an option makes no sense, or the size is too large for the cluster size.
    """
    _check(options)
    # Measured by QEMU as if it were none.
    is_luks = options.get("encrypt.format") == "luks"
    plan = read_plan(options) if is_luks else None
    cluster_size = int(options["cluster_size"])
    entry_size = 2 * _ENTRY if options.get("extended_l2") else _ENTRY
    virtual = _align(size, cluster_size)
    if -(-virtual // cluster_size * entry_size // cluster_size) * _ENTRY > layout.MAX_L1_SIZE:
        raise NoSpace("The image size is too large (try using a larger cluster size)", errno=errno.EFBIG)
    allocated = 0
    if options.get("preallocation") in ("falloc", "full"):
        allocated = virtual
    elif data is not None:
        allocated = virtual if options.get("backing_file") else _whole_clusters(data, cluster_size)
    full = _metadata(virtual, cluster_size, int(options["refcount_bits"]), entry_size) + virtual
    full += _align(plan.header_length, cluster_size) if plan is not None else 0
    return Measured(full - virtual + allocated, full)


def _check(options: Mapping[str, Value]) -> None:
    """Refuse what measuring looks at, in QEMU's words for it; all else need not be possible."""
    looked_at = ("cluster_size", "extended_l2", "refcount_bits")
    check_creation(0, {name: options[name] for name in looked_at if name in options})
    version = options.get("compat", "1.1")
    if version not in VERSIONS:
        raise BlockError(f"Invalid compatibility level: '{version}'", errno=errno.EINVAL)
    if options["refcount_bits"] != 16 and VERSIONS[str(version)] < 3:
        raise BlockError(
            "Different refcount widths than 16 bits require compatibility level 1.1 or above "
            "(use compat=1.1 or greater)",
            errno=errno.EINVAL,
        )
    mode = options.get("preallocation", "off")
    if mode not in {known.value for known in Preallocation}:
        raise BlockError(f"invalid parameter value: {mode}", errno=errno.EINVAL)


def _whole_clusters(data: Iterable[tuple[int, int]], cluster_size: int) -> int:
    """Bytes of the clusters that the ranges touch."""
    total = end = 0
    for offset, length in data:
        start = max(offset // cluster_size * cluster_size, end)
        end = max(_align(offset + length, cluster_size), start)
        total += end - start
    return total


def _metadata(virtual: int, cluster_size: int, refcount_bits: int, entry_size: int) -> int:
    """Bytes of everything but the guest's clusters, where all of those are allocated."""
    l2 = _align(virtual // cluster_size * entry_size, cluster_size)
    l1 = _align(l2 // cluster_size * _ENTRY, cluster_size)
    header = cluster_size
    clusters = (header + l2 + l1 + virtual) // cluster_size
    return header + l2 + l1 + _refcounts(clusters, cluster_size, refcount_bits) * cluster_size


def _refcounts(clusters: int, cluster_size: int, refcount_bits: int) -> int:
    """Clusters of the refcount table and its blocks, which count themselves too."""
    per_block = cluster_size * 8 // refcount_bits
    blocks = table = 0
    while True:
        counted = blocks + table
        blocks = -(-(clusters + counted) // per_block)
        table = -(-blocks // (cluster_size // _ENTRY))
        if blocks + table == counted:
            return counted


def _align(length: int, unit: int) -> int:
    return -(-length // unit) * unit
