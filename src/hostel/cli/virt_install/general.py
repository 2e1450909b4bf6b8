"""The options of the machine itself: memory, processors, boot, features, clock, power and what is written about it."""

from __future__ import annotations

import shlex
from typing import Final

from hostel.cli.virt_install import osinfo
from hostel.cli.virt_install.guest import Guest
from hostel.cli.virt_install.option import NoneMeans, Option, plain
from hostel.cli.virt_install.part import Part
from hostel.cli.virt_install.suboption import (
    FLAG,
    NUMBER,
    ON_OFF,
    PATH,
    TEXT,
    YES_NO,
    Given,
    Hook,
    Kind,
    Sub,
    SubOptions,
    at,
    decimal,
    split,
    within,
)
from hostel.errors import UsageError

BOOT_DEVICES: Final = ("hd", "cdrom", "fd", "network")
_KIB: Final = 1024  # KiB in a MiB
_POLICIES: Final = ("force", "require", "optional", "disable", "forbid")
_CLEARED: Final = ("none", "clear", "hv-default")
_NAMED: Final = ("host-model-only", "host-copy")  # the model that the host's processor is called
_HOST: Final = {"host": "host-model", "host-model": "host-model", "host-passthrough": "host-passthrough"}

MEMORY: Final = SubOptions(
    "--memory",
    (
        Sub("memory", "memory"),
        Sub("currentMemory", "currentMemory"),
        Sub("maxMemory", "maxMemory", aliases=("hotplugmemorymax",)),
        Sub("maxMemory.slots", "maxMemory/@slots", NUMBER, aliases=("hotplugmemoryslots",)),
        Sub("maxmemory"),
        Sub("hugepages", "memoryBacking/hugepages", FLAG),
    ),
    ("memory",),
)
VCPUS: Final = SubOptions(
    "--vcpus",
    (
        Sub("maxvcpus"),
        Sub("cpuset", comma=True),
        Sub("vcpus"),
        Sub("sockets", "cpu/topology/@sockets", NUMBER),
        Sub("dies", "cpu/topology/@dies", NUMBER),
        Sub("cores", "cpu/topology/@cores", NUMBER),
        Sub("threads", "cpu/topology/@threads", NUMBER),
        Sub("vcpu", "vcpu"),
        Sub("vcpu.current", "vcpu/@current", NUMBER),
        Sub("vcpu.cpuset", "vcpu/@cpuset", comma=True),
        Sub("vcpu.placement", "vcpu/@placement", aliases=("placement",)),
        Sub("vcpus.vcpu[0-9]*.id", "vcpus/vcpu[{}]/@id", NUMBER),
        Sub("vcpus.vcpu[0-9]*.enabled", "vcpus/vcpu[{}]/@enabled", YES_NO),
        Sub("vcpus.vcpu[0-9]*.hotpluggable", "vcpus/vcpu[{}]/@hotpluggable", YES_NO),
        Sub("vcpus.vcpu[0-9]*.order", "vcpus/vcpu[{}]/@order", NUMBER),
    ),
    ("vcpu",),
    (("cpuset", "vcpu.cpuset"), ("vcpus", "vcpu")),
)
_CELL: Final = "cpu/numa/cell[{}]"
_INTERCONNECTS: Final = ("initiator", "target", "cache", "type", "value", "unit")


def _cell(name: str, kind: Kind = TEXT, *, comma: bool = False, is_old: bool = True) -> Sub:
    """A row of a NUMA cell; its short name has no ``numa.`` before it."""
    row = at(f"numa.cell[0-9]*.{name}", kind, comma=comma, inside="cpu")
    return row._replace(aliases=(row.name.removeprefix("numa."),)) if is_old else row


