"""The options of the machine itself: memory, processors, boot, features, clock, power and what is written about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hostel.cli.virt_install import osinfo
from hostel.cli.virt_install.guest import Guest
from hostel.cli.virt_install.part import Part
from hostel.cli.virt_install.suboption import Hook, Kind, Refusal, Sub, SubOptions, number, split
from hostel.errors import UsageError

BOOT_DEVICES: Final = ("hd", "cdrom", "fd", "network")
_KIB: Final = 1024  # KiB in a MiB
_POLICIES: Final = ("force", "require", "optional", "disable", "forbid")
_CLEARED: Final = ("none", "clear", "hv-default")
_DEFAULT: Final = ("default", "host-model-only", "host-copy")
_HOST: Final = {"host": "host-model", "host-model": "host-model", "host-passthrough": "host-passthrough"}

MEMORY: Final = SubOptions(
    "--memory",
    (
        Sub("memory", "memory"),
        Sub("currentMemory", "currentMemory"),
        Sub("maxMemory", "maxMemory", aliases=("hotplugmemorymax",)),
        Sub("maxMemory.slots", "maxMemory/@slots", aliases=("hotplugmemoryslots",)),
        Sub("maxmemory"),
        Sub("hugepages", "memoryBacking/hugepages", Kind.FLAG),
    ),
    ("memory",),
)
VCPUS: Final = SubOptions(
    "--vcpus",
    (
        Sub("maxvcpus"),
        Sub("cpuset", comma=True),
        Sub("vcpus"),
        Sub("sockets", "cpu/topology/@sockets", Kind.NUMBER),
        Sub("dies", "cpu/topology/@dies", Kind.NUMBER),
        Sub("cores", "cpu/topology/@cores", Kind.NUMBER),
        Sub("threads", "cpu/topology/@threads", Kind.NUMBER),
        Sub("vcpu", "vcpu", Kind.NUMBER),
        Sub("vcpu.current", "vcpu/@current", Kind.NUMBER),
        Sub("vcpu.cpuset", "vcpu/@cpuset", comma=True),
        Sub("vcpu.placement", "vcpu/@placement", aliases=("placement",)),
        Sub("vcpus.vcpu[0-9]*.id", "vcpus/vcpu[{}]/@id", Kind.NUMBER),
        Sub("vcpus.vcpu[0-9]*.enabled", "vcpus/vcpu[{}]/@enabled", Kind.YES_NO),
        Sub("vcpus.vcpu[0-9]*.hotpluggable", "vcpus/vcpu[{}]/@hotpluggable", Kind.YES_NO),
        Sub("vcpus.vcpu[0-9]*.order", "vcpus/vcpu[{}]/@order", Kind.NUMBER),
    ),
    ("vcpu",),
    (("cpuset", "vcpu.cpuset"), ("vcpus", "vcpu")),
)
CPU: Final = SubOptions(
    "--cpu",
    (
        Sub("model"),
        Sub("model.fallback", "cpu/model/@fallback"),
        Sub("model.vendor_id", "cpu/model/@vendor_id"),
        Sub("vendor", "cpu/vendor"),
        Sub("mode", "cpu/@mode"),
        Sub("match", "cpu/@match"),
        Sub("check", "cpu/@check"),
        Sub("migratable", "cpu/@migratable", Kind.ON_OFF),
        Sub("topology.sockets", "cpu/topology/@sockets", Kind.NUMBER),
        Sub("topology.dies", "cpu/topology/@dies", Kind.NUMBER),
        Sub("topology.cores", "cpu/topology/@cores", Kind.NUMBER),
        Sub("topology.threads", "cpu/topology/@threads", Kind.NUMBER),
        Sub("cache.level", "cpu/cache/@level", Kind.NUMBER),
        Sub("cache.mode", "cpu/cache/@mode"),
        *(Sub(policy) for policy in _POLICIES),
    ),
    ("model",),
)
METADATA: Final = SubOptions(
    "--metadata",
    (
        Sub("name", "name", comma=True),
        Sub("title", "title", comma=True),
        Sub("uuid", "uuid"),
        Sub("genid", "genid"),
        Sub("genid_enable", "genid", Kind.FLAG),
        Sub("description", "description", comma=True),
        Sub("os_name"),
        Sub("os_full_id"),
    ),
)
BOOT: Final = SubOptions(
    "--boot",
    (
        *(Sub(device) for device in BOOT_DEVICES),
        Sub("os_type", "os/type"),
        Sub("arch", "os/type/@arch"),
        Sub("machine", "os/type/@machine"),
        Sub("domain_type", "@type"),
        Sub("emulator", "devices/emulator"),
        Sub("uefi"),
        Sub("loader", "os/loader"),
        Sub("loader.readonly", "os/loader/@readonly", Kind.YES_NO, aliases=("loader_ro",)),
        Sub("loader.type", "os/loader/@type", aliases=("loader_type",)),
        Sub("loader.secure", "os/loader/@secure", Kind.YES_NO, aliases=("loader_secure",)),
        Sub("nvram", "os/nvram", Kind.PATH),
        Sub("nvram.template", "os/nvram/@template", aliases=("nvram_template",)),
        Sub("boot[0-9]*.dev", "os/boot[{}]/@dev"),
        Sub("bootmenu.enable", "os/bootmenu/@enable", Kind.YES_NO, aliases=("menu",)),
        Sub("bootmenu.timeout", "os/bootmenu/@timeout", Kind.NUMBER),
        Sub("bios.useserial", "os/bios/@useserial", Kind.YES_NO, aliases=("useserial",)),
        Sub("bios.rebootTimeout", "os/bios/@rebootTimeout", Kind.NUMBER, aliases=("rebootTimeout",)),
        Sub("smbios.mode", "os/smbios/@mode", aliases=("smbios_mode",)),
        Sub("kernel", "os/kernel", Kind.PATH),
        Sub("initrd", "os/initrd", Kind.PATH),
        Sub("cmdline", "os/cmdline", comma=True, aliases=("extra_args", "kernel_args")),
        Sub("dtb", "os/dtb", Kind.PATH),
    ),
)
FEATURES: Final = SubOptions(
    "--features",
    (
        Sub("acpi", "features/acpi", Kind.FLAG),
        Sub("apic", "features/apic", Kind.FLAG),
        Sub("pae", "features/pae", Kind.FLAG),
        Sub("hap", "features/hap", Kind.FLAG),
        Sub("viridian", "features/viridian", Kind.FLAG),
        Sub("apic.eoi", "features/apic/@eoi", Kind.ON_OFF, aliases=("eoi",)),
        Sub("pmu.state", "features/pmu/@state", Kind.ON_OFF, aliases=("pmu",)),
        Sub("hyperv.reset.state", "features/hyperv/reset/@state", Kind.ON_OFF, aliases=("hyperv_reset",)),
        Sub("hyperv.vapic.state", "features/hyperv/vapic/@state", Kind.ON_OFF, aliases=("hyperv_vapic",)),
        Sub("hyperv.relaxed.state", "features/hyperv/relaxed/@state", Kind.ON_OFF, aliases=("hyperv_relaxed",)),
        Sub("hyperv.spinlocks.state", "features/hyperv/spinlocks/@state", Kind.ON_OFF, aliases=("hyperv_spinlocks",)),
        Sub(
            "hyperv.spinlocks.retries",
            "features/hyperv/spinlocks/@retries",
            Kind.NUMBER,
            aliases=("hyperv_spinlocks_retries",),
        ),
        Sub("hyperv.synic.state", "features/hyperv/synic/@state", Kind.ON_OFF, aliases=("hyperv_synic",)),
        Sub("vmport.state", "features/vmport/@state", Kind.ON_OFF, aliases=("vmport",)),
        Sub("kvm.hidden.state", "features/kvm/hidden/@state", Kind.ON_OFF, aliases=("kvm_hidden",)),
        Sub("kvm.hint-dedicated.state", "features/kvm/hint-dedicated/@state", Kind.ON_OFF),
        Sub("kvm.poll-control.state", "features/kvm/poll-control/@state", Kind.ON_OFF),
        Sub("pvspinlock.state", "features/pvspinlock/@state", Kind.ON_OFF),
        Sub("smm.state", "features/smm/@state", Kind.ON_OFF, aliases=("smm",)),
        Sub("vmcoreinfo.state", "features/vmcoreinfo/@state", Kind.ON_OFF, aliases=("vmcoreinfo",)),
        Sub("ioapic.driver", "features/ioapic/@driver"),
    ),
)
CLOCK: Final = SubOptions(
    "--clock",
    (
        Sub("pit_tickpolicy"),
        Sub("rtc_tickpolicy"),
        *(
            Sub(f"{timer}_present", kind=Kind.YES_NO)
            for timer in ("platform", "pit", "rtc", "hpet", "tsc", "kvmclock", "hypervclock")
        ),
        Sub("offset", "clock/@offset"),
        Sub("timer[0-9]*.name", "clock/timer[{}]/@name"),
        Sub("timer[0-9]*.present", "clock/timer[{}]/@present", Kind.YES_NO),
        Sub("timer[0-9]*.tickpolicy", "clock/timer[{}]/@tickpolicy"),
        Sub("timer[0-9]*.track", "clock/timer[{}]/@track"),
        Sub("timer[0-9]*.mode", "clock/timer[{}]/@mode"),
        Sub("timer[0-9]*.frequency", "clock/timer[{}]/@frequency", Kind.NUMBER),
        Sub("timer[0-9]*.catchup.threshold", "clock/timer[{}]/catchup/@threshold", Kind.NUMBER),
        Sub("timer[0-9]*.catchup.slew", "clock/timer[{}]/catchup/@slew", Kind.NUMBER),
        Sub("timer[0-9]*.catchup.limit", "clock/timer[{}]/catchup/@limit", Kind.NUMBER),
    ),
)
_IGNORED_TIMERS: Final = tuple(f"{name}_tickpolicy" for name in ("platform", "hpet", "tsc", "kvmclock", "hypervclock"))
PM: Final = SubOptions(
    "--pm",
    (
        Sub("suspend_to_mem.enabled", "pm/suspend-to-mem/@enabled", Kind.YES_NO, aliases=("suspend_to_mem",)),
        Sub("suspend_to_disk.enabled", "pm/suspend-to-disk/@enabled", Kind.YES_NO, aliases=("suspend_to_disk",)),
    ),
)
EVENTS: Final = SubOptions(
    "--events",
    tuple(Sub(name, name) for name in ("on_poweroff", "on_reboot", "on_crash", "on_lockfailure")),
)


def read_memory(guest: Guest, text: str) -> None:
    """``--memory``: the amount in MiB; ``memory`` is what the guest gets, ``maxmemory`` what it can get."""
    given = MEMORY.read(text)
    if "currentMemory" in given:
        if "maxmemory" in given:
            given["memory"] = given.pop("maxmemory")
    elif "maxmemory" in given:
        if "memory" in given:
            given["currentMemory"] = given["memory"]
        given["memory"] = given.pop("maxmemory")
    elif "memory" in given:
        given["currentMemory"] = given.pop("memory")
    hooks = {name: _amount_of(name) for name in ("memory", "currentMemory", "maxMemory")}
    MEMORY.apply(given, guest.domain, hooks, guest)
    current, most = guest.domain.get("currentMemory"), guest.domain.get("memory")
    if current is not None and (most is None or int(most) < int(current)):
        guest.domain.put("memory", current)


def _amount_of(name: str) -> Hook:
    def put(guest: Guest, part: Part, value: str | None) -> None:
        mebibytes = number("memory", value or "")
        if mebibytes <= 0:
            raise UsageError(f"memory: {value} MiB is no amount; write a number of MiB above 0")
        part.put(name, str(mebibytes * _KIB))

    return put


def read_vcpus(guest: Guest, text: str) -> None:
    """``--vcpus``: the number at boot, the most there can be, and how they are arranged."""
    given = VCPUS.read(text)
    if "vcpu.current" in given:
        if "maxvcpus" in given:
            given["vcpu"] = given.pop("maxvcpus")
    elif "maxvcpus" in given:
        if "vcpu" in given:
            given["vcpu.current"] = given["vcpu"]
        given["vcpu"] = given.pop("maxvcpus")
    VCPUS.apply(given, guest.domain, {"vcpu": _vcpu, "vcpu.cpuset": _cpuset}, guest)


def _vcpu(guest: Guest, part: Part, value: str | None) -> None:
    if value is not None and int(value) < 1:
        raise UsageError(f"vcpus={value}: a machine has at least 1 processor")
    current = part.get("vcpu/@current")
    if value is not None and current is not None and int(current) > int(value):
        part.put("vcpu/@current", value)
    part.put("vcpu", value)


def _cpuset(guest: Guest, part: Part, value: str | None) -> None:
    if value == "auto":
        part.put("vcpu/@placement", "auto")
    else:
        part.put("vcpu/@cpuset", value)


def read_cpu(guest: Guest, text: str) -> None:
    """``--cpu``: a model, or a way to have the host's; features as ``+name``, ``-name`` or by policy."""
    given = CPU.read(text)
    features: dict[str, list[str]] = {policy: [] for policy in _POLICIES}
    for name, value in split(text):
        if name in features and value:
            features[name].append(value)
    for name in [name for name, value in given.items() if value is None and len(name) > 1 and name[0] in "+-"]:
        del given[name]
        features["force" if name[0] == "+" else "disable"].append(name[1:])
    given = {name: value for name, value in given.items() if name not in features}
    CPU.apply(given, guest.domain, {"model": _model}, guest)
    for policy, names in features.items():
        for name in names:
            _add_feature(guest.domain, name, policy)


