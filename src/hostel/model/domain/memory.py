"""Memory: how much, where from, and within what limits."""

from __future__ import annotations

from hostel.codec.xml import ON_OFF, Element, attr, child, children, choice, content, flag, integer, setting
from hostel.model.numberset import NUMBERS
from hostel.model.scaled import Scaled

_U64 = 2**64 - 1


class MaxMemory(Scaled, tag="maxMemory"):
    """How much memory there may be once it is plugged in."""

    slots: int = attr(integer())


class Memory(Scaled, tag="memory"):
    """How much memory the guest starts with."""

    value: int = content(integer(maximum=2**64 - 1, words="Invalid value '{}' for element or attribute './memory[1]'"))
    dump_core: bool | None = attr(ON_OFF, name="dumpCore", default=None)


class CurrentMemory(Scaled, tag="currentMemory"):
    """How much of it the guest has."""


class HardLimit(Scaled, tag="hard_limit"):
    """The most the domain may use."""


class SoftLimit(Scaled, tag="soft_limit"):
    """What it may use when memory is scarce."""


class MinGuarantee(Scaled, tag="min_guarantee"):
    """What it always has."""


class SwapHardLimit(Scaled, tag="swap_hard_limit"):
    """The most of memory and swap together."""


class Memtune(Element, tag="memtune", drop_empty=True):
    """Limits (``virDomainMemtuneFormat``)."""

    hard_limit: HardLimit | None = child(HardLimit, default=None)
    soft_limit: SoftLimit | None = child(SoftLimit, default=None)
    min_guarantee: MinGuarantee | None = child(MinGuarantee, default=None)
    swap_hard_limit: SwapHardLimit | None = child(SwapHardLimit, default=None)


class HugePage(Element, tag="page"):
    """Pages of one size, for some cells."""

    size: int = attr(integer(maximum=_U64))
    unit: str | None = attr(default=None)
    nodeset: str | None = attr(NUMBERS, default=None)


class HugePages(Element, tag="hugepages"):
    """Large pages of the host's."""

    pages: list[HugePage] = children(HugePage, factory=list)


class Allocation(Element, tag="allocation", drop_empty=True):
    """When memory is taken."""

    mode: str | None = attr(choice("immediate", "ondemand"), default=None)
    threads: int | None = attr(integer(1), default=None)


class MemoryBacking(Element, tag="memoryBacking", drop_empty=True):
    """What the host takes for the guest's memory (``virDomainMemorybackingFormat``)."""

    hugepages: HugePages | None = child(HugePages, default=None)
    nosharepages: bool = flag(default=False)
    locked: bool = flag(default=False)
    source: str | None = setting(choice("file", "anonymous", "memfd"), name="type", default=None, implied=None)
    access: str | None = setting(choice("shared", "private"), name="mode", default=None, implied=None)
    allocation: Allocation | None = child(Allocation, default=None)
    discard: bool = flag(default=False)


class NumatuneMemory(Element, tag="memory"):
    """Which nodes of the host memory comes from."""

    mode: str | None = attr(choice("strict", "preferred", "interleave", "restrictive"), default=None)
    nodeset: str | None = attr(NUMBERS, default=None)
    placement: str | None = attr(choice("static", "auto"), default=None)


class NumatuneNode(Element, tag="memnode"):
    """Which nodes of the host one cell's memory comes from."""

    cellid: int = attr(integer())
    mode: str | None = attr(choice("strict", "preferred", "interleave", "restrictive"), default=None)
    nodeset: str | None = attr(NUMBERS, default=None)


class Numatune(Element, tag="numatune", drop_empty=True):
    """NUMA policy (``virDomainNumatuneFormatXML``)."""

    memory: NumatuneMemory | None = child(NumatuneMemory, default=None)
    nodes: list[NumatuneNode] = children(NumatuneNode, factory=list)
