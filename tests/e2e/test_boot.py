"""The built-in guest under real QEMU: every bus, what it reports, and how it ends."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest

from hostel import guest
from hostel.guest import Mode, Operation, OperationCode
from support import qemu
from support.guest import Oracle, report_of, write_iso

pytestmark = pytest.mark.qemu
MIB = 1 << 20


def raw(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("bus", qemu.BUSES)
def test_guest_reads_and_writes_what_the_oracle_expects_on_each_bus(tmp_path: Path, bus: str) -> None:
    oracle = Oracle(4 * MIB, seed=len(bus))
    before = oracle.image(bus)
    disk = raw(tmp_path / "disk.raw", before)
    report = report_of(qemu.boot(qemu.disk(disk, "raw", bus)))
    assert report.ok
    assert report.label == bus
    assert report.boot == 1
    assert report.drive.size == 4 * MIB
    assert [outcome.result for outcome in report.outcomes] == ["ok"] * len(oracle.operations())
    assert disk.read_bytes() == oracle.after(before, 1)


@pytest.mark.parametrize("machine", ["pc", "q35"])
def test_boot_counter_goes_up_on_each_boot(tmp_path: Path, machine: str) -> None:
    disk = raw(tmp_path / "disk.raw", guest.image(label="counter", size=MIB))
    args = ["-machine", machine, *qemu.disk(disk)]
    assert [report_of(qemu.boot(args)).boot for _ in range(3)] == [1, 2, 3]
    state = guest.read_state(disk.read_bytes()[guest.state_offset() :][: guest.SECTOR])
    assert state == guest.State(3, True)


def test_sum_is_the_crc_of_zlib(tmp_path: Path) -> None:
    operations = [Operation(OperationCode.SUM, 64, 700), Operation(OperationCode.SUM, 0, 3)]
    content = bytearray(guest.image(operations=operations, size=MIB))
    content[64 * 512 : 764 * 512] = bytes(range(256)) * (700 * 2)
    report = report_of(qemu.boot(qemu.disk(raw(tmp_path / "disk.raw", bytes(content)))))
    assert [outcome.crc32 for outcome in report.outcomes] == [
        zlib.crc32(content[64 * 512 : 764 * 512]),
        zlib.crc32(content[: 3 * 512]),
    ]


def test_one_wrong_byte_is_reported_with_its_sector(tmp_path: Path) -> None:
    operations = [Operation(OperationCode.VERIFY, 100, 300, seed=5), Operation(OperationCode.VERIFY, 1000, 8, seed=6)]
    content = bytearray(guest.image(operations=operations, size=MIB))
    content[100 * 512 : 400 * 512] = guest.pattern(5, 100, 300)
    content[1000 * 512 : 1008 * 512] = guest.pattern(6, 1000, 8)
    content[333 * 512 + 511] ^= 1
    report = report_of(qemu.boot(qemu.disk(raw(tmp_path / "disk.raw", bytes(content)))))
    assert [(outcome.result, outcome.at) for outcome in report.outcomes] == [("differs", 333), ("ok", None)]
    assert report.failures == 1
    assert not report.ok


def test_a_write_that_the_disk_refuses_is_reported(tmp_path: Path) -> None:
    disk = raw(tmp_path / "disk.raw", guest.image(operations=[Operation(OperationCode.FILL, 5000, 1)], size=MIB))
    report = report_of(qemu.boot(qemu.disk(disk)))
    assert [(outcome.result, outcome.at) for outcome in report.outcomes] == [("write-error", 5000)]
    assert not report.ok


def test_read_only_disk_is_reported_as_one(tmp_path: Path) -> None:
    disk = raw(tmp_path / "disk.raw", guest.image(size=MIB))
    args = [*qemu.blockdev(disk, "raw", read_only=True), "-device", "virtio-blk-pci,drive=disk0"]
    report = report_of(qemu.boot(args))
    assert report.write == "write-error"
    assert not report.ok
    assert disk.read_bytes() == guest.image(size=MIB)


def test_guest_works_on_a_second_disk_by_its_drive_number(tmp_path: Path) -> None:
    operations = [Operation(OperationCode.FILL, 10, 70, seed=9, drive=0x81)]
    first = raw(tmp_path / "first.raw", guest.image(operations=operations, size=MIB))
    second = raw(tmp_path / "second.raw", bytes(2 * MIB))
    args = [*qemu.disk(first, extra="bootindex=1"), *qemu.disk(second, bus="scsi", node="disk1")]
    report = report_of(qemu.boot(args))
    assert report.ok
    assert [disk.size for disk in report.disks] == [MIB, 2 * MIB]
    assert second.read_bytes() == bytes(5120) + guest.pattern(9, 10, 70) + bytes(2 * MIB - 80 * 512)


def test_guest_reports_the_size_of_a_disk_beyond_two_tebibytes_and_writes_at_its_end(tmp_path: Path) -> None:
    size = 5 << 40
    last = size // 512 - 1
    operations = [Operation(OperationCode.FILL, last, 1, seed=3), Operation(OperationCode.VERIFY, last, 1, seed=3)]
    disk = tmp_path / "disk.raw"
    disk.write_bytes(guest.image(operations=operations))
    with disk.open("r+b") as file:
        try:
            file.truncate(size)
        except OSError:
            pytest.skip("this file system holds no file of 5 TiB")
    report = report_of(qemu.boot(qemu.disk(disk)))
    assert report.drive.size == size
    assert report.ok
    with disk.open("rb") as file:
        file.seek(last * 512)
        assert file.read() == guest.pattern(3, last)


@pytest.mark.parametrize("machine", ["pc", "q35"])
def test_power_button_ends_the_guest_in_mode_wait(tmp_path: Path, machine: str) -> None:
    disk = raw(tmp_path / "disk.raw", guest.image(mode=Mode.WAIT, size=MIB))
    with qemu.machine(["-machine", machine, *qemu.disk(disk)], monitor=tmp_path / "qmp") as running:
        running.wait_for("mode=wait\r\n")
        running.qmp("system_powerdown")
        assert running.wait(timeout=20) == 0
        report = report_of(running.serial)
    assert report.power_button
    assert report.ok


def test_mode_stay_ignores_the_power_button_and_echoes_the_console(tmp_path: Path) -> None:
    disk = raw(tmp_path / "disk.raw", guest.image(mode=Mode.STAY, size=MIB))
    with qemu.machine(qemu.disk(disk), monitor=tmp_path / "qmp") as running:
        running.wait_for("mode=stay\r\n")
        running.qmp("system_powerdown")
        running.type("knock, knock\r")
        running.wait_for("knock, knock\r\n", timeout=20)
        assert running.process.poll() is None
        assert not report_of(running.serial).power_button


def test_mode_reboot_restarts_until_the_counter_is_reached(tmp_path: Path) -> None:
    disk = raw(tmp_path / "disk.raw", guest.image(mode=Mode.REBOOT, until=3, size=MIB))
    with qemu.machine(qemu.disk(disk)) as running:
        assert running.wait(timeout=60) == 0
        reports = guest.parse_reports(running.serial)
    assert [report.boot for report in reports] == [1, 2, 3]


def test_machine_without_acpi_is_told_that_it_cannot_be_switched_off(tmp_path: Path) -> None:
    disk = raw(tmp_path / "disk.raw", guest.image(size=MIB))
    with qemu.machine(["-machine", "acpi=off", *qemu.disk(disk)]) as running:
        running.wait_for("error=poweroff\r\n", timeout=30)
        assert report_of(running.serial).errors == ("poweroff",)


def test_disk_and_cdrom_answer_differently(tmp_path: Path) -> None:
    disk = raw(tmp_path / "disk.raw", guest.image(label="disk-of-test", size=MIB))
    iso = write_iso(tmp_path / "cd.iso", label="cd-of-test")
    from_disk = report_of(qemu.boot([*qemu.disk(disk), *qemu.cdrom(iso), "-boot", "order=c"]))
    from_cd = report_of(qemu.boot([*qemu.disk(disk), *qemu.cdrom(iso), "-boot", "order=d"]))
    assert (from_disk.label, from_disk.medium, from_disk.boot) == ("disk-of-test", "disk", 1)
    assert (from_cd.label, from_cd.medium, from_cd.boot) == ("cd-of-test", "cdrom", None)
    assert from_cd.ok
    assert from_cd.drive.sector_size == 2048
    assert from_cd.drive.size == iso.stat().st_size


def test_probe_sector_ends_qemu_with_the_probe_status(tmp_path: Path) -> None:
    disk = raw(tmp_path / "probe.raw", guest.probe_sector())
    args = ["-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-debugcon", f"file:{tmp_path / 'debug'}"]
    with qemu.machine([*args, *qemu.disk(disk, bus="ide")]) as running:
        assert running.wait(timeout=30) == guest.PROBE_STATUS
    assert (tmp_path / "debug").read_text() == "HOSTEL-PROBE\n"