CPU: Final = SubOptions(
    "--cpu",
    (
        Sub("secure", kind=ON_OFF),
        Sub("model", "cpu/model"),
        at("model.fallback", inside="cpu"),
        at("model.vendor_id", inside="cpu"),
        *within("cpu", "vendor"),
        at("mode", inside="cpu"),
        at("match", inside="cpu"),
        at("check", inside="cpu"),
        at("migratable", ON_OFF, inside="cpu"),
        *(at(f"topology.{name}", NUMBER, inside="cpu") for name in ("sockets", "dies", "cores", "threads")),
        at("cache.level", NUMBER, inside="cpu"),
        at("cache.mode", inside="cpu"),
        *(Sub(policy) for policy in _POLICIES),
        _cell("id", NUMBER),
        _cell("cpus", comma=True),
        _cell("memory", NUMBER),
        _cell("unit", is_old=False),
        _cell("memAccess", is_old=False),
        _cell("discard", YES_NO, is_old=False),
        _cell("distances.sibling[0-9]*.id", NUMBER),
        _cell("distances.sibling[0-9]*.value", NUMBER),
        *(
            _cell(f"cache[0-9]*.{name}", kind, is_old=False)
            for name, kind in (
                ("level", NUMBER),
                ("associativity", TEXT),
                ("policy", TEXT),
                ("size.value", NUMBER),
                ("size.unit", TEXT),
                ("line.value", NUMBER),
                ("line.unit", TEXT),
            )
        ),
        *(
            at(f"numa.interconnects.{what}[0-9]*.{name}", TEXT if name in ("type", "unit") else NUMBER, inside="cpu")
            for what in ("latency", "bandwidth")
            for name in _INTERCONNECTS
        ),
    ),
    ("model",),
    owner="cpu",
)
METADATA: Final = SubOptions(
    "--metadata",
    (
        Sub("name", "name", comma=True),
        Sub("title", "title", comma=True),
        Sub("uuid", "uuid"),
        Sub("genid", "genid"),
        Sub("genid_enable", "genid", FLAG),
        Sub("description", "description", comma=True),
        Sub("os_name"),
        Sub("os_full_id"),
    ),
)
BOOT: Final = SubOptions(
    "--boot",
    (
        *(Sub(device) for device in BOOT_DEVICES),
        Sub("refresh-machine-type", kind=FLAG),
        Sub("os_type", "os/type"),
        Sub("arch", "os/type/@arch"),
        Sub("machine", "os/type/@machine"),
        *within("", "bootloader", "bootloader_args"),
        Sub("domain_type", "@type"),
        Sub("emulator", "devices/emulator"),
        Sub("uefi"),
        *within("os", "loader"),
        at("loader.readonly", YES_NO, "loader_ro", inside="os"),
        at("loader.type", TEXT, "loader_type", inside="os"),
        at("loader.secure", YES_NO, "loader_secure", inside="os"),
        at("firmware", inside="os"),
        at("firmware.feature[0-9]*.enabled", YES_NO, inside="os"),
        at("firmware.feature[0-9]*.name", inside="os"),
        *within("os", "nvram", kind=PATH),
        at("nvram.template", TEXT, "nvram_template", inside="os"),
        at("boot[0-9]*.dev", inside="os"),
        at("bootmenu.enable", YES_NO, "menu", inside="os"),
        at("bootmenu.timeout", NUMBER, inside="os"),
        at("bios.useserial", YES_NO, "useserial", inside="os"),
        at("bios.rebootTimeout", NUMBER, "rebootTimeout", inside="os"),
        at("smbios.mode", TEXT, "smbios_mode", inside="os"),
        *within("os", "kernel", "initrd", kind=PATH),
        Sub("cmdline", "os/cmdline", comma=True, aliases=("extra_args", "kernel_args")),
        *within("os", "dtb", kind=PATH),
        Sub("acpi.table", "os/acpi/table", PATH),
        Sub("acpi.table.type", "os/acpi/table/@type"),
        *within("os", "init"),
        Sub("initargs"),
        Sub("initarg[0-9]*", "os/initarg[{}]"),
        Sub("initenv[0-9]*", "os/initenv[{}]"),
        at("initenv[0-9]*.name", inside="os"),
        *within("os", "initdir", "inituser", "initgroup"),
    ),
    owner="os",
)


