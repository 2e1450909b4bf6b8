"""Processors, memory, features and what else of a machine the rules refuse."""

from __future__ import annotations

import pytest

from hostel.errors import ErrorCode
from hostel.model.domain.platform import Platform
from hostel.model.domain.rules.start import check_start
from hostel.model.domain.validate import validate
from support.domain import QEMU
from support.refused import disk, document
from support.rules import (
    BARE,
    DETAIL,
    INTERNAL,
    POWER,
    SPICE,
    XML,
    Refused,
    card,
    check_not_started,
    check_refused,
    on,
    read,
)

ARM = Platform(is_qemu=True, arch="aarch64", machine="virt", features=frozenset({"gpex-pcihost", "virtio-mmio"}))
CELL = "<cpu><numa><cell id='0' cpus='0' memory='64' unit='MiB'/></numa></cpu>"
ROOM = "<maxMemory slots='1' unit='GiB'>1</maxMemory>"
CACHE = (
    "<cache level='{}' associativity='none' policy='none'>"
    "<size value='1' unit='KiB'/><line value='8' unit='B'/></cache>"
)
PAGES = "<memoryBacking><hugepages><page size='2' unit='MiB'{}/>{}</hugepages></memoryBacking>"


def dimm(more: str = "", *, size: int = 128, model: str = "dimm") -> str:
    return f"<memory model='{model}'><target><size unit='MiB'>{size}</size>{more}</target></memory>"


def roomy(devices: str) -> str:
    return document(devices, head=ROOM, body=CELL)


def linked(words: str) -> str:
    links = f"<interconnects><latency {words} type='read' value='5'/></interconnects>"
    return document(body=CELL.replace("</numa>", f"{links}</numa>"))


