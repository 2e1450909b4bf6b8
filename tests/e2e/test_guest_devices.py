"""What of the host a guest's Linux finds: directories, memory in cells and modules, and devices without a driver."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from hostel.drivers.base import StartFlag
from hostel.drivers.base.domain import Affect
from hostel.drivers.qemu.driver import QemuDriver
from hostel.errors import VirtError
from hostel.model.domain.domain import Domain
from support.linux import Linux
from support.linux_guest import LinuxGuest

pytestmark = [pytest.mark.qemu, pytest.mark.requires_tool("busybox"), pytest.mark.requires_tool("dpkg-deb")]
MEMORY = """<maxMemory slots='4' unit='MiB'>1024</maxMemory>
<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking><vcpu>2</vcpu>
<cpu mode='maximum'><numa><cell id='0' cpus='0' memory='192' unit='MiB'/>
<cell id='1' cpus='1' memory='64' unit='MiB'><distances><sibling id='0' value='25'/></distances></cell></numa></cpu>"""
MODULE = "<memory model='dimm'><target><size unit='MiB'>128</size><node>1</node></target></memory>"
SCRIPT = """
echo nodes $(ls -d /sys/devices/system/node/node* | wc -l)
echo distance $(cat /sys/devices/system/node/node1/distance)
echo offline $(cat /sys/devices/system/memory/memory*/state | grep -c offline)
for state in /sys/devices/system/memory/memory*/state; do
    [ $(cat $state) = online ] || echo online > $state
done
total=$(sed -n 's/.*MemTotal: *\\([0-9]*\\) kB/\\1/p' /sys/devices/system/node/node1/meminfo)
echo online in node 1: $((total / 1024 > 128))
echo pci $(cat /sys/bus/pci/devices/*/device | grep -c 0x1110)
echo iommu $(ls /sys/class/iommu)
echo virtio $(cat /sys/bus/virtio/devices/*/device | sort | tr '\\n' ' ')
if [ -n "$(grep -l 0x001a /sys/bus/virtio/devices/*/device)" ]; then
    mount -t virtiofs host /mnt
    cat /mnt/hello
    echo from the guest > /mnt/said
    umount /mnt