def _feature(name: str, *others: str) -> Sub:
    """A row for the state of a feature."""
    return at(f"{name}.state", ON_OFF, *others, inside="features")


FEATURES: Final = SubOptions(
    "--features",
    (
        *within("features", "acpi", "apic", "pae", "privnet", "hap", "viridian", kind=FLAG),
        at("apic.eoi", ON_OFF, "eoi", inside="features"),
        _feature("pmu", "pmu"),
        *(_feature(f"hyperv.{name}", f"hyperv_{name}") for name in ("reset", "vapic", "relaxed", "spinlocks")),
        at("hyperv.spinlocks.retries", NUMBER, "hyperv_spinlocks_retries", inside="features"),
        _feature("hyperv.synic", "hyperv_synic"),
        _feature("vmport", "vmport"),
        _feature("kvm.hidden", "kvm_hidden"),
        _feature("kvm.hint-dedicated"),
        _feature("kvm.poll-control"),
        _feature("pvspinlock"),
        at("gic.version", TEXT, "gic_version", inside="features"),
        _feature("smm", "smm"),
        _feature("vmcoreinfo", "vmcoreinfo"),
        at("ioapic.driver", inside="features"),
    ),
    owner="features",
)
CLOCK: Final = SubOptions(
    "--clock",
    (
        Sub("pit_tickpolicy"),
        Sub("rtc_tickpolicy"),
        *(
            Sub(f"{timer}_present", kind=YES_NO)
            for timer in ("platform", "pit", "rtc", "hpet", "tsc", "kvmclock", "hypervclock")
        ),
        at("offset", inside="clock"),
        *(
            at(f"timer[0-9]*.{name}", kind, inside="clock")
            for name, kind in (
                ("name", TEXT),
                ("present", YES_NO),
                ("tickpolicy", TEXT),
                ("track", TEXT),
                ("mode", TEXT),
                ("frequency", NUMBER),
                ("catchup.threshold", NUMBER),
                ("catchup.slew", NUMBER),
                ("catchup.limit", NUMBER),
            )
        ),
    ),
    owner="clock",
)
_IGNORED_TIMERS: Final = tuple(f"{name}_tickpolicy" for name in ("platform", "hpet", "tsc", "kvmclock", "hypervclock"))
PM: Final = SubOptions(
    "--pm",
    (
        Sub("suspend_to_mem.enabled", "pm/suspend-to-mem/@enabled", YES_NO, aliases=("suspend_to_mem",)),
        Sub("suspend_to_disk.enabled", "pm/suspend-to-disk/@enabled", YES_NO, aliases=("suspend_to_disk",)),
    ),
    owner="pm",
)
EVENTS: Final = SubOptions("--events", within("", "on_poweroff", "on_reboot", "on_crash", "on_lockfailure"))


def _fill_memory(guest: Guest, part: Part, given: Given) -> None:
    """The amount in MiB; ``memory`` is what the guest gets, ``maxmemory`` what it can get."""
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
    if guest.domain.was_put("currentMemory") and current is not None and (most is None or int(most) < int(current)):
        guest.domain.put("memory", current)


def _amount_of(name: str) -> Hook:
    def put(guest: Guest, part: Part, value: str | None) -> None:
        mebibytes = decimal("memory", value)
        if mebibytes <= 0:
            raise UsageError(f"memory: {value} MiB is no amount; write a number of MiB above 0")
        part.put(name, str(mebibytes * _KIB))

    return put


def _fill_vcpus(guest: Guest, part: Part, given: Given) -> None:
    """The number at boot, the most there can be, and how they are arranged."""
    if "vcpu.current" in given:
        if "maxvcpus" in given:
            given["vcpu"] = given.pop("maxvcpus")
    elif "maxvcpus" in given:
        if "vcpu" in given:
            given["vcpu.current"] = given["vcpu"]
        given["vcpu"] = given.pop("maxvcpus")
    VCPUS.apply(given, guest.domain, {"vcpu": _vcpu, "vcpu.cpuset": _cpuset}, guest)