PIN = "<iothreadpin iothread='1' cpuset='0'/>"
REFUSED: dict[str, Refused] = {
    "policy of a feature that is none": Refused(
        document(body="<cpu mode='custom'><model>qemu64</model><feature policy='frob' name='x'/></cpu>"),
        "/domain/cpu/feature/@policy", "Invalid CPU feature policy. Write force",
    ),
    "firmware that waits too long": Refused(
        document(os="<bootmenu enable='yes' timeout='65536'/>"), "/domain/os/bootmenu/@timeout",
        "invalid value for boot menu timeout, must be in range [0,65535]",
    ),
    "processor that is pinned twice": Refused(
        document(body="<cputune><vcpupin vcpu='0' cpuset='0'/><vcpupin vcpu='0' cpuset='0'/></cputune>"),
        "/domain/cputune/vcpupin", "duplicate vcpupin for vcpu '0'", INTERNAL, only_given=True,
    ),
    "I/O thread that is pinned twice": Refused(
        document(body=f"<iothreads>1</iothreads><cputune>{2 * PIN}</cputune>"),
        "/domain/cputune/iothreadpin", "duplicate iothreadpin for same iothread '1'", INTERNAL, only_given=True,
    ),
    "I/O thread that is pinned and is not there": Refused(
        document(body=f"<cputune>{2 * PIN}</cputune>"), "/domain/cputune/iothreadpin/@iothread",
        "Cannot find 'iothread' : 1", only_given=True,
    ),
    "name of traffic that is none": Refused(
        document(body="<resource><fibrechannel appid='ä'/></resource>"), "/domain/resource/fibrechannel/@appid",
        "Fibre Channel 'appid' is not a printable string", XML,
    ),
    "name of traffic that is too long": Refused(
        document(body=f"<resource><fibrechannel appid='{129 * 'a'}'/></resource>"),
        "/domain/resource/fibrechannel/@appid", "string length must be between [1, 128]", ErrorCode.INVALID_ARG,
    ),
    "slot of memory that is not said": Refused(
        roomy(dimm().replace("</memory>", "<address type='dimm'/></memory>")),
        "/domain/devices/memory/address", "Missing required attribute 'slot' in element 'address'", XML,
    ),
    "processors that are none": Refused(
        document(body="<cputune><emulatorpin cpuset='^3'/></cputune>"), "/domain/cputune/emulatorpin/@cpuset",
        "Invalid value for attribute 'cpuset' in element 'emulatorpin': '^3'. Write at least one number", XML,
    ),
    "processor that is not there": Refused(
        document(head="<vcpus><vcpu id='9' enabled='yes'/></vcpus>"), "/domain/vcpus/vcpu[1]/@id",
        "vcpu id '9' is out of range of maximum vcpu count", XML,
    ),
    "migratable without the host's": Refused(
        document(body="<cpu mode='custom' migratable='on'><model>qemu64</model></cpu>"), "/domain/cpu/@migratable",
        "Attribute migratable is only allowed for 'host-passthrough' / 'maximum' CPU mode",
    ),
    "cache of a high level": Refused(
        document(body=CELL.replace("/></numa>", f">{CACHE.format(4)}</cell></numa>")),
        "/domain/cpu/numa/cell[1]/cache[1]/@level", "Ain't nobody heard of that much cache level", XML,
    ),
    "cache twice": Refused(
        document(body=CELL.replace("/></numa>", f">{CACHE.format(1) * 2}</cell></numa>")),
        "/domain/cpu/numa/cell[1]/cache[2]/@level", "Cache level '1' already defined", XML,
    ),
    "link to no node": Refused(
        linked("initiator='0' target='3'"), "/domain/cpu/numa/interconnects/latency/@target",
        "'target' refers to a non-existent NUMA node", XML,
    ),
    "link to no cache": Refused(
        linked("initiator='0' target='0' cache='2'"), "/domain/cpu/numa/interconnects/latency/@cache",
        "'cache' refers to a non-existent NUMA node cache", XML,
    ),
    "spinlocks of no number": Refused(
        document(body="<features><hyperv><spinlocks state='on'/></hyperv></features>"),
        "/domain/features/hyperv/spinlocks/@retries",
        "Missing required attribute 'retries' in element 'spinlocks'", XML,
    ),
    "vendor of no name": Refused(
        document(body="<features><hyperv><vendor_id state='on'/></hyperv></features>"),
        "/domain/features/hyperv/vendor_id/@value", "missing 'value' attribute for HyperV feature 'vendor_id'", XML,
    ),
    "ring of no size": Refused(
        document(body="<features><kvm><dirty-ring state='on'/></kvm></features>"),
        "/domain/features/kvm/dirty-ring/@size", "Missing required attribute 'size' in element 'dirty-ring'", XML,
    ),
    "timezone that is not said": Refused(
        document(body="<clock offset='timezone'/>"), "/domain/clock/@timezone",
        "missing 'timezone' attribute for clock with offset='timezone'", INTERNAL,
    ),
    "ring of an odd size": Refused(
        document(body="<features><kvm><dirty-ring state='on' size='3000'/></kvm></features>"),
        "/domain/features/kvm/dirty-ring/@size", "dirty ring must be power of 2 and ranges [1024, 65536]", XML,
    ),
    "time that is not said": Refused(
        document(body="<clock offset='absolute'/>"), "/domain/clock/@start",
        "missing 'start' attribute for clock with offset='absolute'", INTERNAL,
    ),
    "real time without a priority": Refused(
        document(body="<cputune><emulatorsched scheduler='fifo'/></cputune>"),
        "/domain/cputune/emulatorsched/@priority",
        "Missing required attribute 'priority' in element 'emulatorsched'", XML,
    ),
    "vendor of a bad length": Refused(
        document(body="<cpu mode='custom'><model vendor_id='short'>qemu64</model></cpu>"),
        "/domain/cpu/model/@vendor_id", "vendor_id must be exactly 12 characters long", XML,
    ),
    "vendor without a model": Refused(
        document(body="<cpu mode='host-model'><vendor>Intel</vendor></cpu>"), "/domain/cpu/vendor",
        "CPU vendor specified without CPU model", XML,
    ),
    "pool of more threads than its most": Refused(
        document(body="<defaultiothread thread_pool_min='8' thread_pool_max='4'/>"),
        "/domain/defaultiothread/@thread_pool_min",
        "thread_pool_min must be smaller or equal to thread_pool_max",
    ),
    "pool of no thread": Refused(
        document(body="<iothreadids><iothread id='1' thread_pool_max='0'/></iothreadids>"),
        "/domain/iothreadids/iothread[1]/@thread_pool_max", "thread_pool_max must be a positive integer",
    ),
    "container without its root": Refused(
        document(
            body="<idmap><uid start='1' target='1000' count='1'/><gid start='0' target='1000' count='1'/></idmap>"
        ),
        "/domain/idmap", "You must map the root user of container",
    ),
    "place of SGX memory": Refused(
        roomy(dimm(model="sgx-epc").replace("</memory>", "<address type='dimm' slot='0'/></memory>")),
        "/domain/devices/memory[1]/address", "memory device address is not supported for model 'sgx-epc'",
    ),
    "users without groups": Refused(
        document(body="<idmap><uid start='0' target='1000' count='1'/></idmap>"), "/domain/idmap",
        "uid and gid should be mapped both",
    ),
    "menu of no time": Refused(
        document(os="<bootmenu enable='yes' timeout='x'/>"), "/domain/os/bootmenu/@timeout",
        "Invalid value for attribute 'timeout' in element 'bootmenu': 'x'. Expected non-negative integer value", XML,
    ),
    "module without room": Refused(
        document(dimm("<node>0</node>"), body=CELL), "/domain/devices/memory[1]",
        "cannot use/hotplug a memory device when domain 'maxMemory' is not defined",
    ),
    "module of no cell": Refused(
        roomy(dimm("<node>1</node>")), "/domain/devices/memory[1]/target/node",
        "can't add memory backend for guest node '1' as the guest has only '1' NUMA nodes configured", DETAIL,
    ),
    "more modules than slots": Refused(
        roomy(dimm("<node>0</node>") * 2), "/domain/devices/memory[2]",
        "no free memory device slots available",
    ),
    "modules beyond the room": Refused(
        roomy(dimm("<node>0</node>", size=4096)), "/domain/maxMemory",
        "maximum memory size must be equal or greater than the actual memory size", XML,
    ),
    "room without cells": Refused(
        document(head=ROOM), "/domain/cpu/numa",
        "At least one numa node has to be configured when enabling memory hotplug",
    ),
    "nvdimm without a path": Refused(
        roomy(dimm("<node>0</node>", model="nvdimm")), "/domain/devices/memory[1]/source/path",
        "path is required for model 'nvdimm'", DETAIL,
    ),
    "pages of no cell": Refused(
        document(body=PAGES.format(" nodeset='3'", "") + CELL),
        "/domain/memoryBacking/hugepages/page[1]/@nodeset", "hugepages: node 3 not found", DETAIL,
    ),
    "two sizes": Refused(
        document(body=PAGES.format("", "<page size='1' unit='GiB'/>")), "/domain/memoryBacking/hugepages/page[2]",
        "two master hugepages detected", DETAIL,
    ),
    "pages of anonymous memory": Refused(
        document(body=PAGES.format("", "").replace("</memoryB", "<source type='anonymous'/></memoryB")),
        "/domain/memoryBacking/source", "hugepages are not allowed with anonymous memory source",
    ),
    "memnode without cells": Refused(
        document(body="<numatune><memnode cellid='0' mode='strict' nodeset='0'/></numatune>"),
        "/domain/numatune/memnode[1]", "Element 'memnode' is invalid without any guest NUMA cells", XML,
    ),
    "shares": Refused(
        document(body="<cputune><period>1</period></cputune>"), "/domain/cputune/period",
        "Value of cputune 'period' must be in range [1000, 1000000]",
    ),
    "scheduler of no thread": Refused(
        document(body="<cputune><iothreadsched iothreads='3' scheduler='rr' priority='1'/></cputune>"),
        "/domain/cputune/iothreadsched/@iothreads", "Cannot find 'iothread' : 3",
    ),
    "shares of caches": Refused(
        document(body="<cputune><cachetune vcpus='0'><cache id='0' level='3' type='both' size='3' unit='MiB'/>"
                      "<cache id='0' level='3' type='code' size='3' unit='MiB'/></cachetune></cputune>"),
        "/domain/cputune/cachetune[1]/cache", "Colliding cache allocations", XML,
    ),
    "label twice": Refused(
        document(body="<seclabel type='dynamic' model='dac'/>" * 2), "/domain/seclabel[2]/@model",
        "seclabel for model dac is already provided", DETAIL,
    ),
    "no relabel": Refused(
        document(body="<seclabel type='dynamic' model='dac' relabel='no'/>"), "/domain/seclabel[1]/@relabel",
        "dynamic label type must use resource relabeling",
    ),
    "date": Refused(
        document(body="<sysinfo type='smbios'><bios><entry name='date'>13/13/2020</entry></bios></sysinfo>"),
        "/domain/sysinfo[1]/bios/entry", "Invalid BIOS 'date' format", DETAIL,
    ),
    "reserved file": Refused(
        document(body="<sysinfo type='fwcfg'><entry name='opt/ovmf/a'>b</entry></sysinfo>"),
        "/domain/sysinfo[1]/entry/@name", "That firmware name is reserved",
    ),
    "firmware in two ways": Refused(
        document(os="<loader type='pflash'>/x</loader>").replace("<os>", "<os firmware='efi'>"),
        "/domain/os/loader/@type", "loader attribute 'type' cannot be specified when", DETAIL,
    ),
    "UEFI without ACPI": Refused(
        document(os="<loader readonly='yes' type='pflash'>/x</loader>"), "/domain/os/loader",
        "UEFI requires ACPI on this architecture",
    ),
    "secure PC": Refused(
        document(os="<loader type='pflash' secure='yes'>/x</loader>", body="<features><acpi/></features>"),
        "/domain/os/loader/@secure", "Secure boot is supported with q35 machine types only",
    ),
    "gic": Refused(
        document(body="<features><gic version='2'/></features>"), "/domain/features/gic",
        "The 'gic' feature is not supported for architecture 'x86_64' or machine type 'pc-i440fx-7.2'",
    ),
    "hpt": Refused(
        document(body="<features><hpt resizing='enabled'/></features>"), "/domain/features/hpt",
        "The 'hpt' feature is not supported for architecture 'x86_64'",
    ),
    "htm of another QEMU": Refused(
        on("ppc64", "pseries", body="<features><htm state='on'/></features>"), "/domain/features/htm",
        "HTM configuration is not supported by this QEMU binary", platform=POWER,
    ),
    "pmu of POWER": Refused(
        on("ppc64", "pseries", body="<features><pmu state='off'/></features>"), "/domain/features/pmu",
        "PMU is always enabled for architecture 'ppc64'", platform=POWER,
    ),
    "tseg of a PC": Refused(
        document(body="<features><smm state='on'><tseg unit='MiB'>48</tseg></smm></features>"),
        "/domain/features/smm/tseg", "SMM TSEG is only supported with q35 machine type",
    ),
    "tcg of KVM": Refused(
        document(body="<features><tcg><tb-cache>1024</tb-cache></tcg></features>").replace("'qemu'", "'kvm'", 1),
        "/domain/features/tcg", "TCG features are incompatible with domain type 'kvm'",
    ),
    "cache of ARM": Refused(
        on("aarch64", "virt", body="<cpu mode='custom'><model>cortex-a53</model><cache mode='disable'/></cpu>"),
        "/domain/cpu/cache", "CPU cache specification is not supported for 'aarch64' architecture", platform=ARM,
    ),
    "emulated cache": Refused(
        document(body="<cpu mode='host-model'><cache mode='emulate' level='2'/></cpu>"), "/domain/cpu/cache/@level",
        "CPU cache mode 'emulate' can only be used with level='3'",
    ),
    "threads of POWER": Refused(
        on("ppc64", "pseries", head="<vcpu current='2'>4</vcpu>",
           body="<cpu><topology sockets='1' cores='1' threads='4'/></cpu>"),
        "/domain/cpu/topology/@threads", "vCPUs count must be a multiple of the vCPU hotplug granularity (4)",
        platform=POWER._replace(features=POWER.features | {"query-hotpluggable-cpus"}),
    ),
    "timer of ARM": Refused(
        document(body="<clock offset='utc'><timer name='armvtimer'/></clock>"), "/domain/clock/timer/@name",
        "Configuring the 'armvtimer' timer is not supported for virtType=qemu arch=x86_64",
    ),
    "late clock": Refused(
        document(body="<clock offset='absolute' start='253402300800'/>"), "/domain/clock/@start",
        "The maximum 'start' value for <clock offset='absolute'> is 253402300799",
    ),
    "preserve": Refused(document(body="<on_reboot>preserve</on_reboot>"), "/domain", "doesn't support the 'preserve'"),
    "S3": Refused(
        document(body="<pm><suspend-to-mem enabled='no'/></pm>"), "/domain/pm/suspend-to-mem",
        "setting ACPI S3 not supported", platform=BARE,
    ),
    "cachetune of TCG": Refused(
        document(body="<cputune><cachetune vcpus='0'><cache id='0' level='3' type='both' size='3' unit='MiB'/>"
                      "</cachetune></cputune>"),
        "/domain/cputune", "cachetune is only supported for KVM domains",
    ),
    "type of another emulator": Refused(
        document().replace("'qemu'", "'kvm'", 1), "/domain/@type", "does not support virt type 'kvm'",
        platform=QEMU._replace(types=frozenset({"qemu"})),
    ),
}  # fmt: skip