def _model(guest: Guest, part: Part, value: str | None) -> None:
    if value in _DEFAULT:
        return
    if value in _CLEARED:
        part.clear("cpu")
        part.put("cpu", None)
    elif value in _HOST:
        for path in ("cpu/model", "cpu/vendor", "cpu/@migratable", "cpu/@check", "cpu/feature"):
            part.clear(path)
        part.put("cpu/@mode", _HOST[value])
    else:
        part.put("cpu/@mode", "custom")
        part.default("cpu/@match", "exact")
        part.put("cpu/model", value)


def _add_feature(part: Part, name: str, policy: str) -> None:
    index = 0
    while (known := part.get(f"cpu/feature[{index}]/@name")) is not None and known != name:
        index += 1
    part.put(f"cpu/feature[{index}]/@policy", policy)
    part.put(f"cpu/feature[{index}]/@name", name)


def read_metadata(guest: Guest, text: str) -> None:
    """``--metadata``: names and descriptions."""
    METADATA.apply(METADATA.read(text), guest.domain, {"os_name": _os_name, "os_full_id": _os_identifier}, guest)


def _os_name(guest: Guest, part: Part, value: str | None) -> None:
    guest.set_system(osinfo.find(value or osinfo.GENERIC))


def _os_identifier(guest: Guest, part: Part, value: str | None) -> None:
    system = osinfo.find_identifier(value or "")
    if system is None:
        raise UsageError(f"Unknown libosinfo ID '{value}'")
    guest.set_system(system)


