"""What is tried with devices of a host that has an IOMMU: run inside it, all in one go."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import traceback
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hostel.drivers.base import DomainRef, DomainState, StartFlag
from hostel.drivers.base.domain import Affect
from hostel.drivers.base.nodedev import NodeDeviceRef
from hostel.drivers.qemu import process
from hostel.drivers.qemu.monitor import Monitor
from hostel.drivers.qemu.status import Status
from hostel.drivers.registry import Drivers, open_drivers
from hostel.drivers.store import Directories, Store
from hostel.errors import ErrorCode, VirtError

DIRECTORIES = Directories.under(Path("/root/home"))
FUNCTIONS = Path("/sys/bus/pci/devices")
CARD = "0000:00:10.0"  # an e1000e, alone in its group
FIRST, SECOND = "0000:02:01.0", "0000:02:02.0"  # two e1000 behind a bridge of conventional PCI: one group
DISK = "0000:03:00.0"  # an nvme, which has two virtual functions
VIRTUAL = "0000:03:00.1"
DRIVES = "0x46f4"  # the vendor of two USB drives of one kind
MOUSE = "<vendor id='0x0627'/><product id='0x0001'/>"
UUID = "53764d0e-85a0-42b4-af5c-2046b460b1dc"


def opened() -> Drivers:
    """The drivers as a program finds them that has just started."""
    return open_drivers("qemu:///system", DIRECTORIES)


DRIVERS: Drivers
QEMU: Any  # the driver of machines itself, with all its calls


def tool(*words: str) -> str:
    """Run a tool, which must succeed."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert not done.returncode, f"{' '.join(words)}: {done.stdout}{done.stderr}"
    return done.stdout