fi
"""


def virtiofs(directory: Path, tag: str = "host") -> str:
    return (
        f"<filesystem type='mount' accessmode='passthrough'><driver type='virtiofs'/><source dir='{directory}'/>"
        f"<target dir='{tag}'/></filesystem>"
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="virtiofsd needs root")
def test_linux_finds_directories_cells_and_modules(driver: QemuDriver, tmp_path: Path, linux: Linux) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/hello").write_text("hello from the host\n")
    guest = LinuxGuest(driver, linux, tmp_path)
    plan9 = (
        f"<filesystem accessmode='mapped'><source dir='{tmp_path}/shared'/><target dir='nine'/><readonly/></filesystem>"
    )
    name = f"hostel-{os.getpid()}"
    memory = f"<shmem name='{name}'><model type='ivshmem-plain'/><size unit='M'>1</size></shmem>"
    domain = guest.define(
        SCRIPT,
        virtiofs(tmp_path / "shared") + plan9 + MODULE + memory + "<iommu model='intel'/>",
        body=MEMORY,
        modules=("virtiofs",),
        memory=384,
    )
    assert guest.run(domain).splitlines() == [
        "nodes 2",
        "distance 25 10",
        "offline 1",
        "online in node 1: 1",
        "pci 1",
        "iommu dmar0",
        "virtio 0x0005 0x0009 0x001a",
        "hello from the host",
    ]
    Path("/dev/shm", name).unlink()
    assert (tmp_path / "shared/said").read_text() == "from the guest\n"
    assert not _served(tmp_path, until=False)


def _serves(path: Path, directory: Path) -> bool:
    try:
        words = path.read_bytes()
    except OSError:
        return False
    return b"virtiofsd" in words and os.fsencode(directory) in words


XML = """<domain type='qemu'><name>g</name><memory unit='MiB'>32</memory>{body}<os><type>hvm</type></os>
<devices>{devices}</devices></domain>"""


def _served(directory: Path, *, until: bool) -> bool:
    """Whether a program serves a directory, once it does or does not, or after some seconds."""
    deadline = time.monotonic() + 60
    while True:
        found = any(_serves(path, directory) for path in Path("/proc").glob("[0-9]*/cmdline"))
        if found == until or time.monotonic() >= deadline:
            return found
        time.sleep(0.05)


@pytest.mark.skipif(os.geteuid() != 0, reason="virtiofsd needs root")
def test_directory_comes_into_a_running_machine(driver: QemuDriver, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    shared = "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking><features><acpi/></features>"
    domain = driver.domain_create_xml(XML.format(body=shared, devices=""), StartFlag.PAUSED)
    with pytest.raises(VirtError, match="the directory '/nonexistent' is not there"):
        driver.domain_attach_device_flags(domain, virtiofs(Path("/nonexistent")), Affect.LIVE)
    for number in (0, 1):
        driver.domain_attach_device_flags(domain, virtiofs(tmp_path / "shared", f"t{number}"), Affect.LIVE)
    assert driver.domain_get_xml_desc(domain).count("<filesystem") == 2
    assert _served(tmp_path / "shared", until=True)
    driver.domain_destroy(domain)
    assert not _served(tmp_path / "shared", until=False)


@pytest.mark.skipif(os.geteuid() != 0, reason="virtiofsd needs root")
def test_what_serves_a_directory_that_came_in_does_not_fill_the_disk(driver: QemuDriver, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "config").mkdir(exist_ok=True)
    (tmp_path / "config/virtlogd.conf").write_text("max_size = 4096\nmax_backups = 1\n")
    chatty, speaks = tmp_path / "chatty", "seq -f 'this is line %g of many' 1000 >&2"
    serving = next(path for path in ("/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd") if Path(path).exists())
    chatty.write_text(f'#!/bin/sh\n{speaks}\nexec {serving} "$@"\n')
    chatty.chmod(0o755)
    shared = "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking><features><acpi/></features>"
    domain = driver.domain_create_xml(XML.format(body=shared, devices=""), StartFlag.PAUSED)
    directory = virtiofs(tmp_path / "shared").replace("<source", f"<binary path='{chatty}'/><source")
    driver.domain_attach_device_flags(domain, directory, Affect.LIVE)
    logs = tmp_path / "cache/qemu/log"
    deadline = time.monotonic() + 60
    while b"line 1000 of many" not in (logs / "g.log").read_bytes():
        assert time.monotonic() < deadline, "its words do not come"
        time.sleep(0.05)
    assert {path.name for path in logs.iterdir()} == {"g.log", "g.log.0"}
    assert max(path.stat().st_size for path in logs.iterdir()) <= 4096
    chatty.write_text("#!/bin/sh\necho no more of this >&2\nexit 1\n")
    with pytest.raises(VirtError, match="no more of this"):
        driver.domain_attach_device_flags(domain, directory.replace("'host'", "'other'"), Affect.LIVE)
    driver.domain_destroy(domain)


@pytest.mark.parametrize(
    ("body", "devices", "message"),
    [
        ("<memoryBacking><hugepages><page size='3' unit='KiB'/></hugepages></memoryBacking>", "",
         "Unable to find any usable hugetlbfs mount for 3 KiB"),
        ("<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>", virtiofs(Path("/nonexistent")),
         "the directory '/nonexistent' is not there|virtiofs is not supported in session mode"),
        ("", "<hostdev type='pci'><source><address bus='0xfe' slot='1' function='0'/></source></hostdev>",
         "Device 0000:fe:01.0 not found"),
    ],
)  # fmt: skip
def test_what_this_host_cannot_give_is_refused(driver: QemuDriver, body: str, devices: str, message: str) -> None:
    domain = driver.domain_define_xml(XML.format(body=body, devices=devices))
    with pytest.raises(VirtError, match=message):
        driver.domain_create(domain)


@pytest.mark.parametrize(
    "backing",
    [
        "<source type='file'/><access mode='shared'/><discard/>",
        "<nosharepages/><source type='anonymous'/><allocation mode='immediate' threads='2'/>",
    ],
)
def test_memory_comes_from_where_it_is_to(driver: QemuDriver, tmp_path: Path, backing: str) -> None:
    xml = XML.format(body=f"<memoryBacking>{backing}</memoryBacking>", devices="")
    domain = driver.domain_create_xml(xml, StartFlag.PAUSED)
    said = driver.domain_qemu_monitor_command(domain, "info memdev", human=True)
    assert "size:  33554432" in said
    assert ("share: true" in said) == ("shared" in backing)
    assert ("prealloc: true" in said) == ("immediate" in backing)
    assert not [*(tmp_path / "cache/qemu").glob("ram/*")]


def test_devices_at_the_end_of_channels_wait_for_whoever_comes(driver: QemuDriver, tmp_path: Path) -> None:
    redirdev = f"<redirdev bus='usb' type='unix'><source mode='bind' path='{tmp_path}/usb'/></redirdev>"
    rules = "<usbdev class='0x08' vendor='0x15E1' version='1.09' allow='yes'/><usbdev allow='no'/>"
    card = f"<smartcard mode='passthrough' type='unix'><source mode='bind' path='{tmp_path}/card'/></smartcard>"
    xml = XML.format(
        body="<features><acpi/></features>",
        devices=f"{redirdev}<redirfilter>{rules}</redirfilter>{card}<panic model='isa'/>",
    )
    domain = driver.domain_create_xml(xml, StartFlag.PAUSED)
    assert (tmp_path / "usb").is_socket() and (tmp_path / "card").is_socket()
    tree = driver.domain_qemu_monitor_command(domain, "info qtree", human=True)
    assert 'filter = "0x08:0x15E1:-1:0x0109:1|-1:-1:-1:-1:0"' in tree
    assert all(f"dev: {name}" in tree for name in ("usb-redir", "ccid-card-passthru", "pvpanic"))


@pytest.mark.skipif(Path("/dev/vhost-vsock").exists(), reason="this host has sockets for guests")
def test_sockets_that_the_host_has_not_are_refused_with_what_to_load(driver: QemuDriver) -> None:
    domain = driver.domain_define_xml(XML.format(body="", devices="<vsock><cid auto='yes'/></vsock>"))
    with pytest.raises(VirtError, match="modprobe vhost_vsock"):
        driver.domain_create(domain)


HOT_SCRIPT = """
count() { ls -d /sys/devices/system/memory/memory* | wc -l; }
before=$(count)
echo waiting
while [ $(count) = $before ]; do sleep 0.1; done
echo plugged $(($(count) - before))
while [ $(count) != $before ]; do sleep 0.1; done
echo unplugged
"""


def test_modules_come_and_go_while_linux_runs(driver: QemuDriver, tmp_path: Path, linux: Linux) -> None:
    guest = LinuxGuest(driver, linux, tmp_path)
    body = (
        "<maxMemory slots='2' unit='MiB'>512</maxMemory><vcpu>1</vcpu>"
        "<cpu mode='maximum'><numa><cell id='0' cpus='0' memory='192' unit='MiB'/></numa></cpu>"
    )
    module = "<memory model='dimm'><target><size unit='MiB'>128</size><node>0</node></target></memory>"
    domain = driver.domain_create(guest.define(HOT_SCRIPT, body=body, memory=192))
    guest.wait_for("waiting")
    driver.domain_attach_device_flags(domain, module)
    guest.wait_for("plugged 1")
    live = Domain.parse(driver.domain_get_xml_desc(domain))
    assert live.memory is not None and live.memory.to_kib() == 320 << 10
    assert [item.alias for item in live.devices.memories] == ["dimm0"]
    with pytest.raises(VirtError, match="maximum memory size must be equal or greater"):
        driver.domain_attach_device_flags(domain, module.replace("128", "256"))
    driver.domain_detach_device_flags(domain, module)
    guest.wait_for("unplugged")
    guest.wait(domain)
    assert "memory model" not in driver.domain_get_xml_desc(domain)


def test_a_usb_device_that_need_not_be_there_is_missing_in_the_live_document(driver: QemuDriver) -> None:
    source = "<source startupPolicy='optional'><vendor id='0xfffe'/><product id='0xfffe'/></source>"
    hostdev = f"<hostdev mode='subsystem' type='usb'>{source}</hostdev>"
    domain = driver.domain_create_xml(XML.format(body="", devices=hostdev), StartFlag.PAUSED)
    assert "missing='yes'" in driver.domain_get_xml_desc(domain)
    assert "usb-host" in driver.domain_qemu_monitor_command(domain, "info qtree", human=True)
    with pytest.raises(VirtError, match="Did not find USB device fffd:fffd"):
        driver.domain_attach_device_flags(domain, hostdev.replace("0xfffe", "0xfffd").replace("optional", "mandatory"))
