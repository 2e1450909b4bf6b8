"""What is booted: a disk and a CD-ROM answer differently, and QEMU's and libvirt's ways to choose are obeyed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel import guest
from hostel.guest import Mode
from hostel.objects import Connection
from support import image, qemu
from support.guest import write_iso
from support.session import cdrom, disk, domain_xml, run, session

pytestmark = pytest.mark.qemu
MIB = 1 << 20


def make_disk(path: Path, label: str, mode: Mode = Mode.POWEROFF, until: int = 0) -> Path:
    """A qcow2 disk with the guest on it."""
    image.qemu_img("create", "-q", "-f", "qcow2", path, MIB)
    image.write(path, "qcow2", (0, guest.image(label=label, mode=mode, until=until)))
    return path


def both(tmp_path: Path, *, cd_mode: Mode = Mode.POWEROFF, disk_mode: Mode = Mode.POWEROFF) -> list[str]:
    """QEMU's arguments for a machine with a disk and a CD-ROM."""
    hard_disk = make_disk(tmp_path / "disk.qcow2", "disk", disk_mode, until=3)
    iso = write_iso(tmp_path / "cd.iso", label="cd", mode=cd_mode)
    return [*qemu.disk(hard_disk, "qcow2"), *qemu.cdrom(iso)]


def booted(args: list[str], count: int) -> list[str]:
    """The labels of the first ``count`` guests of a machine that may be reset."""
    with qemu.machine(args) as running:
        running.wait_for("HOSTEL-GUEST done", times=count)
        return [report.label for report in guest.parse_reports(running.serial)][:count]


def test_order_dc_once_d_boots_the_cdrom_each_time(tmp_path: Path) -> None:
    args = both(tmp_path, cd_mode=Mode.REBOOT)
    assert booted([*args, "-boot", "order=dc,once=d"], 3) == ["cd", "cd", "cd"]


def test_order_c_once_d_boots_the_cdrom_once_and_then_the_disk(tmp_path: Path) -> None:
    args = both(tmp_path, cd_mode=Mode.REBOOT, disk_mode=Mode.REBOOT)
    assert booted([*args, "-boot", "order=c,once=d"], 4) == ["cd", "disk", "disk", "disk"]


def test_order_dc_boots_the_disk_where_the_tray_is_empty(tmp_path: Path) -> None:
    hard_disk = make_disk(tmp_path / "disk.qcow2", "disk")
    args = [*qemu.disk(hard_disk, "qcow2"), "-device", "ide-cd", "-boot", "order=dc,once=d"]
    assert booted(args, 1) == ["disk"]


@pytest.mark.parametrize(("item", "expected"), [("Virtio disk", "disk"), ("DVD/CD", "cd")])
def test_menu_boots_what_is_chosen_at_the_serial_console(tmp_path: Path, item: str, expected: str) -> None:
    args = ["-machine", "pc,graphics=off", *both(tmp_path), "-boot", "menu=on,splash-time=20000"]
    with qemu.machine(args) as running:
        running.wait_for("Press ESC for boot menu")
        running.type("\x1b")
        running.wait_for("(HOSTEL)\r\n")  # the CD-ROM's volume, in the last line of the menu
        number = re.search(rf"(\d)\. {item}", running.serial)
        assert number is not None
        running.type(number[1])
        running.wait_for("HOSTEL-GUEST done")
        assert [report.label for report in guest.parse_reports(running.serial)] == [expected]


def test_menu_that_nobody_uses_boots_by_the_order(tmp_path: Path) -> None:
    args = ["-machine", "pc,graphics=off", *both(tmp_path), "-boot", "order=d,menu=on,splash-time=100"]
    with qemu.machine(args) as running:
        running.wait_for("HOSTEL-GUEST done")
        assert "Press ESC for boot menu" in running.serial
        assert [report.label for report in guest.parse_reports(running.serial)] == ["cd"]


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    for label in ("first", "second"):
        make_disk(tmp_path / f"{label}.qcow2", label)
    write_iso(tmp_path / "cd.iso", label="cd")
    with session(tmp_path) as opened:
        yield opened


def answer(connection: Connection, home: Path, *devices: str, system: str = "") -> str:
    """Who answers when a domain with these devices is started."""
    domain = connection.define_domain(domain_xml(home, *devices, system=system))
    report = run(domain, home)
    assert report.ok
    return report.label


@pytest.mark.parametrize(
    ("order", "expected"),
    [([], "first"), (["hd"], "first"), (["cdrom"], "cd"), (["cdrom", "hd"], "cd"), (["hd", "cdrom"], "first")],
    ids="-".join,
)
def test_list_of_boot_devices_is_the_order(
    tmp_path: Path, connection: Connection, order: list[str], expected: str
) -> None:
    system = "".join(f"<boot dev='{kind}'/>" for kind in order)
    devices = [disk(tmp_path / "first.qcow2", "qcow2"), cdrom(tmp_path / "cd.iso")]
    assert answer(connection, tmp_path, *devices, system=system) == expected


def test_list_goes_on_to_the_disk_where_the_tray_is_empty(tmp_path: Path, connection: Connection) -> None:
    system = "<boot dev='cdrom'/><boot dev='hd'/>"
    devices = [disk(tmp_path / "first.qcow2", "qcow2"), cdrom(None)]
    assert answer(connection, tmp_path, *devices, system=system) == "first"


@pytest.mark.parametrize(
    ("orders", "expected"),
    [((1, 2, 3), "first"), ((2, 1, 3), "second"), ((3, 2, 1), "cd"), ((None, 5, None), "second")],
)
def test_order_of_each_device_is_obeyed(
    tmp_path: Path, connection: Connection, orders: tuple[int | None, ...], expected: str
) -> None:
    more = [f"<boot order='{order}'/>" if order else "" for order in orders]
    devices = [
        disk(tmp_path / "first.qcow2", "qcow2", more=more[0]),
        disk(tmp_path / "second.qcow2", "qcow2", dev="sda", bus="scsi", more=more[1]),
        cdrom(tmp_path / "cd.iso", more=more[2]),
    ]
    assert answer(connection, tmp_path, *devices) == expected


def test_menu_of_a_domain_waits_and_then_boots_by_the_order(tmp_path: Path, connection: Connection) -> None:
    system = "<boot dev='cdrom'/><bootmenu enable='yes' timeout='200'/>"
    devices = [disk(tmp_path / "first.qcow2", "qcow2"), cdrom(tmp_path / "cd.iso")]
    assert answer(connection, tmp_path, *devices, system=system) == "cd"
    log = next(tmp_path.rglob("log/guest.log")).read_text()
    assert "menu=on,splash-time=200" in log
