"""The document of a host and of the guests it runs (``virCapabilitiesFormatXML``)."""

from __future__ import annotations

from typing import Final

from hostel.codec.xml import (
    ON_OFF,
    STRING,
    UUID,
    YES_NO,
    Element,
    attr,
    child,
    children,
    choice,
    content,
    flag,
    integer,
    setting,
    text,
    texts,
)
from hostel.model.domain.cpu import CellCache, CpuFeature, Distances, Interconnects, Topology
from hostel.model.numberset import NUMBERS

_U64: Final = 2**64 - 1
_UNITS: Final = choice("B", "KiB", "MiB", "GiB", "TiB")
_CACHE_TYPES: Final = choice("both", "code", "data")
# libvirt puts an empty line after each of these, and after the root's start.
_PARAGRAPHS: Final = ("<capabilities>", "  </host>", "  </guest>", "  </pool>")


class PageSize(Element, tag="pages"):
    """A size of pages that the host has; libvirt writes the unit, and asks for none."""

    unit: str | None = attr(default=None)
    size: int = attr(integer())


class Counter(Element, tag="counter"):
    """A counter of the processor's, with its frequency in hertz."""

    name: str = attr()
    frequency: int = attr(integer(maximum=_U64))
    scaling: bool | None = attr(YES_NO, default=None)


class HostAddressBits(Element, tag="maxphysaddr"):
    """How many bits a physical address has."""

    mode: str | None = attr(choice("emulate", "passthrough"), default=None)
    bits: int | None = attr(integer(), default=None)


class CpuNames(Element, tag="features", drop_empty=True):
    """Whether 32-bit guests may have more than 4 GiB."""

    pae: bool = flag(default=False)
    nonpae: bool = flag(default=False)
    vmx: bool = flag(default=False)
    svm: bool = flag(default=False)


class CpuSignature(Element, tag="signature"):
    """Which processor of its vendor it is."""

    family: int = attr(integer())
    model: int | None = attr(integer(), default=None)
    stepping: int | None = attr(integer(), default=None)


class HostCpu(Element, tag="cpu"):
    """The host's processor."""

    arch: str | None = text(default=None)
    names: CpuNames | None = child(CpuNames, default=None)
    model: str | None = text(default=None)
    vendor: str | None = text(default=None)
    microcode: int | None = setting(integer(), name="version", default=None)
    signature: CpuSignature | None = child(CpuSignature, default=None)
    counters: list[Counter] = children(Counter, factory=list)
    topology: Topology | None = child(Topology, default=None)
    address_bits: HostAddressBits | None = child(HostAddressBits, default=None)
    features: list[CpuFeature] = children(CpuFeature, factory=list)
    pages: list[PageSize] = children(PageSize, factory=list)


class PowerManagement(Element, tag="power_management"):
    """How the host can be suspended."""

    suspend_mem: bool = flag(default=False)
    suspend_disk: bool = flag(default=False)
    suspend_hybrid: bool = flag(default=False)


class Transports(Element, tag="uri_transports", drop_empty=True):
    """By what addresses guests migrate."""

    names: list[str] = texts(STRING, tag="uri_transport", factory=list)


class MigrationFeatures(Element, tag="migration_features", keep_open=True):
    """How guests migrate."""

    live: bool = flag(default=False)
    transports: Transports | None = child(Transports, default=None)


class HostPages(Element, tag="pages"):
    """How many pages of a size a cell has."""

    unit: str = attr(_UNITS)
    size: int = attr(integer())
    count: int = content(integer(maximum=_U64))


class HostMemory(Element, tag="memory"):
    """A cell's memory."""

    unit: str = attr(_UNITS)
    size: int = content(integer(maximum=_U64))


class HostThread(Element, tag="cpu"):
    """A processor as the kernel counts them, and where it is."""

    id: int = attr(integer())
    socket_id: int | None = attr(integer(), default=None)
    die_id: int | None = attr(integer(), default=None)
    core_id: int | None = attr(integer(), default=None)
    siblings: str | None = attr(NUMBERS, default=None)


class HostThreads(Element, tag="cpus"):
    """A cell's processors."""

    num: int = attr(integer())
    cpus: list[HostThread] = children(HostThread, factory=list)


class HostCell(Element, tag="cell"):
    """A cell of memory and the processors near it."""

    id: int = attr(integer())
    memory: HostMemory | None = child(HostMemory, default=None)
    pages: list[HostPages] = children(HostPages, factory=list)
    distances: Distances | None = child(Distances, default=None)
    caches: list[CellCache] = children(CellCache, factory=list)
    cpus: HostThreads | None = child(HostThreads, default=None)


class HostCells(Element, tag="cells"):
    """The cells."""

    num: int = attr(integer())
    cells: list[HostCell] = children(HostCell, factory=list)


class HostTopology(Element, tag="topology"):
    """How memory and processors lie to one another."""

    cells: HostCells | None = child(HostCells, default=None)
    interconnects: Interconnects | None = child(Interconnects, default=None)


class CacheControl(Element, tag="control"):
    """How a cache can be shared out."""

    granularity: int = attr(integer(maximum=_U64))
    min: int | None = attr(integer(maximum=_U64), default=None)
    unit: str | None = attr(_UNITS, default=None)
    type: str = attr(_CACHE_TYPES)
    max_allocations: int = attr(integer(), name="maxAllocs")


class CacheBank(Element, tag="bank"):
    """A cache, and the processors it serves."""

    id: int = attr(integer())
    level: int = attr(integer())
    type: str = attr(_CACHE_TYPES)
    size: int = attr(integer(maximum=_U64))
    unit: str = attr(_UNITS)
    cpus: str = attr(NUMBERS)
    controls: list[CacheControl] = children(CacheControl, factory=list)


