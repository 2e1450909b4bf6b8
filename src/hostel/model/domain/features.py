"""``<features>``: what the hypervisor shows of itself and of the machine (``virDomainDefFormatFeatures``)."""

from __future__ import annotations

from hostel.codec.xml import ON_OFF, Element, attr, child, choice, flag, integer, setting
from hostel.model.scaled import Scaled


class Apic(Element, tag="apic"):
    """The interrupt controller."""

    eoi: bool | None = attr(ON_OFF, default=None)


class Spinlocks(Element, tag="spinlocks"):
    """Tell the hypervisor of a lock after so many attempts."""

    state: bool = attr(ON_OFF)
    retries: int | None = attr(integer(0xFFF, base=0), default=None)


class SyntheticTimer(Element, tag="stimer"):
    """Synthetic timers."""

    state: bool = attr(ON_OFF)
    direct: bool | None = setting(ON_OFF, name="state", default=None)


class VendorId(Element, tag="vendor_id"):
    """Who the hypervisor says that it is."""

    state: bool = attr(ON_OFF)
    value: str | None = attr(default=None)


class Hyperv(Element, tag="hyperv", keep_open=True):
    """What Windows is told in Hyper-V's ways."""

    mode: str | None = attr(choice("custom", "passthrough"), default=None)
    relaxed: bool | None = setting(ON_OFF, name="state", default=None)
    vapic: bool | None = setting(ON_OFF, name="state", default=None)
    spinlocks: Spinlocks | None = child(Spinlocks, default=None)
    vpindex: bool | None = setting(ON_OFF, name="state", default=None)
    runtime: bool | None = setting(ON_OFF, name="state", default=None)
    synic: bool | None = setting(ON_OFF, name="state", default=None)
    stimer: SyntheticTimer | None = child(SyntheticTimer, default=None)
    reset: bool | None = setting(ON_OFF, name="state", default=None)
    vendor_id: VendorId | None = child(VendorId, default=None)
    frequencies: bool | None = setting(ON_OFF, name="state", default=None)
    reenlightenment: bool | None = setting(ON_OFF, name="state", default=None)
    tlbflush: bool | None = setting(ON_OFF, name="state", default=None)
    ipi: bool | None = setting(ON_OFF, name="state", default=None)
    evmcs: bool | None = setting(ON_OFF, name="state", default=None)
    avic: bool | None = setting(ON_OFF, name="state", default=None)


class DirtyRing(Element, tag="dirty-ring"):
    """Dirty pages in a ring of so many entries."""

    state: bool = attr(ON_OFF)
    size: int | None = attr(integer(base=0), default=None)


class Kvm(Element, tag="kvm", keep_open=True):
    """What the guest is told in KVM's ways."""

    hidden: bool | None = setting(ON_OFF, name="state", default=None)
    hint_dedicated: bool | None = setting(ON_OFF, tag="hint-dedicated", name="state", default=None)
    poll_control: bool | None = setting(ON_OFF, tag="poll-control", name="state", default=None)
    pv_ipi: bool | None = setting(ON_OFF, tag="pv-ipi", name="state", default=None)
    dirty_ring: DirtyRing | None = child(DirtyRing, default=None)


def ring_size(features: Features | None) -> int | None:
    """How many entries the ring of dirty pages has; None where there is none."""
    ring = features.kvm.dirty_ring if features is not None and features.kvm is not None else None
    return ring.size if ring is not None and ring.state else None


class XenPassthrough(Element, tag="passthrough"):
    """Passing devices through."""

    state: bool = attr(ON_OFF)
    mode: str | None = attr(choice("sync_pt", "share_pt"), default=None)


class Xen(Element, tag="xen", keep_open=True):
    """What the guest is told in Xen's ways."""

    e820_host: bool | None = setting(ON_OFF, name="state", default=None)
    passthrough: XenPassthrough | None = child(XenPassthrough, default=None)


class TopSegment(Scaled, tag="tseg"):
    """The memory of the system management mode."""

    DEFAULT_UNIT = "MiB"


class SystemManagement(Element, tag="smm"):
    """System management mode."""

    state: bool | None = attr(ON_OFF, default=None)
    tseg: TopSegment | None = child(TopSegment, default=None)


class MaxPageSize(Scaled, tag="maxpagesize"):
    """The largest page of a POWER guest."""


class HashPageTable(Element, tag="hpt", drop_empty=True):
    """A POWER guest's page table."""

    resizing: str | None = attr(choice("enabled", "disabled", "required"), default=None)
    max_page_size: MaxPageSize | None = child(MaxPageSize, default=None)


class TranslationCache(Scaled, tag="tb-cache"):
    """The memory for translated code."""


class Tcg(Element, tag="tcg", drop_empty=True):
    """Options of emulation."""

    tb_cache: TranslationCache | None = child(TranslationCache, default=None)


class Gic(Element, tag="gic"):
    """The interrupt controller of ARM."""

    version: str | None = attr(choice("2", "3", "host"), default=None)


