"""The sizes that follow from a header: clusters, entries a table, reach of a refcount block."""

from __future__ import annotations

from typing import NamedTuple

from hostel.block.formats.qcow2.layout import SUBCLUSTERS, Header, Incompatible


class Geometry(NamedTuple):
    """Derived sizes.

    Attributes:
        cluster_bits: log2 of the cluster size.
        cluster_size: bytes.
        l2_bits: log2 of the entries of an L2 table.
        l2_entries: entries of an L2 table.
        l2_reach: guest bytes that one L2 table maps.
        refcount_bits: width of a refcount.
        refcount_max: the largest refcount.
        block_entries: refcounts in one refcount block, which is one cluster.
        extended: L2 entries have 16 bytes and tell of subclusters.
        subcluster_size: bytes; a whole cluster where they are not extended.
    """

    cluster_bits: int
    cluster_size: int
    l2_bits: int
    l2_entries: int
    l2_reach: int
    refcount_bits: int
    refcount_max: int
    block_entries: int
    extended: bool
    subcluster_size: int

    @classmethod
    def of(cls, header: Header) -> Geometry:
        """Derive them; the header's own limits have been checked."""
        cluster_bits = header.cluster_bits
        extended = bool(header.incompatible_features & Incompatible.EXTENDED_L2)
        l2_bits = cluster_bits - (4 if extended else 3)
        refcount_bits = 1 << header.refcount_order
        return cls(
            cluster_bits=cluster_bits,
            cluster_size=1 << cluster_bits,
            l2_bits=l2_bits,
            l2_entries=1 << l2_bits,
            l2_reach=1 << (cluster_bits + l2_bits),
            refcount_bits=refcount_bits,
            # QEMU treats 64-bit refcounts as signed.
            refcount_max=(1 << min(refcount_bits, 63)) - 1,
            block_entries=(8 << cluster_bits) // refcount_bits,
            extended=extended,
            subcluster_size=(1 << cluster_bits) // (SUBCLUSTERS if extended else 1),
        )

    def clusters(self, length: int) -> int:
        """How many clusters ``length`` bytes need."""
        return (length + self.cluster_size - 1) >> self.cluster_bits

    def align(self, length: int) -> int:
        """``length`` rounded up to whole clusters."""
        return self.clusters(length) << self.cluster_bits

    def in_cluster(self, offset: int) -> int:
        """The offset inside its cluster."""
        return offset & (self.cluster_size - 1)

    def l1_entries(self, size: int) -> int:
        """L1 entries for a virtual size of ``size`` bytes."""
        return (size + self.l2_reach - 1) >> (self.cluster_bits + self.l2_bits)

    @property
    def entry_size(self) -> int:
        """Bytes of an L2 entry."""
        return 16 if self.extended else 8

    @property
    def csize_shift(self) -> int:
        """Where a compressed descriptor's sector count starts: 62 - (cluster_bits - 8)."""
        return 62 - (self.cluster_bits - 8)

    def compressed_range(self, entry: int) -> tuple[int, int]:
        """Host offset and length, both in bytes, of a compressed cluster ("Compressed Clusters Descriptor")."""
        shift = self.csize_shift
        offset = entry & ((1 << shift) - 1)
        sectors = ((entry >> shift) & ((1 << (self.cluster_bits - 8)) - 1)) + 1
        return offset, sectors * 512 - (offset & 511)

    def compressed_entry(self, offset: int, length: int) -> int:
        """The descriptor of ``length`` payload bytes at host ``offset``; the inverse of :meth:`compressed_range`."""
        additional = ((offset + length - 1) >> 9) - (offset >> 9)
        return (1 << 62) | (additional << self.csize_shift) | offset