def wait(what: Callable[[], Any], seconds: float = 20) -> Any:
    """Wait until something is the case."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, f"not within {seconds} seconds"
        time.sleep(0.1)
    return found


def pci(name: str, *, managed: bool = True, more: str = "") -> str:
    domain, bus, slot, function = re.split("[:.]", name)
    place = f"<address domain='0x{domain}' bus='0x{bus}' slot='0x{slot}' function='0x{function}'/>"
    how = "yes" if managed else "no"
    return f"<hostdev mode='subsystem' type='pci' managed='{how}'><source>{place}</source>{more}</hostdev>"


def usb(source: str, policy: str = "") -> str:
    said = policy and f" startupPolicy='{policy}'"
    return f"<hostdev mode='subsystem' type='usb'><source{said}>{source}</source></hostdev>"


def scsi(unit: int, more: str = "") -> str:
    host = next(path.name for path in Path("/sys/bus/scsi/devices").glob("*:0:0:1")).partition(":")[0]
    place = f"<adapter name='scsi_host{host}'/><address bus='0' target='0' unit='{unit}'/>"
    return f"<hostdev mode='subsystem' type='scsi'><source>{place}</source>{more}</hostdev>"


def card(name: str) -> str:
    place = re.sub("</?source>", "", pci(name)).partition("<address")[2].partition("/>")[0]
    return f"<interface type='hostdev' managed='yes'><source><address type='pci'{place}/></source></interface>"


def document(name: str, *devices: str, more: str = "") -> str:
    """Of a machine that boots nothing."""
    space = " xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'"
    return (
        f"<domain type='qemu'{space}><name>{name}</name><uuid>{uuid.uuid5(uuid.NAMESPACE_OID, name)}</uuid>"
        "<memory unit='MiB'>64</memory>"
        f"<os><type machine='q35'>hvm</type></os><devices>{''.join(devices)}</devices>{more}</domain>"
    )


def define(name: str, *devices: str, more: str = "") -> DomainRef:
    return QEMU.domain_define_xml(document(name, *devices, more=more))  # type: ignore[no-any-return]


def start(name: str, *devices: str, more: str = "") -> DomainRef:
    return QEMU.domain_create(define(name, *devices, more=more), StartFlag.PAUSED)  # type: ignore[no-any-return]


def refused(call: Callable[[], object], why: str, code: ErrorCode) -> None:
    """A call that is refused in these words."""
    try:
        call()
    except VirtError as error:
        assert re.search(why, error.message) and error.code is code, f"{error.code!r}: {error.message}"
    else:
        raise AssertionError(f"not refused: {why}")


def driver_of(name: str) -> str | None:
    link = FUNCTIONS / name / "driver"
    return Path(os.path.realpath(link)).name if link.is_symlink() else None


def status_of(name: str) -> Status:
    return Status.parse(Store(DIRECTORIES.state / "qemu").read(name) or "")


def ask(name: str, command: str, **arguments: Any) -> Any:
    monitor = Monitor(Path(status_of(name).run) / "monitor")
    try:
        return monitor.execute(command, **arguments)
    finally:
        monitor.close()


def told(name: str, line: str) -> str:
    return str(ask(name, "human-monitor-command", **{"command-line": line}))


def given(name: str) -> list[str]:
    """The PCI devices of the host that a machine has."""
    there = ask(name, "qom-list", path="/machine/peripheral")
    return sorted(item["name"] for item in there if item["type"] == "child<vfio-pci>")


def stop(name: str) -> None:
    QEMU.domain_destroy(QEMU.domain_lookup_by_name(name))


def functions_are_taken_and_given_back() -> None:
    node = NodeDeviceRef("pci_0000_00_10_0")
    start("a", pci(CARD, more="<rom bar='off'/>"))
    assert driver_of(CARD) == "vfio-pci"
    assert given("a") == ["hostdev0"]
    assert "<driver name='vfio'/>" in QEMU.domain_get_xml_desc(QEMU.domain_lookup_by_name("a"))
    limit, _ = resource.prlimit(status_of("a").pid, resource.RLIMIT_MEMLOCK)
    assert limit == resource.RLIM_INFINITY or limit >= (64 << 20) + (1 << 30), limit
    used = f"PCI device {CARD} is in use by driver QEMU, domain a"
    refused(lambda: start("b", pci(CARD)), used, ErrorCode.OPERATION_INVALID)
    for call in (DRIVERS.node_device.node_device_detach_flags, DRIVERS.node_device.node_device_re_attach):
        refused(functools.partial(call, node), used, ErrorCode.OPERATION_INVALID)
    reset = DRIVERS.node_device.node_device_reset
    refused(lambda: reset(node), f"Not resetting active device {CARD}", ErrorCode.INTERNAL_ERROR)
    save = functools.partial(QEMU.domain_managed_save, QEMU.domain_lookup_by_name("a"))
    why = "cannot migrate a domain with <hostdev mode='subsystem' type='pci'>"
    refused(save, why, ErrorCode.OPERATION_UNSUPPORTED)
    stop("a")
    assert driver_of(CARD) == "e1000e"
    reset(node)
    assert driver_of(CARD) == "e1000e"


def functions_come_back_whatever_happens() -> None:
    wrong = "<qemu:commandline><qemu:arg value='-no-such-option'/></qemu:commandline>"
    refused(lambda: start("a", pci(CARD), more=wrong), "no-such-option", ErrorCode.INTERNAL_ERROR)
    assert driver_of(CARD) == "e1000e"

    start("a", pci(CARD))
    os.kill(status_of("a").pid, signal.SIGKILL)
    wait(lambda: QEMU.domain_get_state(QEMU.domain_lookup_by_name("a")).state is DomainState.SHUTOFF)
    assert driver_of(CARD) == "e1000e"

    child = os.fork()
    if not child:  # a starter that is killed when the function is taken, and QEMU is not there yet
        process.spawn = lambda *_, **__: os._exit(9)
        start("a", pci(CARD))
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert driver_of(CARD) == "vfio-pci"
    start("b", pci(CARD))  # who wants it finds it abandoned
    assert driver_of(CARD) == "vfio-pci"
    again = opened().hypervisor
    again.domain_destroy(again.domain_lookup_by_name("b"))
    assert driver_of(CARD) == "e1000e"


def groups_are_given_whole() -> None:
    why = f"group [0-9]+ is not viable: {SECOND} is bound to e1000.*Please ensure all devices within the iommu_group"
    refused(lambda: start("a", pci(FIRST)), why, ErrorCode.INTERNAL_ERROR)
    assert driver_of(FIRST) == driver_of(SECOND) == "e1000"
    why = "Unmanaged PCI device 0000:02:02.0 must be manually detached from the host"
    both = pci(FIRST), pci(SECOND, managed=False)
    refused(lambda: start("a", *both), why, ErrorCode.OPERATION_INVALID)
    node = NodeDeviceRef("pci_0000_02_02_0")
    DRIVERS.node_device.node_device_detach_flags(node)
    start("a", *both)
    assert given("a") == ["hostdev0", "hostdev1"]
    other = f"PCI device {FIRST} is in use by driver QEMU, domain a"
    refused(lambda: start("b", pci(SECOND)), f"{other}|{SECOND} is in use", ErrorCode.OPERATION_INVALID)
    stop("a")
    assert (driver_of(FIRST), driver_of(SECOND)) == ("e1000", "vfio-pci"), "what was not taken is not given back"
    DRIVERS.node_device.node_device_re_attach(node)
    assert driver_of(SECOND) == "e1000"
    refused(lambda: start("a", pci("0000:00:06.0")), "Non-endpoint PCI devices", ErrorCode.INTERNAL_ERROR)


def functions_are_plugged_in_and_out() -> None:
    ref = start("a", pci(CARD))
    refused(lambda: QEMU.domain_attach_device_flags(ref, pci(CARD), Affect.LIVE), "already", ErrorCode.XML_ERROR)
    refused(
        lambda: QEMU.domain_attach_device_flags(ref, pci(FIRST), Affect.LIVE), "not viable", ErrorCode.INTERNAL_ERROR
    )
    assert driver_of(FIRST) == "e1000" and FIRST.partition(":")[2] not in QEMU.domain_get_xml_desc(ref)
    QEMU.domain_attach_device_flags(ref, pci(DISK), Affect.LIVE | Affect.CONFIG)
    assert driver_of(DISK) == "vfio-pci" and given("a") == ["hostdev0", "hostdev1"]
    QEMU.domain_detach_device_flags(ref, pci(DISK), Affect.LIVE | Affect.CONFIG)
    assert driver_of(DISK) == "vfio-pci", "the guest has not let go of it"
    ask("a", "system_reset")  # which ends what a guest that runs nothing does not answer
    wait(lambda: given("a") == ["hostdev0"])
    assert QEMU.domain_get_state(ref).state is DomainState.PAUSED  # whoever looks next puts it right
    assert "hostdev1" not in QEMU.domain_get_xml_desc(ref)
    wait(lambda: driver_of(DISK) == "nvme")  # which takes its devices a moment later
    stop("a")


def virtual_functions() -> None:
    # They are for guests: the host's driver, which cannot start them, is not to try.
    (FUNCTIONS / DISK / "sriov_drivers_autoprobe").write_text("0")
    (FUNCTIONS / DISK / "sriov_numvfs").write_text("2")
    wait(lambda: (FUNCTIONS / VIRTUAL).exists())
    try:
        start("a", pci(VIRTUAL))
        assert driver_of(VIRTUAL) == "vfio-pci" and driver_of(DISK) == "nvme"
        stop("a")
        assert driver_of(VIRTUAL) != "vfio-pci"
        why = "The PF device for VF .* has no network device name"
        refused(lambda: start("a", card(VIRTUAL)), why, ErrorCode.INTERNAL_ERROR)
    finally:
        (FUNCTIONS / DISK / "sriov_numvfs").write_text("0")
    why = "Interface type hostdev is currently supported on SR-IOV Virtual Functions only"
    refused(lambda: start("a", card(CARD)), why, ErrorCode.CONFIG_UNSUPPORTED)
    assert driver_of(CARD) == "e1000e"


def usb_devices() -> None:
    kind = f"<vendor id='{DRIVES}'/><product id='0x0001'/>"
    why = "Multiple USB devices for 46f4:1, use <address> to specify one"
    refused(lambda: start("a", usb(kind)), why, ErrorCode.OPERATION_FAILED)
    gone = usb("<vendor id='0x1'/><product id='0x2'/>")
    refused(lambda: start("a", gone), "Did not find USB device 0001:0002", ErrorCode.INTERNAL_ERROR)
    places = [
        (path / "busnum").read_text().strip() + ":" + (path / "devnum").read_text().strip()
        for path in sorted(Path("/sys/bus/usb/devices").iterdir())
        if (path / "idVendor").exists() and (path / "idVendor").read_text().strip() == DRIVES[2:]
    ]
    (bus, first), (_, second) = (place.split(":") for place in places)
    ref = start(
        "a",
        usb(MOUSE),
        usb(f"{kind}<address bus='{bus}' device='{first}'/>"),
        gone.replace("<source", "<source startupPolicy='optional'"),
    )
    assert "QEMU USB Mouse" in told("a", "info usb") and "QEMU USB HARDDRIVE" in told("a", "info usb")
    log = (DIRECTORIES.cache / "qemu/log/a.log").read_text()
    assert "left out: internal error: Did not find USB device 0001:0002" in log
    used = "USB device [0-9:]+ is in use by driver QEMU, domain a"
    refused(lambda: start("b", usb(MOUSE)), used, ErrorCode.OPERATION_INVALID)
    attach = QEMU.domain_attach_device_flags
    refused(lambda: attach(ref, usb(MOUSE), Affect.LIVE), used, ErrorCode.OPERATION_INVALID)
    extra = usb(f"<address bus='{bus}' device='{second}'/>")
    QEMU.domain_attach_device_flags(ref, extra, Affect.LIVE)
    assert told("a", "info usb").count("QEMU USB HARDDRIVE") == 2
    QEMU.domain_detach_device_flags(ref, extra, Affect.LIVE)
    QEMU.domain_detach_device_flags(ref, usb(MOUSE), Affect.LIVE)
    shown = told("a", "info usb")
    assert shown.count("QEMU USB HARDDRIVE") == 1 and "QEMU USB Mouse" not in shown
    start("b", usb(MOUSE))
    stop("b")
    stop("a")


def scsi_devices() -> None:
    ref = start("a", "<controller type='scsi' model='virtio-scsi'/>", scsi(0))
    assert "libvirt-1-backend" in told("a", "info block")
    QEMU.domain_attach_device_flags(ref, scsi(1), Affect.LIVE)
    assert "libvirt-2-backend" in told("a", "info block")
    why = r"SCSI device [0-9]+:0:0:1 is already in use by other domain\(s\) as 'non-shareable'"
    refused(lambda: start("b", scsi(1)), why, ErrorCode.OPERATION_INVALID)
    QEMU.domain_detach_device_flags(ref, scsi(0), Affect.LIVE)
    QEMU.domain_attach_device_flags(ref, scsi(0), Affect.LIVE)
    QEMU.domain_detach_device_flags(ref, scsi(1), Affect.LIVE)
    nodes = [node["node-name"] for node in ask("a", "query-named-block-nodes", flat=True)]
    assert [node for node in nodes if "backend" in node] == ["libvirt-3-backend"], nodes
    stop("a")
    ref = start("a")
    QEMU.domain_attach_device_flags(ref, "<controller type='scsi' model='virtio-scsi'/>", Affect.LIVE)
    QEMU.domain_attach_device_flags(ref, scsi(0, "<shareable/>"), Affect.LIVE)
    start("b", scsi(0, "<shareable/>"))
    stop("b")
    stop("a")


def reservations_of_disks_that_come_later() -> None:
    """The helper is there from the first disk that needs it to the last, and ends with QEMU."""
    units = sorted(Path("/sys/bus/scsi/devices").glob("*:0:0:[01]/block/sd*"))
    first, second = (Path("/dev") / path.name for path in units[:2])
    ref = start("a", "<controller type='scsi' model='virtio-scsi'/>")
    socket = Path(status_of("a").run) / "pr-helper0.sock"

    def lun(path: Path, target: str) -> str:
        source = f"<source dev='{path}'><reservations managed='yes'/></source><target dev='{target}' bus='scsi'/>"
        return f"<disk type='block' device='lun'><driver type='raw'/>{source}</disk>"

    for _ in range(2):
        QEMU.domain_attach_device_flags(ref, lun(first, "sda"), Affect.LIVE)
        assert socket.is_socket()
        (manager,) = ask("a", "query-pr-managers")
        assert manager == {"id": "pr-helper0", "connected": True}
        QEMU.domain_attach_device_flags(ref, lun(second, "sdb"), Affect.LIVE)
        QEMU.domain_detach_device_flags(ref, lun(first, "sda"), Affect.LIVE)
        assert socket.is_socket() and len(ask("a", "query-pr-managers")) == 1
        QEMU.domain_detach_device_flags(ref, lun(second, "sdb"), Affect.LIVE)
        assert not socket.exists() and ask("a", "query-pr-managers") == []
    QEMU.domain_attach_device_flags(ref, lun(first, "sda"), Affect.LIVE)
    stop("a")
    wait(lambda: not any("qemu-pr-helper" in found for found in commands()))


def commands() -> list[str]:
    """The command lines of all processes."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_text(errors="replace"))
    return found