def read_boot(guest: Guest, text: str) -> None:
    """``--boot``: devices in the order they are tried, or a kernel, and how the firmware behaves."""
    given = BOOT.read(text)
    devices = [name for name in given if name in BOOT_DEVICES]
    for name in devices:
        del given[name]
    if "uefi" in given:
        del given["uefi"]
        if not guest.host.is_qemu:
            raise Refusal("Libvirt version does not support UEFI.")
        guest.domain.put("os/@firmware", "efi")
    if devices:
        set_boot_devices(guest, devices)
    BOOT.apply(given, guest.domain)


def boot_devices(guest: Guest) -> list[str]:
    """The kinds of device that are tried, in order."""
    found: list[str] = []
    while (device := guest.domain.get(f"os/boot[{len(found)}]/@dev")) is not None:
        found.append(device)
    return found


def set_boot_devices(guest: Guest, devices: list[str]) -> None:
    """Replace the kinds of device that are tried."""
    guest.domain.clear("os/boot")
    for index, device in enumerate(devices):
        guest.domain.put(f"os/boot[{index}]/@dev", device)


def read_clock(guest: Guest, text: str) -> None:
    """``--clock``: the offset of the clock, and its timers."""
    given = {name: value for name, value in CLOCK.read(text).items() if name not in _IGNORED_TIMERS}
    hooks = {sub.name: _timer_of(*sub.name.split("_")) for sub in CLOCK.subs if not sub.path}
    CLOCK.apply(given, guest.domain, hooks, guest)


