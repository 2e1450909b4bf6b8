"""Devices of the board: TPM, watchdog, panic notifier, IOMMU, NVRAM; leases and added memory."""

from __future__ import annotations

from hostel.codec.xml import (
    ON_OFF,
    UUID,
    YES_NO,
    Element,
    attr,
    child,
    choice,
    flag,
    integer,
    setting,
    text,
)
from hostel.errors import ErrorCode
from hostel.model.domain.devices.device import Device
from hostel.model.numberset import NUMBERS
from hostel.model.scaled import Scaled

_U64 = 2**64 - 1


class TpmBanks(Element, tag="active_pcr_banks", drop_empty=True):
    """Which hashes the TPM keeps."""

    sha1: bool = flag(default=False)
    sha256: bool = flag(default=False)
    sha384: bool = flag(default=False)
    sha512: bool = flag(default=False)


class TpmSource(Element, tag="source"):
    """The socket of an emulator that somebody else runs."""

    type: str | None = attr(choice("unix"), default=None)
    mode: str | None = attr(choice("connect"), default=None)
    path: str | None = attr(default=None)


class TpmBackend(Element, tag="backend"):
    """The host's TPM, an emulator of ours, or one that is there."""

    type: str = attr(choice("passthrough", "emulator", "external"))
    version: str | None = attr(choice("1.2", "2.0"), default=None)
    persistent_state: bool | None = attr(YES_NO, default=None)
    device: str | None = setting(name="path", default=None, implied=None)
    encryption: str | None = setting(UUID, name="secret", default=None, implied=None)
    banks: TpmBanks | None = child(TpmBanks, default=None)
    source: TpmSource | None = child(TpmSource, default=None)


class Tpm(Device, tag="tpm"):
    """A trusted platform module (``virDomainTPMDefFormat``)."""

    model: str | None = attr(choice("tpm-tis", "tpm-crb", "tpm-spapr", "spapr-tpm-proxy"), default=None)
    backend: TpmBackend = child(TpmBackend)


class Watchdog(Device, tag="watchdog"):
    """What happens when the guest hangs."""

    model: str = attr(
        choice("i6300esb", "ib700", "diag288", code=ErrorCode.CONFIG_UNSUPPORTED, words="unknown watchdog model '{}'")
    )
    action: str = attr(
        choice(
            "reset",
            "shutdown",
            "poweroff",
            "pause",
            "dump",
            "none",
            "inject-nmi",
            code=ErrorCode.CONFIG_UNSUPPORTED,
            words="unknown watchdog action '{}'",
        ),
        default="reset",
    )


class Panic(Device, tag="panic"):
    """How the guest tells that it crashed."""

    model: str | None = attr(choice("default", "isa", "pseries", "hyperv", "s390"), default=None)


class IommuDriver(Element, tag="driver", drop_empty=True):
    """The IOMMU's options."""

    intremap: bool | None = attr(ON_OFF, default=None)
    caching_mode: bool | None = attr(ON_OFF, default=None)
    eim: bool | None = attr(ON_OFF, default=None)
    iotlb: bool | None = attr(ON_OFF, default=None)
    aw_bits: int | None = attr(integer(), default=None)


class Iommu(Device, tag="iommu"):
    """An IOMMU."""

    model: str = attr(choice("intel", "smmuv3", "virtio"))
    driver: IommuDriver | None = child(IommuDriver, default=None)


class DeviceNvram(Device, tag="nvram"):
    """The NVRAM of a POWER machine."""


class LeaseTarget(Element, tag="target"):
    """The lease in its file."""

    path: str = attr()
    offset: int | None = attr(integer(maximum=_U64), default=None)


class Lease(Element, tag="lease"):
    """A lease that a lock manager holds while the domain runs."""

    lockspace: str | None = text(default=None)
    key: str = text()
    target: LeaseTarget = child(LeaseTarget)


class MemorySize(Scaled, tag="size"):
    """How much is added."""


class MemoryLabelSize(Scaled, tag="size"):
    """The size of an NVDIMM's label area."""


class MemoryLabel(Element, tag="label"):
    """An NVDIMM's label area."""

    size: MemoryLabelSize = child(MemoryLabelSize)


class MemoryBlock(Scaled, tag="block"):
    """The unit in which virtio-mem gives and takes."""


class MemoryRequested(Scaled, tag="requested"):
    """How much virtio-mem shall show."""


class MemoryCurrent(Scaled, tag="current"):
    """How much virtio-mem shows; live documents only."""


class MemoryPageSize(Scaled, tag="pagesize"):
    """The size of the host's pages."""


class MemoryAlignSize(Scaled, tag="alignsize"):
    """How an NVDIMM's file is aligned."""


class MemoryDeviceSource(Element, tag="source", drop_empty=True):
    """What of the host is behind added memory."""

    node_mask: str | None = text(NUMBERS, tag="nodemask", default=None)
    page_size: MemoryPageSize | None = child(MemoryPageSize, default=None)
    path: str | None = text(default=None)
    align_size: MemoryAlignSize | None = child(MemoryAlignSize, default=None)
    pmem: bool = flag(default=False)


class MemoryTarget(Element, tag="target"):
    """What the guest sees of added memory."""

    size: MemorySize = child(MemorySize)
    node: int | None = text(integer(), default=None)
    label: MemoryLabel | None = child(MemoryLabel, default=None)
    readonly: bool = flag(default=False)
    block: MemoryBlock | None = child(MemoryBlock, default=None)
    requested: MemoryRequested | None = child(MemoryRequested, default=None)
    current: MemoryCurrent | None = child(MemoryCurrent, default=None)


class MemoryDevice(Device, tag="memory"):
    """Memory that is plugged in (``virDomainMemoryDefFormat``)."""

    model: str = attr(choice("dimm", "nvdimm", "virtio-pmem", "virtio-mem", "sgx-epc"))
    access: str | None = attr(choice("shared", "private"), default=None)
    discard: bool | None = attr(YES_NO, default=None)
    uuid: str | None = text(UUID, default=None)
    source: MemoryDeviceSource | None = child(MemoryDeviceSource, default=None)
    target: MemoryTarget = child(MemoryTarget)