def nvme_disks() -> None:
    """QEMU itself drives the controller, and the host has its disk back afterwards, with what was written."""
    node = Path("/dev/nvme0n1")
    wait(node.is_block_device)
    bus = DISK.split(":")[1]
    source = f"<source type='pci' namespace='1'><address domain='0' bus='0x{bus}' slot='0' function='0'/></source>"
    disk = f"<disk type='nvme' device='disk'><driver type='raw'/>{source}<target dev='vda' bus='virtio'/></disk>"

    def write(name: str, request: str) -> None:
        """What QEMU says of it comes to its log when it ends: what it wrote is looked at by the host."""
        assert not told(name, f'qemu-io -d /machine/peripheral/virtio-disk0/virtio-backend "{request}"')

    def is_host_again() -> bool:
        return driver_of(DISK) == "nvme" and node.is_block_device()

    tool("mkswap", str(node))
    tool("swapon", str(node))
    why = f"PCI device {DISK} is in use by the host: it swaps to nvme0n1; swapoff /dev/nvme0n1"
    for device in (disk, pci(DISK)):
        refused(functools.partial(start, "a", device), why, ErrorCode.OPERATION_INVALID)
    tool("swapoff", str(node))
    start("a", disk)
    assert driver_of(DISK) == "vfio-pci"
    used = f"NVMe device {DISK} already in use by driver QEMU domain a"
    refused(lambda: start("b", disk), used, ErrorCode.OPERATION_INVALID)
    used = f"PCI device {DISK} is in use by driver QEMU, domain a"
    refused(lambda: start("b", pci(DISK)), used, ErrorCode.OPERATION_INVALID)
    write("a", "write -P 0x67 0 4096")
    stop("a")
    wait(is_host_again)
    assert node.read_bytes()[4000:4100] == b"g" * 96 + bytes(4)

    ref = start("b")
    QEMU.domain_attach_device_flags(ref, disk, Affect.LIVE)
    assert driver_of(DISK) == "vfio-pci"
    write("b", "write -P 0x68 4096 4096")
    QEMU.domain_detach_device_flags(ref, disk, Affect.LIVE)
    ask("b", "system_reset")  # which ends what a guest that runs nothing does not answer
    wait(lambda: QEMU.domain_get_state(ref) and is_host_again())
    assert node.read_bytes()[4000:8200] == b"g" * 96 + b"h" * 4096 + bytes(8)
    stop("b")