class Capabilities(Element, tag="capabilities", drop_empty=True):
    """What a container's root may do."""

    policy: str | None = attr(choice("default", "allow", "deny"), default=None)
    audit_control: bool | None = setting(ON_OFF, name="state", default=None)
    audit_write: bool | None = setting(ON_OFF, name="state", default=None)
    block_suspend: bool | None = setting(ON_OFF, name="state", default=None)
    chown: bool | None = setting(ON_OFF, name="state", default=None)
    dac_override: bool | None = setting(ON_OFF, name="state", default=None)
    dac_read_search: bool | None = setting(ON_OFF, name="state", default=None)
    fowner: bool | None = setting(ON_OFF, name="state", default=None)
    fsetid: bool | None = setting(ON_OFF, name="state", default=None)
    ipc_lock: bool | None = setting(ON_OFF, name="state", default=None)
    ipc_owner: bool | None = setting(ON_OFF, name="state", default=None)
    kill: bool | None = setting(ON_OFF, name="state", default=None)
    lease: bool | None = setting(ON_OFF, name="state", default=None)
    linux_immutable: bool | None = setting(ON_OFF, name="state", default=None)
    mac_admin: bool | None = setting(ON_OFF, name="state", default=None)
    mac_override: bool | None = setting(ON_OFF, name="state", default=None)
    mknod: bool | None = setting(ON_OFF, name="state", default=None)
    net_admin: bool | None = setting(ON_OFF, name="state", default=None)
    net_bind_service: bool | None = setting(ON_OFF, name="state", default=None)
    net_broadcast: bool | None = setting(ON_OFF, name="state", default=None)
    net_raw: bool | None = setting(ON_OFF, name="state", default=None)
    setgid: bool | None = setting(ON_OFF, name="state", default=None)
    setfcap: bool | None = setting(ON_OFF, name="state", default=None)
    setpcap: bool | None = setting(ON_OFF, name="state", default=None)
    setuid: bool | None = setting(ON_OFF, name="state", default=None)
    sys_admin: bool | None = setting(ON_OFF, name="state", default=None)
    sys_boot: bool | None = setting(ON_OFF, name="state", default=None)
    sys_chroot: bool | None = setting(ON_OFF, name="state", default=None)
    sys_module: bool | None = setting(ON_OFF, name="state", default=None)
    sys_nice: bool | None = setting(ON_OFF, name="state", default=None)
    sys_pacct: bool | None = setting(ON_OFF, name="state", default=None)
    sys_ptrace: bool | None = setting(ON_OFF, name="state", default=None)
    sys_rawio: bool | None = setting(ON_OFF, name="state", default=None)
    sys_resource: bool | None = setting(ON_OFF, name="state", default=None)
    sys_time: bool | None = setting(ON_OFF, name="state", default=None)
    sys_tty_config: bool | None = setting(ON_OFF, name="state", default=None)
    syslog: bool | None = setting(ON_OFF, name="state", default=None)
    wake_alarm: bool | None = setting(ON_OFF, name="state", default=None)


class Features(Element, tag="features", drop_empty=True):
    """Everything; in the order of ``virDomainFeature``."""

    acpi: bool = flag(default=False)
    apic: Apic | None = child(Apic, default=None)
    pae: bool = flag(default=False)
    hap: bool | None = setting(ON_OFF, name="state", default=None, implied=True)
    viridian: bool = flag(default=False)
    privnet: bool = flag(default=False)
    hyperv: Hyperv | None = child(Hyperv, default=None)
    kvm: Kvm | None = child(Kvm, default=None)
    pvspinlock: bool | None = setting(ON_OFF, name="state", default=None, implied=True)
    capabilities: Capabilities | None = child(Capabilities, default=None)
    pmu: bool | None = setting(ON_OFF, name="state", default=None, implied=True)
    vmport: bool | None = setting(ON_OFF, name="state", default=None, implied=True)
    gic: Gic | None = child(Gic, default=None)
    smm: SystemManagement | None = child(SystemManagement, default=None)
    ioapic: str | None = setting(choice("qemu", "kvm"), name="driver", default=None, implied=None)
    hpt: HashPageTable | None = child(HashPageTable, default=None)
    vmcoreinfo: bool | None = setting(ON_OFF, name="state", default=None, implied=True)
    htm: bool | None = setting(ON_OFF, name="state", default=None)
    nested_hv: bool | None = setting(ON_OFF, tag="nested-hv", name="state", default=None)
    msrs: str | None = setting(choice("ignore", "fault"), name="unknown", default=None)
    ccf_assist: bool | None = setting(ON_OFF, tag="ccf-assist", name="state", default=None)
    xen: Xen | None = child(Xen, default=None)
    cfpc: str | None = setting(choice("broken", "workaround", "fixed"), name="value", default=None)
    sbbc: str | None = setting(choice("broken", "workaround", "fixed"), name="value", default=None)
    ibs: str | None = setting(
        choice("broken", "workaround", "fixed-ibs", "fixed-ccd", "fixed-na"), name="value", default=None
    )
    tcg: Tcg | None = child(Tcg, default=None)