# These are defined, and do not start.
NOT_STARTED: dict[str, Refused] = {
    "host-passthrough": Refused(
        document(body="<cpu mode='host-passthrough'/>"), "/domain/cpu/@mode",
        "CPU mode 'host-passthrough' for x86_64 qemu domain on x86_64 host is not supported by hypervisor",
    ),
    "feature of ARM": Refused(
        on("aarch64", "virt", body="<cpu mode='custom'><model>max</model><feature policy='disable' name='vmx'/></cpu>"),
        "/domain/cpu/feature", "unknown CPU feature: vmx", platform=ARM,
    ),
    "iothreads": Refused(
        document(head="<iothreads>1</iothreads>"), "/domain/iothreads", "IOThreads not supported for this QEMU",
        platform=BARE,
    ),
    "pages that the host has not": Refused(
        document(body=PAGES.format("", "")), "/domain/memoryBacking/hugepages/page/@size",
        "Unable to find any usable hugetlbfs mount for 2048 KiB", INTERNAL,
        platform=QEMU._replace(page_sizes=frozenset({1048576})),
    ),
    "node that the host has not": Refused(
        document(body="<numatune><memory mode='strict' nodeset='0-1'/></numatune>"), "/domain/numatune/memory/@nodeset",
        "NUMA node 1 is unavailable", platform=QEMU._replace(host_nodes=frozenset({0})),
    ),
    "model that QEMU has not": Refused(
        document(body="<cpu mode='custom'><model fallback='forbid'>Westmere</model></cpu>"), "/domain/cpu/model",
        "CPU model Westmere is not supported by hypervisor", platform=QEMU._replace(models=frozenset({"qemu64"})),
    ),
    "memory beyond numbers": Refused(
        document(body=CELL, head="<maxMemory slots='1' unit='KiB'>9007199254740991</maxMemory>"), "/domain/maxMemory",
        "maximum memory size overflowed after alignment",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_document_is_refused_where_it_is_wrong(name: str) -> None:
    check_refused(REFUSED[name])


@pytest.mark.parametrize("name", NOT_STARTED)
def test_document_is_defined_and_does_not_start(name: str) -> None:
    check_not_started(NOT_STARTED[name])


EMPTY = "<source address='' port='1'><local address='' port='2'/></source>"


@pytest.mark.parametrize(
    "parts",
    [
        {"devices": disk() + card("user") + SPICE},
        {"devices": f"<interface type='udp'>{EMPTY}</interface>"},
        {"devices": "<interface type='client'><source address='' port='1'/></interface>"},
        {"devices": "<interface type='network'><source network=''/></interface>"},
        {"devices": "<input type='passthrough' bus='virtio'/><input type='evdev'/>"},
        {"body": "<cputune><vcpupin vcpu='5' cpuset='0'/><vcpupin vcpu='5' cpuset='0'/></cputune>"},
    ],
)
def test_what_libvirt_takes_starts(parts: dict[str, str]) -> None:
    for machine in ("pc", "q35"):
        case = Refused(document(**parts, machine=machine), "", "")
        domain = read(case)
        validate(domain, QEMU)
        check_start(domain, QEMU)