def network_cards() -> None:
    """Virtual functions of a network card, which QEMU has from 8.0 on."""
    physical = next((path for path in FUNCTIONS.iterdir() if driver_of(path.name) == "igb"), None)
    if physical is None:
        print("network_cards: this QEMU has none with virtual functions")
        return
    link = next(path.name for path in (physical / "net").iterdir())
    (physical / "sriov_numvfs").write_text("2")
    first = Path(os.path.realpath(wait(lambda: next(physical.glob("virtfn0"), None)))).name
    wait(lambda: driver_of(first) == "igbvf")
    mac, vlan = "52:54:00:aa:bb:cc", "<vlan><tag id='42'/></vlan>"
    asked = card(first).replace("</interface>", f"<mac address='{mac}'/>{vlan}</interface>")
    refused(lambda: start("a", asked), "because the PF is not online", ErrorCode.INTERNAL_ERROR)
    tool("ip", "link", "set", link, "up")

    def settings(number: int = 0) -> tuple[str, int]:
        (shown,) = json.loads(tool("ip", "-json", "link", "show", "dev", link))
        found = shown["vfinfo_list"][number]
        return str(found["address"]), int((found.get("vlan_list") or [found])[0].get("vlan", 0))

    own = next((FUNCTIONS / first / "net").iterdir()).joinpath("address").read_text().strip()
    start("a", asked)
    assert driver_of(first) == "vfio-pci" and given("a") == ["hostdev0"] and settings() == (mac, 42)
    stop("a")
    assert driver_of(first) == "igbvf" and settings() == (own, 0), settings()
    trunk = vlan.replace("<vlan>", "<vlan trunk='yes'>")
    refused(lambda: start("a", asked.replace(vlan, trunk)), "vlan trunking is not supp", ErrorCode.CONFIG_UNSUPPORTED)
    switch = "<virtualport type='802.1Qbh'><parameters profileid='x'/></virtualport>"
    both = "direct setting of the vlan tag is not allowed for hostdev devices using 802.1Qbh mode"
    refused(lambda: start("a", asked.replace(vlan, vlan + switch)), both, ErrorCode.CONFIG_UNSUPPORTED)
    unknown = "sending of PortProfileRequest failed"  # by a card that knows no profiles
    refused(lambda: start("a", asked.replace(vlan, switch)), unknown, ErrorCode.INTERNAL_ERROR)
    wait(lambda: driver_of(first) == "igbvf")

    network: Any = DRIVERS.network
    pool = f"<forward mode='hostdev' managed='yes'><pf dev='{link}'/></forward><vlan><tag id='7'/></vlan>"
    network.network_create(network.network_define_xml(f"<network><name>pool</name>{pool}</network>"))
    of_pool = "<interface type='network'><source network='pool'/><model type='virtio'/></interface>"
    ref = start("a", of_pool)
    assert settings()[1] == 7 and given("a") == ["net0"]
    start("b")
    QEMU.domain_attach_device_flags(QEMU.domain_lookup_by_name("b"), of_pool, Affect.LIVE)
    assert settings(1)[1] == 7 and given("b") == ["net0"]
    why = "network 'pool' requires exclusive access to interfaces, but none are available"
    refused(lambda: start("c", of_pool), why, ErrorCode.INTERNAL_ERROR)
    assert "connections='2'" in network.network_get_xml_desc(network.network_lookup_by_name("pool"))
    stop("a")
    start("c", of_pool)
    stop("c")
    stop("b")
    assert ref.name == "a" and settings()[1] == settings(1)[1] == 0


