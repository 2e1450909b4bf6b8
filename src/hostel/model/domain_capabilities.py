"""The document of what one emulator can do for one machine (``virDomainCapsFormat``)."""

from __future__ import annotations

from typing import Final

from hostel.codec.xml import (
    STRING,
    YES_NO,
    Element,
    attr,
    child,
    children,
    choice,
    content,
    integer,
    setting,
    text,
    texts,
)
from hostel.model.domain.cpu import CpuFeature

_U64: Final = 2**64 - 1


class Choices(Element, tag="enum"):
    """The values that there are."""

    name: str = attr()
    values: list[str] = texts(STRING, tag="value", factory=list)


class Supported(Element):
    """Something that is there or not; where it is, its choices."""

    supported: bool = attr(YES_NO)
    choices: list[Choices] = children(Choices, factory=list)


class LoaderSupport(Element, tag="loader"):
    """Firmware: its files, and how it is loaded."""

    supported: bool = attr(YES_NO)
    files: list[str] = texts(STRING, tag="value", factory=list)
    choices: list[Choices] = children(Choices, factory=list)


class OsSupport(Element, tag="os"):
    """How machines boot."""

    supported: bool = attr(YES_NO)
    choices: list[Choices] = children(Choices, factory=list)
    loader: LoaderSupport | None = child(LoaderSupport, default=None)


class KnownModel(Element, tag="model"):
    """A model of processors, and whether this host can be it; of the host itself, what stands in for it."""

    fallback: str | None = attr(choice("allow", "forbid"), default=None)
    vendor_id: str | None = attr(default=None)
    usable: str | None = attr(choice("yes", "no", "unknown"), default=None)
    deprecated: bool | None = attr(YES_NO, default=None)
    vendor: str | None = attr(default=None)
    name: str = content()


class SupportedAddressBits(Element, tag="maxphysaddr"):
    """How many bits a physical address has."""

    mode: str = attr(choice("emulate", "passthrough"))
    bits: int | None = attr(integer(), default=None)
    limit: int | None = attr(integer(), default=None)


class CpuMode(Element, tag="mode"):
    """A way to choose a processor."""

    name: str = attr(choice("host-passthrough", "maximum", "host-model", "custom"))
    supported: bool = attr(YES_NO)
    choices: list[Choices] = children(Choices, factory=list)
    models: list[KnownModel] = children(KnownModel, factory=list)
    vendor: str | None = text(default=None)
    address_bits: SupportedAddressBits | None = child(SupportedAddressBits, default=None)
    features: list[CpuFeature] = children(CpuFeature, factory=list)


class CpuModes(Element, tag="cpu"):
    """Every way to choose a processor."""

    modes: list[CpuMode] = children(CpuMode, factory=list)


class MemoryBackingSupport(Supported, tag="memoryBacking"):
    """Where a machine's memory can be."""


class DiskSupport(Supported, tag="disk"):
    """Disks."""


class GraphicsSupport(Supported, tag="graphics"):
    """Screens."""


class VideoSupport(Supported, tag="video"):
    """Graphics cards."""


class HostdevSupport(Supported, tag="hostdev"):
    """Devices of the host's."""


class RngSupport(Supported, tag="rng"):
    """Random numbers."""


class FilesystemSupport(Supported, tag="filesystem"):
    """Directories of the host's."""


class TpmSupport(Supported, tag="tpm"):
    """TPMs."""


class RedirdevSupport(Supported, tag="redirdev"):
    """Redirected USB devices."""


class ChannelSupport(Supported, tag="channel"):
    """Channels."""


class DeviceSupport(Element, tag="devices", keep_open=True):
    """The devices that machines can have."""

    disk: DiskSupport | None = child(DiskSupport, default=None)
    graphics: GraphicsSupport | None = child(GraphicsSupport, default=None)
    video: VideoSupport | None = child(VideoSupport, default=None)
    hostdev: HostdevSupport | None = child(HostdevSupport, default=None)
    rng: RngSupport | None = child(RngSupport, default=None)
    filesystem: FilesystemSupport | None = child(FilesystemSupport, default=None)
    tpm: TpmSupport | None = child(TpmSupport, default=None)
    redirdev: RedirdevSupport | None = child(RedirdevSupport, default=None)
    channel: ChannelSupport | None = child(ChannelSupport, default=None)


class GicSupport(Supported, tag="gic"):
    """Interrupt controllers of ARM."""


class SevSupport(Element, tag="sev"):
    """Memory that AMD's processors encrypt."""

    supported: bool = attr(YES_NO)
    cbitpos: int | None = text(integer(), default=None)
    reduced_phys_bits: int | None = text(integer(), tag="reducedPhysBits", default=None)
    max_guests: int | None = text(integer(), tag="maxGuests", default=None)
    max_es_guests: int | None = text(integer(), tag="maxESGuests", default=None)
    cpu0_id: str | None = text(tag="cpu0Id", default=None)


class SgxSize(Element, tag="section_size"):
    """How much memory enclaves have."""

    unit: str = attr()
    value: int = content(integer(maximum=_U64))


class SgxSection(Element, tag="section"):
    """How much of it is in a cell."""

    node: int = attr(integer())
    size: int = attr(integer(maximum=_U64))
    unit: str = attr()


class SgxSections(Element, tag="sections"):
    """How it is spread over cells."""

    sections: list[SgxSection] = children(SgxSection, factory=list)


class SgxSupport(Element, tag="sgx"):
    """Enclaves of Intel's processors."""

    supported: bool = attr(YES_NO)
    flc: bool | None = text(YES_NO, default=None)
    sgx1: bool | None = text(YES_NO, default=None)
    sgx2: bool | None = text(YES_NO, default=None)
    size: SgxSize | None = child(SgxSize, default=None)
    sections: SgxSections | None = child(SgxSections, default=None)


class HypervSupport(Supported, tag="hyperv"):
    """What Windows knows of Hyper-V."""


class FeatureSupport(Element, tag="features"):
    """Everything else."""

    gic: GicSupport | None = child(GicSupport, default=None)
    vmcoreinfo: bool | None = setting(YES_NO, name="supported", default=None)
    genid: bool | None = setting(YES_NO, name="supported", default=None)
    backing_store_input: bool | None = setting(YES_NO, tag="backingStoreInput", name="supported", default=None)
    backup: bool | None = setting(YES_NO, name="supported", default=None)
    s390_pv: bool | None = setting(YES_NO, tag="s390-pv", name="supported", default=None)
    sev: SevSupport | None = child(SevSupport, default=None)
    sgx: SgxSupport | None = child(SgxSupport, default=None)
    hyperv: HypervSupport | None = child(HypervSupport, default=None)


class DomainCapabilities(Element, tag="domainCapabilities"):
    """What an emulator can do."""

    path: str = text()
    domain: str = text()
    machine: str | None = text(default=None)
    arch: str = text()
    max_vcpus: int | None = setting(integer(), tag="vcpu", name="max", default=None)
    iothreads: bool | None = setting(YES_NO, name="supported", default=None)
    os: OsSupport | None = child(OsSupport, default=None)
    cpu: CpuModes | None = child(CpuModes, default=None)
    memory_backing: MemoryBackingSupport | None = child(MemoryBackingSupport, default=None)
    devices: DeviceSupport | None = child(DeviceSupport, default=None)
    features: FeatureSupport | None = child(FeatureSupport, default=None)
