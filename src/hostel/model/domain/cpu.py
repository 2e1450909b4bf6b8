"""``<cpu>`` and ``<vcpu>`` (``virCPUDefFormatBufFull``, ``virDomainNumaDefFormatXML``, ``virDomainCpuDefFormat``)."""

from __future__ import annotations

from hostel.codec.xml import ON_OFF, YES_NO, Element, attr, child, children, choice, content, integer, text
from hostel.errors import ErrorCode
from hostel.model.numberset import NUMBERS, NUMBERS_OR_NONE

_U64 = 2**64 - 1


class Vcpu(Element, tag="vcpu"):
    """How many virtual CPUs there may be, and how many there are."""

    placement: str | None = attr(choice("static", "auto"), default=None)
    cpuset: str | None = attr(NUMBERS, default=None)
    current: int | None = attr(integer(1), default=None)
    value: int = content(integer(1, words="maximum vcpus count must be an integer"))


class VcpuEntry(Element, tag="vcpu"):
    """One virtual CPU."""

    id: int = attr(integer())
    enabled: bool = attr(YES_NO)
    hotpluggable: bool | None = attr(YES_NO, default=None)
    order: int | None = attr(integer(1), default=None)


class Vcpus(Element, tag="vcpus"):
    """Virtual CPUs one by one."""

    vcpus: list[VcpuEntry] = children(VcpuEntry, factory=list)


class CpuModel(Element, tag="model"):
    """A named model."""

    fallback: str | None = attr(
        choice("allow", "forbid", code=ErrorCode.CONFIG_UNSUPPORTED, words="Invalid fallback attribute"), default=None
    )
    vendor_id: str | None = attr(default=None)
    name: str | None = content(default=None)


class Topology(Element, tag="topology"):
    """Sockets, dies, cores and threads."""

    sockets: int = attr(integer(1))
    dies: int = attr(integer(1), default=1)
    cores: int = attr(integer(1))
    threads: int = attr(integer(1))


class CpuCache(Element, tag="cache"):
    """Which cache the guest is told of."""

    level: int | None = attr(integer(1, 3), default=None)
    mode: str = attr(choice("emulate", "passthrough", "disable"))


class MaxPhysicalAddress(Element, tag="maxphysaddr"):
    """How many bits a physical address has."""

    mode: str = attr(choice("emulate", "passthrough"))
    bits: int | None = attr(integer(), default=None)


class CpuFeature(Element, tag="feature"):
    """One feature, and what shall be with it."""

    policy: str | None = attr(
        choice(
            "force",
            "require",
            "optional",
            "disable",
            "forbid",
            code=ErrorCode.CONFIG_UNSUPPORTED,
            words="Invalid CPU feature policy",
        ),
        default=None,
    )
    name: str = attr()


class Sibling(Element, tag="sibling"):
    """How far it is to another cell."""

    id: int = attr(integer())
    value: int = attr(integer(10, 255))


class Distances(Element, tag="distances"):
    """How far it is to other cells."""

    siblings: list[Sibling] = children(Sibling, factory=list)


class CacheSize(Element, tag="size"):
    """The size of a memory-side cache."""

    value: int = attr(integer(maximum=_U64))
    unit: str | None = attr(default=None)


class CacheLine(Element, tag="line"):
    """The size of a line of it."""

    value: int = attr(integer(maximum=_U64))
    unit: str | None = attr(default=None)


class CellCache(Element, tag="cache"):
    """A memory-side cache."""

    level: int = attr(integer())
    associativity: str = attr(choice("none", "direct", "full"))
    policy: str = attr(choice("none", "writeback", "writethrough"))
    size: CacheSize | None = child(CacheSize, default=None)
    line: CacheLine | None = child(CacheLine, default=None)


class Cell(Element, tag="cell"):
    """A NUMA cell."""

    id: int | None = attr(integer(), default=None)
    cpus: str | None = attr(NUMBERS_OR_NONE, default=None)
    memory: int = attr(integer(maximum=_U64))
    unit: str | None = attr(default=None)
    mem_access: str | None = attr(choice("shared", "private"), name="memAccess", default=None)
    discard: bool | None = attr(YES_NO, default=None)
    distances: Distances | None = child(Distances, default=None)
    caches: list[CellCache] = children(CellCache, factory=list)


class Latency(Element, tag="latency"):
    """How long access takes from one cell to another, in nanoseconds."""

    initiator: int = attr(integer())
    target: int = attr(integer())
    cache: int | None = attr(integer(), default=None)
    type: str = attr(choice("access", "read", "write"))
    value: int = attr(integer())


class CellBandwidth(Element, tag="bandwidth"):
    """How fast access is from one cell to another."""

    initiator: int = attr(integer())
    target: int = attr(integer())
    cache: int | None = attr(integer(), default=None)
    type: str = attr(choice("access", "read", "write"))
    value: int = attr(integer(maximum=_U64))
    unit: str | None = attr(default=None)


class Interconnects(Element, tag="interconnects"):
    """Latencies and bandwidths between cells."""

    latencies: list[Latency] = children(Latency, factory=list)
    bandwidths: list[CellBandwidth] = children(CellBandwidth, factory=list)


class Numa(Element, tag="numa"):
    """The guest's NUMA cells."""

    cells: list[Cell] = children(Cell, factory=list)
    interconnects: Interconnects | None = child(Interconnects, default=None)


class Cpu(Element, tag="cpu", drop_empty=True):
    """The guest's processor."""

    mode: str | None = attr(
        choice(
            "custom",
            "host-model",
            "host-passthrough",
            "maximum",
            code=ErrorCode.CONFIG_UNSUPPORTED,
            words="Invalid mode attribute '{}'",
        ),
        default=None,
    )
    match: str | None = attr(choice("exact", "minimum", "strict"), default=None)
    check: str | None = attr(choice("none", "partial", "full"), default=None)
    migratable: bool | None = attr(ON_OFF, default=None)
    model: CpuModel | None = child(CpuModel, default=None)
    vendor: str | None = text(default=None)
    topology: Topology | None = child(Topology, default=None)
    cache: CpuCache | None = child(CpuCache, default=None)
    maxphysaddr: MaxPhysicalAddress | None = child(MaxPhysicalAddress, default=None)
    features: list[CpuFeature] = children(CpuFeature, factory=list)
    numa: Numa | None = child(Numa, default=None)
