"""Devices that come and go while a guest runs, in its definition, or both."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel import guest
from hostel.drivers.base import DomainRef, DomainXmlFlag
from hostel.drivers.base.domain import Affect
from hostel.drivers.qemu.driver import QemuDriver
from hostel.drivers.qemu.running import Running
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode, VirtError
from hostel.model.domain.devices.disk import Disk
from hostel.model.domain.domain import Domain
from hostel.objects import Connection
from support import image
from support.kill_step import MAX_STEPS, killed_at
from support.session import cdrom, disk, domain_xml, held, session, wait_for_report

pytestmark = [pytest.mark.qemu, pytest.mark.requires_tool("qemu-img")]
MIB = 1 << 20
SCSI = "<controller type='scsi' index='0' model='virtio-scsi'/>"
USB = "<controller type='usb' index='0' model='qemu-xhci'/>"


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    (tmp_path / "disk.img").write_bytes(guest.image(label="plug", mode=guest.Mode.WAIT).ljust(MIB, b"\0"))
    for name in ("a", "b"):
        image.qemu_img("create", "-q", "-f", "qcow2", tmp_path / f"{name}.qcow2", MIB)
    with session(tmp_path) as opened:
        yield opened


def start(driver: QemuDriver, home: Path, *devices: str, machine: str = "pc") -> DomainRef:
    xml = domain_xml(home, disk(home / "disk.img"), SCSI, USB, *devices, machine=machine)
    ref = driver.domain_create(driver.domain_define_xml(xml))
    wait_for_report(home, 1)
    return ref


def live(driver: QemuDriver, ref: DomainRef) -> Domain:
    return Domain.parse(driver.domain_get_xml_desc(ref))


def in_qemu(home: Path) -> tuple[set[str], set[str]]:
    """What QEMU has: devices with names of ours, and block nodes."""
    with held(home) as machine:
        devices = {str(item["name"]) for item in machine.ask("qom-list", path="/machine/peripheral")} - {"type"}
        nodes = {node["node-name"] for node in machine.ask("query-named-block-nodes", flat=True)}
    return devices, nodes


def beside(home: Path) -> tuple[set[str], ...]:
    """What QEMU has for devices besides them: ends of character devices, and objects."""
    with held(home) as machine:
        ends = {str(item["label"]) for item in machine.ask("query-chardev")} - {"compat_monitor0"}
        objects = {str(item["name"]) for item in machine.ask("qom-list", path="/objects")}
        return {end for end in ends if end.startswith("char")}, objects, in_qemu_devices(machine)


def in_qemu_devices(machine: Running) -> set[str]:
    return {str(item["name"]) for item in machine.ask("qom-list", path="/machine/peripheral")}


def of_target(domain: Domain, dev: str) -> Disk | None:
    return next((item for item in domain.devices.disks if item.target.dev == dev), None)


@pytest.mark.parametrize(("dev", "bus"), [("sdb", "scsi"), ("sdc", "usb"), ("vdb", "virtio")])
def test_disk_is_plugged_in_with_an_alias_and_an_address(
    tmp_path: Path, driver: QemuDriver, dev: str, bus: str
) -> None:
    ref = start(driver, tmp_path)
    driver.domain_attach_device_flags(ref, disk(tmp_path / "a.qcow2", "qcow2", dev=dev, bus=bus), Affect.LIVE)
    found = of_target(live(driver, ref), dev)
    assert found is not None
    assert found.address is not None
    assert found.alias in in_qemu(tmp_path)[0]
    with pytest.raises(VirtError, match=f"target '{dev}' duplicated for disk sources '.*a.qcow2' and '.*b.qcow2'"):
        driver.domain_attach_device_flags(ref, disk(tmp_path / "b.qcow2", "qcow2", dev=dev, bus=bus), Affect.LIVE)


def test_disk_is_plugged_in_beside_controllers_that_share_an_alias(tmp_path: Path, driver: QemuDriver) -> None:
    models = {"ich9-ehci1": "", "ich9-uhci1": "<master startport='0'/>", "ich9-uhci2": "<master startport='2'/>"}
    usb = [
        f"<controller type='usb' index='0' model='{model}'>{master}</controller>" for model, master in models.items()
    ]
    ref = driver.domain_create(driver.domain_define_xml(domain_xml(tmp_path, disk(tmp_path / "disk.img"), *usb)))
    driver.domain_attach_device_flags(ref, disk(tmp_path / "a.qcow2", "qcow2", dev="vdb", bus="virtio"), Affect.LIVE)
    assert of_target(live(driver, ref), "vdb") is not None


@pytest.mark.parametrize(("dev", "bus"), [("sdb", "scsi"), ("sdc", "usb")])
def test_unplugged_disk_leaves_nothing_behind(tmp_path: Path, driver: QemuDriver, dev: str, bus: str) -> None:
    ref = start(driver, tmp_path)
    before = in_qemu(tmp_path)
    xml = disk(tmp_path / "a.qcow2", "qcow2", dev=dev, bus=bus)
    for _ in range(2):
        driver.domain_attach_device_flags(ref, xml, Affect.LIVE)
        assert in_qemu(tmp_path) != before
        driver.domain_detach_device_flags(ref, xml, Affect.LIVE)
        assert of_target(live(driver, ref), dev) is None
        assert in_qemu(tmp_path) == before
    with pytest.raises(VirtError) as caught:
        driver.domain_detach_device_flags(ref, xml, Affect.LIVE)
    assert caught.value.code == ErrorCode.DEVICE_MISSING


@pytest.mark.usefixtures("deaf_guest")
def test_device_that_the_guest_keeps_is_gone_once_it_lets_go(tmp_path: Path, driver: QemuDriver) -> None:
    ref = start(driver, tmp_path)
    xml = disk(tmp_path / "a.qcow2", "qcow2", dev="vdb")
    before = in_qemu(tmp_path)
    driver.domain_attach_device_flags(ref, xml, Affect.LIVE)
    driver.domain_detach_device_flags(ref, xml, Affect.LIVE)  # a guest without a PCI driver does not answer
    assert of_target(live(driver, ref), "vdb") is not None
    driver.domain_reset(ref)  # firmware starts over, and pending requests are granted
    wait_for_report(tmp_path, 2)
    assert of_target(live(driver, ref), "vdb") is None
    assert in_qemu(tmp_path) == before


def test_live_and_definition_are_changed_together_or_apart(tmp_path: Path, driver: QemuDriver) -> None:
    ref = start(driver, tmp_path)
    xml = disk(tmp_path / "a.qcow2", "qcow2", dev="sdb", bus="scsi")

    def where() -> tuple[bool, bool]:
        stored = Domain.parse(driver.domain_get_xml_desc(ref, DomainXmlFlag.INACTIVE))
        return of_target(live(driver, ref), "sdb") is not None, of_target(stored, "sdb") is not None

    driver.domain_attach_device_flags(ref, xml, Affect.CONFIG)
    assert where() == (False, True)
    driver.domain_attach_device_flags(ref, xml, Affect.LIVE)
    assert where() == (True, True)
    driver.domain_detach_device_flags(ref, xml, Affect.LIVE | Affect.CONFIG)
    assert where() == (False, False)
    driver.domain_attach_device_flags(ref, xml)
    assert where() == (True, False)


@pytest.mark.usefixtures("deaf_guest")
def test_interface_comes_with_the_next_free_name_and_goes(tmp_path: Path, driver: QemuDriver) -> None:
    ref = start(driver, tmp_path, "<interface type='user'><model type='e1000'/></interface>", machine="pc")
    mac = "52:54:00:11:22:33"
    xml = f"<interface type='user'><mac address='{mac}'/><model type='virtio'/><link state='down'/></interface>"
    driver.domain_attach_device_flags(ref, xml, Affect.LIVE)
    found = [item for item in live(driver, ref).devices.interfaces if item.mac is not None and item.mac.address == mac]
    assert [item.alias for item in found] == ["net1"]
    driver.domain_update_device_flags(ref, xml.replace("down", "up"), Affect.LIVE)
    driver.domain_detach_device_flags(ref, xml, Affect.LIVE)
    driver.domain_reset(ref)
    wait_for_report(tmp_path, 2)
    assert [item.alias for item in live(driver, ref).devices.interfaces] == ["net0"]
    assert "net1" not in in_qemu(tmp_path)[0]


SMALL = {
    "channel": "<channel type='pty'><target type='virtio' name='org.example.0'/></channel>",
    "channel on a socket": (
        "<channel type='unix'><source mode='bind' path='{home}/c'/><target type='virtio' name='org.example.1'/>"
        "</channel>"
    ),
    "console": "<console type='file'><source path='{home}/f,g'/><target type='virtio' port='1'/></console>",
    "serial port on USB": "<serial type='udp'><source mode='connect' host='127.0.0.1' service='9'/>"
    "<target type='usb-serial' port='1'/></serial>",
    "redirected device": "<redirdev bus='usb' type='unix'><source mode='bind' path='{home}/r'/></redirdev>",
    "input": "<input type='mouse' bus='usb'/>",
}


@pytest.mark.parametrize("kind", SMALL)
def test_small_device_comes_and_leaves_nothing_behind(tmp_path: Path, driver: QemuDriver, kind: str) -> None:
    ref = start(driver, tmp_path, "<controller type='virtio-serial' index='0'/>")
    before = beside(tmp_path)
    xml = SMALL[kind].format(home=tmp_path)
    document = driver.domain_get_xml_desc(ref)
    for _ in range(2):
        driver.domain_attach_device_flags(ref, xml, Affect.LIVE)
        assert beside(tmp_path) != before
        shown = driver.domain_get_xml_desc(ref)
        given = re.search(r"<source path='(/dev/pts/[0-9]+)'/>\s*<target type='virtio'", shown)
        if given is not None:
            assert Path(given[1]).is_char_device()
        end = xml if given is None else xml.replace("<target", f"<source path='{given[1]}'/><target")
        driver.domain_detach_device_flags(ref, end, Affect.LIVE)
        assert beside(tmp_path) == before
    assert driver.domain_get_xml_desc(ref) == document


def test_a_helper_for_reservations_is_gone_with_the_disk_that_could_not_come(
    tmp_path: Path, driver: QemuDriver
) -> None:
    ref = start(driver, tmp_path)
    before = beside(tmp_path)
    xml = (
        "<disk type='block' device='lun'><driver name='qemu' type='raw'/><source dev='/dev/null'>"
        "<reservations managed='yes'/></source><target dev='sdb' bus='scsi'/></disk>"
    )
    why = "cannot get SG_IO version number|Could not open" if os.geteuid() == 0 else "the helper needs root"
    with pytest.raises(VirtError, match=why):
        driver.domain_attach_device_flags(ref, xml, Affect.LIVE)
    assert beside(tmp_path) == before
    assert not list(tmp_path.rglob("pr-helper0.sock*"))


def test_watchdog_comes_with_what_it_does(tmp_path: Path, driver: QemuDriver) -> None:
    ref = start(driver, tmp_path)
    driver.domain_attach_device_flags(ref, "<watchdog model='i6300esb' action='none'/>", Affect.LIVE)
    with pytest.raises(VirtError, match="domain already has a watchdog"):
        driver.domain_attach_device_flags(ref, "<watchdog model='i6300esb' action='reset'/>", Affect.LIVE)
    assert "watchdog0" in in_qemu(tmp_path)[0]


@pytest.mark.usefixtures("deaf_guest")
def test_shared_memory_is_gone_with_its_device(tmp_path: Path, driver: QemuDriver) -> None:
    ref = start(driver, tmp_path)
    before = beside(tmp_path)
    name = f"hostel-{tmp_path.name}"
    xml = f"<shmem name='{name}'><model type='ivshmem-plain'/><size unit='M'>1</size></shmem>"
    try:
        driver.domain_attach_device_flags(ref, xml, Affect.LIVE)
        driver.domain_detach_device_flags(ref, xml, Affect.LIVE)  # this guest lets go when it starts over
        driver.domain_reset(ref)
        wait_for_report(tmp_path, 2)
        assert "<shmem" not in driver.domain_get_xml_desc(ref)
        assert beside(tmp_path) == before
    finally:
        Path(f"/dev/shm/{name}").unlink(missing_ok=True)


def test_medium_is_changed_ejected_and_put_in(tmp_path: Path, driver: QemuDriver) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.iso").write_bytes(name.encode().ljust(65536, b"\0"))
    ref = start(driver, tmp_path, cdrom(tmp_path / "one.iso"))

    def inside() -> str | None:
        found = of_target(live(driver, ref), "hdc")
        assert found is not None
        with held(tmp_path) as machine:
            drive = next(item for item in machine.ask("query-block") if found.alias in item.get("qdev", ""))
        said = found.source.file if found.source is not None else None
        assert (drive["inserted"]["image"]["filename"] if "inserted" in drive else None) == said
        assert not drive["tray_open"]
        return Path(said).name if said else None

    assert inside() == "one.iso"
    driver.domain_update_device_flags(ref, cdrom(tmp_path / "two.iso"), Affect.LIVE)
    assert inside() == "two.iso"
    driver.domain_update_device_flags(ref, cdrom(None), Affect.LIVE)
    assert inside() is None
    with pytest.raises(VirtError, match=r"none\.iso"):
        driver.domain_update_device_flags(ref, cdrom(tmp_path / "none.iso"), Affect.LIVE)
    assert inside() is None
    driver.domain_update_device_flags(ref, cdrom(tmp_path / "one.iso"), Affect.LIVE | Affect.CONFIG)
    assert inside() == "one.iso"
    assert "two.iso" not in driver.domain_get_xml_desc(ref)
    driver.domain_attach_device_flags(ref, cdrom(tmp_path / "two.iso"), Affect.LIVE)
    assert inside() == "two.iso"
    with pytest.raises(VirtError, match="target hdc already exists"):
        driver.domain_attach_device_flags(ref, cdrom(tmp_path / "two.iso"), Affect.CONFIG)
    with pytest.raises(VirtError, match="disk type of 'vda' does not support ejectable media"):
        driver.domain_attach_device_flags(ref, cdrom(tmp_path / "two.iso", dev="vda"), Affect.LIVE)


def test_disk_comes_among_those_of_its_bus(tmp_path: Path, driver: QemuDriver) -> None:
    ref = start(driver, tmp_path, cdrom(None))
    more = disk(tmp_path / "a.qcow2", "qcow2", dev="vdb").replace(" bus='virtio'", "")
    driver.domain_attach_device_flags(ref, more, Affect.LIVE | Affect.CONFIG)
    for flags in (DomainXmlFlag.NONE, DomainXmlFlag.INACTIVE):
        document = Domain.parse(driver.domain_get_xml_desc(ref, flags))
        names = [item.target.dev for item in document.devices.disks]
        assert names.index("vdb") == names.index("vda") + 1 < names.index("hdc")


def test_what_qemu_refuses_leaves_everything_as_it_was(tmp_path: Path, driver: QemuDriver) -> None:
    ref = start(driver, tmp_path)
    before, document = in_qemu(tmp_path), driver.domain_get_xml_desc(ref)
    (tmp_path / "bad.qcow2").write_bytes(b"QFI\xfb" + bytes(4096))
    for xml in (
        disk(tmp_path / "bad.qcow2", "qcow2", dev="sdb", bus="scsi"),
        disk(tmp_path / "a.qcow2", "qcow2", dev="sdb", bus="scsi", more="<blockio logical_block_size='3'/>"),
        "<interface type='bridge'><source bridge='no-such-bridge'/></interface>",
    ):
        with pytest.raises(VirtError):
            driver.domain_attach_device_flags(ref, xml, Affect.LIVE)
        assert in_qemu(tmp_path) == before
        assert driver.domain_get_xml_desc(ref) == document


@pytest.mark.parametrize(
    ("xml", "code", "words"),
    [
        ("<frob/>", ErrorCode.CONFIG_UNSUPPORTED, "unknown device type 'frob'"),
        ("<disk", ErrorCode.XML_DETAIL, "device_definition"),
        ("<disk type='file'><target dev='sdz' bus='ide'/></disk>", ErrorCode.OPERATION_UNSUPPORTED, "hot plugged"),
        ("<video><model type='vga'/></video>", ErrorCode.OPERATION_UNSUPPORTED, "video"),
        ("<controller type='usb' index='3'/>", ErrorCode.OPERATION_UNSUPPORTED, "cannot be hot plugged"),
    ],
)
def test_what_cannot_be_plugged_in_is_refused(
    tmp_path: Path, driver: QemuDriver, xml: str, code: ErrorCode, words: str
) -> None:
    ref = start(driver, tmp_path)
    with pytest.raises(VirtError, match=re.escape(words)) as caught:
        driver.domain_attach_device_flags(ref, xml, Affect.LIVE)
    assert caught.value.code == code


PLUG = Path(__file__).parents[2] / "src/hostel/drivers/qemu/plug"


@pytest.mark.parametrize("way", ["attach", "detach", "medium"])
def test_killed_at_any_step_a_device_is_in_or_out_and_nothing_else_is_left(
    tmp_path: Path, driver: QemuDriver, way: str
) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.iso").write_bytes(name.encode().ljust(65536, b"\0"))
    ref = start(driver, tmp_path, cdrom(tmp_path / "one.iso"))
    xml = disk(tmp_path / "a.qcow2", "qcow2", dev="sdb", bus="scsi")
    out = in_qemu(tmp_path)
    driver.domain_attach_device_flags(ref, xml, Affect.LIVE)
    device, nodes = in_qemu(tmp_path)
    assert len(nodes) == len(out[1]) + 2
    driver.domain_detach_device_flags(ref, xml, Affect.LIVE)
    step, seen = 1, set()
    while step < MAX_STEPS:
        if way == "detach" and of_target(live(driver, ref), "sdb") is None:
            driver.domain_attach_device_flags(ref, xml, Affect.LIVE)

        def act() -> None:
            child = QemuDriver(Directories.under(tmp_path))
            if way == "medium":
                file = "two.iso" if "one.iso" in child.domain_get_xml_desc(ref) else "one.iso"
                child.domain_update_device_flags(ref, cdrom(tmp_path / file), Affect.LIVE)
            elif way == "attach":
                child.domain_attach_device_flags(ref, xml, Affect.LIVE)
            else:
                child.domain_detach_device_flags(ref, xml, Affect.LIVE)

        killed = killed_at(step, tuple(PLUG.glob("*.py")), act)
        document = live(driver, ref)
        now = in_qemu(tmp_path)
        is_in = of_target(document, "sdb") is not None
        assert now[0] == (device if is_in else out[0]), f"step {step}"
        assert len(now[1]) == len(out[1]) + (2 if is_in else 0), f"step {step}"
        drive = of_target(document, "hdc")
        assert drive is not None and drive.source is not None
        assert f"libvirt-{drive.source.index}-format" in now[1], f"step {step}"
        seen.add((is_in, drive.source.file))
        if is_in and way == "attach":
            driver.domain_detach_device_flags(ref, xml, Affect.LIVE)
        if not killed:
            break
        step += 7 if way == "medium" else 4
    assert len(seen) == 2