def _vcpu(guest: Guest, part: Part, value: str | None) -> None:
    if value is not None and decimal("vcpu", value) < 1:
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


class _Cpu(Option):
    """Features stand among the options: ``+name``, ``-name``, or by policy, as often as one likes."""

    def given(self, text: str) -> Given:
        given = self.table.read(text)
        found: list[tuple[str, str]] = []
        for name, value in split(text):
            if name in _POLICIES and value:
                found.append((name, value))
                given.pop(name, None)
        for name in [name for name, value in given.items() if value is None and len(name) > 1 and name[0] in "+-"]:
            del given[name]
            found.append(("force" if name[0] == "+" else "disable", name[1:]))
        given.update(
            {policy: "\n".join(of) for policy in _POLICIES if (of := [name for kind, name in found if kind == policy])}
        )
        return given


def _fill_cpu(guest: Guest, part: Part, given: Given) -> None:
    """A model, or a way to have the host's; features by policy."""
    hooks: dict[str, Hook] = {
        "secure": _secure,
        "model": _model,
        **{policy: _features_of(policy) for policy in _POLICIES},
    }
    CPU.apply(given, guest.domain, hooks, guest)


def _secure(guest: Guest, part: Part, value: str | None) -> None:
    guest.secures_cpu = value != "off"


def _features_of(policy: str) -> Hook:
    def put(guest: Guest, part: Part, value: str | None) -> None:
        for name in (value or "").split("\n"):
            _add_feature(part, name, policy)

    return put


def _model(guest: Guest, part: Part, value: str | None) -> None:
    if value == "default":
        value = guest.capabilities().cpu_default
    if value == "host-copy":
        guest.warnings.append("CPU mode=host-copy no longer supported, using mode=host-model-only")
    if value in _NAMED:
        value = guest.host.cpu_model
        if value is None:
            return
        part.clear("cpu")
    if value in _CLEARED:
        part.clear("cpu")
        guest.without.add("cpu")
    elif value in _HOST:
        for path in ("cpu/model", "cpu/vendor", "cpu/@migratable", "cpu/@check", "cpu/feature"):
            part.clear(path)
        part.put("cpu/@mode", _HOST[value])
    else:
        part.put("cpu/@migratable", None)
        if value is not None:
            part.put("cpu/@mode", "custom")
            part.default("cpu/@match", "exact")
            for name in guest.security_features() if guest.is_x86 else ():
                _add_feature(part, name, "require") if guest.secures_cpu else _drop_feature(part, name)
        part.put("cpu/model", value)


def set_model(guest: Guest, value: str) -> None:
    """Give the machine a model of processor, or a way to have the host's."""
    _model(guest, guest.domain, value)


def _drop_feature(part: Part, name: str) -> None:
    index = 0
    while (known := part.get(f"cpu/feature[{index}]/@name")) is not None:
        if known == name and part.get(f"cpu/feature[{index}]/@policy") == "require":
            part.clear(f"cpu/feature[{index}]")
            return
        index += 1


def _add_feature(part: Part, name: str, policy: str) -> None:
    index = 0
    while (known := part.get(f"cpu/feature[{index}]/@name")) is not None and known != name:
        index += 1
    part.put(f"cpu/feature[{index}]/@policy", policy)
    part.put(f"cpu/feature[{index}]/@name", name)


def _fill_metadata(guest: Guest, part: Part, given: Given) -> None:
    METADATA.apply(given, part, {"os_name": _os_name, "os_full_id": _os_identifier}, guest)


def _os_name(guest: Guest, part: Part, value: str | None) -> None:
    system = osinfo.find(value or "")
    if part.base is not None and not system.is_known:  # which says in vain what a machine that exists runs
        raise UsageError(f"Unknown OS name '{value or ''}'. See `--osinfo list` for valid values.")
    guest.set_system(system)