def _timer_of(timer: str, attribute: str) -> Hook:
    def put(guest: Guest, part: Part, value: str | None) -> None:
        add_timer(part, timer, attribute, value)

    return put


def add_timer(part: Part, timer: str, attribute: str, value: str | None) -> None:
    """Set an attribute of the timer of a name, which is added where it is missing."""
    index = 0
    while (known := part.get(f"clock/timer[{index}]/@name")) is not None and known != timer:
        index += 1
    if known is None:
        part.put(f"clock/timer[{index}]/@name", timer)
    part.put(f"clock/timer[{index}]/@{attribute}", value)


def _plain(options: SubOptions) -> Callable[[Guest, str], None]:
    def read(guest: Guest, text: str) -> None:
        options.apply(options.read(text), guest.domain)

    return read


read_features = _plain(FEATURES)
read_pm = _plain(PM)
read_events = _plain(EVENTS)


def spread_vcpus(guest: Guest, count: int) -> None:
    """Make the number of processors and their arrangement agree; ``count`` is for a guest that has neither.

    Raises:
        UsageError: they do not.
    """
    domain = guest.domain
    paths = {name: f"cpu/topology/@{name}" for name in ("sockets", "dies", "cores", "threads")}

    def total() -> int:
        product = 1
        for path in paths.values():
            product *= int(domain.get(path) or 1) or 1
        return product

    has_topology = domain.has("cpu/topology")
    if domain.get("vcpu") is None:
        domain.put("vcpu", str(total() if has_topology else count))
    if not has_topology:
        return
    vcpus = int(domain.get("vcpu") or 1)
    for name in ("cores", "sockets", "dies", "threads"):
        if int(domain.get(paths[name]) or 0) < 1:
            domain.put(paths[name], str(1 if name == "dies" else vcpus // total()))
    if total() != vcpus:
        parts = " * ".join(f"{name}={domain.get(path)}" for name, path in paths.items())
        raise UsageError(f"Total CPUs implied by topology ({parts} == {total()}) does not match vCPU count {vcpus}")