class MonitorFeature(Element, tag="feature"):
    """Something that can be watched."""

    name: str = attr()


class Monitor(Element, tag="monitor"):
    """What can be watched, and how often at once; level and threshold only of a cache."""

    level: int | None = attr(integer(), default=None)
    reuse_threshold: int | None = attr(integer(), name="reuseThreshold", default=None)
    max_monitors: int = attr(integer(), name="maxMonitors")
    features: list[MonitorFeature] = children(MonitorFeature, factory=list)


class HostCache(Element, tag="cache", drop_empty=True):
    """The host's last caches."""

    banks: list[CacheBank] = children(CacheBank, factory=list)
    monitor: Monitor | None = child(Monitor, default=None)


class BandwidthControl(Element, tag="control"):
    """How bandwidth can be shared out, in percent."""

    granularity: int = attr(integer())
    min: int | None = attr(integer(), default=None)
    max_allocations: int = attr(integer(), name="maxAllocs")


class BandwidthNode(Element, tag="node"):
    """A controller of memory, and the processors it serves."""

    id: int = attr(integer())
    cpus: str = attr(NUMBERS)
    controls: list[BandwidthControl] = children(BandwidthControl, factory=list)


class MemoryBandwidth(Element, tag="memory_bandwidth", drop_empty=True):
    """The host's controllers of memory."""

    nodes: list[BandwidthNode] = children(BandwidthNode, factory=list)
    monitor: Monitor | None = child(Monitor, default=None)


class BaseLabel(Element, tag="baselabel"):
    """The label from which those of guests are made."""

    type: str = attr()
    label: str | None = content(default=None)


class SecurityModel(Element, tag="secmodel"):
    """What keeps guests apart."""

    model: str = text()
    doi: str = text()
    labels: list[BaseLabel] = children(BaseLabel, factory=list)


class Host(Element, tag="host"):
    """The host."""

    uuid: str | None = text(UUID, default=None)
    cpu: HostCpu = child(HostCpu)
    power_management: PowerManagement | None = child(PowerManagement, default=None)
    iommu: bool | None = setting(YES_NO, name="support", default=None)
    migration: MigrationFeatures | None = child(MigrationFeatures, default=None)
    netprefix: str | None = text(default=None)
    topology: HostTopology | None = child(HostTopology, default=None)
    cache: HostCache | None = child(HostCache, default=None)
    bandwidth: MemoryBandwidth | None = child(MemoryBandwidth, default=None)
    security: list[SecurityModel] = children(SecurityModel, factory=list)


class GuestMachine(Element, tag="machine"):
    """A type of machines."""

    canonical: str | None = attr(default=None)
    max_cpus: int | None = attr(integer(), name="maxCpus", default=None)
    deprecated: bool | None = attr(YES_NO, default=None)
    name: str = content()


class GuestDomain(Element, tag="domain"):
    """A way to run guests, and what is otherwise with it."""

    type: str = attr()
    emulator: str | None = text(default=None)
    loader: str | None = text(default=None)
    machines: list[GuestMachine] = children(GuestMachine, factory=list)


class GuestArchitecture(Element, tag="arch"):
    """An architecture of guests."""

    name: str = attr()
    wordsize: int = text(integer())
    emulator: str | None = text(default=None)
    loader: str | None = text(default=None)
    machines: list[GuestMachine] = children(GuestMachine, factory=list)
    domains: list[GuestDomain] = children(GuestDomain, factory=list)


class GuestFeature(Element):
    """Something that guests have or not, and whether they can choose."""

    default: bool | None = attr(ON_OFF, default=None)
    toggle: bool | None = attr(YES_NO, default=None)


class GuestAcpi(GuestFeature, tag="acpi"):
    """ACPI."""


class GuestApic(GuestFeature, tag="apic"):
    """An APIC."""


class GuestSnapshots(GuestFeature, tag="disksnapshot"):
    """Snapshots of disks while they are used."""


class GuestHap(GuestFeature, tag="hap"):
    """Page tables that are the hardware's."""


class GuestFeatures(Element, tag="features", drop_empty=True):
    """What guests can have."""

    pae: bool = flag(default=False)
    nonpae: bool = flag(default=False)
    ia64_be: bool = flag(default=False)
    acpi: GuestAcpi | None = child(GuestAcpi, default=None)
    apic: GuestApic | None = child(GuestApic, default=None)
    cpuselection: bool = flag(default=False)
    deviceboot: bool = flag(default=False)
    disksnapshot: GuestSnapshots | None = child(GuestSnapshots, default=None)
    hap: GuestHap | None = child(GuestHap, default=None)


class Guest(Element, tag="guest"):
    """A kind of guests."""

    os_type: str = text()
    arch: GuestArchitecture = child(GuestArchitecture)
    features: GuestFeatures | None = child(GuestFeatures, default=None)


class PoolTypes(Element, tag="enum"):
    """Names of types."""

    name: str = attr()
    values: list[str] = texts(STRING, tag="value", factory=list)


class CapabilitiesPool(Element, tag="pool"):
    """The types of storage pools."""

    types: PoolTypes = child(PoolTypes)


class Capabilities(Element, tag="capabilities"):
    """The host and its guests."""

    host: Host | None = child(Host, default=None)
    guests: list[Guest] = children(Guest, factory=list)
    pool: CapabilitiesPool | None = child(CapabilitiesPool, default=None)

    def format(self) -> str:
        """Write the document, with an empty line between its parts."""
        lines = super().format().splitlines()
        return "".join(f"{line}\n\n" if line in _PARAGRAPHS else f"{line}\n" for line in lines)