def _os_identifier(guest: Guest, part: Part, value: str | None) -> None:
    system = osinfo.find_identifier(value or "")
    if system is None:
        raise UsageError(f"Unknown libosinfo ID '{value}'")
    guest.set_system(system)


def _fill_boot(guest: Guest, part: Part, given: Given) -> None:
    """Devices in the order they are tried, or a kernel, and how the firmware behaves."""
    devices = [name for name in given if name in BOOT_DEVICES]
    for name in devices:
        del given[name]
    if "uefi" in given:
        given["uefi"] = "yes"  # it is written without a value
    if devices:
        set_boot_devices(guest, devices)
    hooks: dict[str, Hook] = {"uefi": _uefi, "initargs": _initargs, "refresh-machine-type": _refresh_machine}
    BOOT.apply(given, part, hooks, guest)


def _uefi(guest: Guest, part: Part, value: str | None) -> None:
    """A machine that exists is known, so that its firmware can be arranged at once."""
    if part.base is None:
        guest.wants_uefi = True
    else:
        enable_uefi(guest)


def enable_uefi(guest: Guest) -> None:
    """Have the machine boot with UEFI: firmware that the hypervisor chooses, or a file that it names.

    Raises:
        UsageError: it has none.
    """
    domain, found = guest.domain, guest.capabilities()
    if "efi" in found.values("os", "firmware"):
        domain.put("os/@firmware", "efi")
        return
    path = found.uefi(domain.get("os/type/@arch") or "")
    domain.put("os/loader/@readonly", "yes")
    domain.put("os/loader/@type", "pflash")
    domain.put("os/loader", path)
    if guest.is_x86 and "secboot" in path:
        domain.put("features/smm/@state", "on")
        domain.put("os/loader/@secure", "yes")
        domain.put("os/type/@machine", domain.get("os/type/@machine") if guest.is_q35 else "q35")


def _initargs(guest: Guest, part: Part, value: str | None) -> None:
    part.clear("os/initarg")
    try:
        words = shlex.split(value or "")
    except ValueError as error:
        raise UsageError(f"initargs={value}: {error}") from None
    for index, word in enumerate(words):
        part.put(f"os/initarg[{index}]", word)


def _refresh_machine(guest: Guest, part: Part, value: str | None) -> None:
    """Take the newest version of the machine's type."""
    if value is not None:
        kind = (part.get("os/type"), part.get("os/type/@arch"), part.get("@type"))
        part.put("os/type/@machine", guest.host.newest(part.get("os/type/@machine") or "", *kind))


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


def _fill_clock(guest: Guest, part: Part, given: Given) -> None:
    given = {name: value for name, value in given.items() if name not in _IGNORED_TIMERS}
    hooks = {sub.name: _timer_of(*sub.name.split("_")) for sub in CLOCK.subs if not sub.path}
    CLOCK.apply(given, part, hooks, guest)


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
        if int(domain.get("vcpu/@current") or 0) > int(domain.get("vcpu") or 1):
            domain.put("vcpu/@current", domain.get("vcpu"))
    if not has_topology:
        return
    vcpus = int(domain.get("vcpu") or 1)
    for name in ("cores", "sockets", "dies", "threads"):
        if int(domain.get(paths[name]) or 0) < 1:
            domain.put(paths[name], str(1 if name == "dies" else vcpus // total()))
    if total() != vcpus:
        parts = " * ".join(f"{name}={domain.get(path)}" for name, path in paths.items())
        raise UsageError(f"Total CPUs implied by topology ({parts} == {total()}) does not match vCPU count {vcpus}")


OPTIONS: Final = (
    Option(MEMORY, _fill_memory),
    _Cpu(CPU, _fill_cpu, NoneMeans.VALUE),
    Option(VCPUS, _fill_vcpus),
    Option(METADATA, _fill_metadata),
    Option(BOOT, _fill_boot),
    Option(FEATURES, plain(FEATURES)),
    Option(CLOCK, _fill_clock),
    Option(PM, plain(PM)),
    Option(EVENTS, plain(EVENTS)),
)