def mediated_devices() -> None:
    there = (
        f"<hostdev mode='subsystem' type='mdev' model='vfio-pci'><source><address uuid='{UUID}'/></source></hostdev>"
    )
    refused(lambda: start("a", there), f"mediated device '{UUID}' not found", ErrorCode.DEVICE_MISSING)


TRIALS = (
    functions_are_taken_and_given_back,
    functions_come_back_whatever_happens,
    groups_are_given_whole,
    functions_are_plugged_in_and_out,
    virtual_functions,
    usb_devices,
    scsi_devices,
    reservations_of_disks_that_come_later,
    nvme_disks,
    network_cards,
    mediated_devices,
)

if __name__ == "__main__":
    # What the same QEMU has told the real host: it takes a quarter of a minute to ask it here.
    known, *modules = sys.argv[1:]
    shutil.copytree(known, DIRECTORIES.cache)
    DRIVERS = opened()
    QEMU = DRIVERS.hypervisor
    tool("modprobe", "-a", *modules)
    wait(lambda: len(list(Path("/sys/bus/scsi/devices").glob("*:0:0:[01]"))) >= 4)
    failed = 0
    for trial in TRIALS:
        began = time.monotonic()
        try:
            trial()
        except BaseException:
            failed += 1
            traceback.print_exc()
            for ref in QEMU.connect_list_all_domains():
                if ref.id >= 0:
                    QEMU.domain_destroy(ref)
        print(f"{trial.__name__}: {time.monotonic() - began:.1f} s", flush=True)
    sys.exit(failed)
