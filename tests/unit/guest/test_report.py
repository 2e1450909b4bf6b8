"""Reading the guest's serial port."""

from __future__ import annotations

from hostel import guest
from hostel.guest import Disk, Outcome

LOG = """SeaBIOS (version 1.16)\r\n\r
HOSTEL-GUEST label=alpha medium=disk drive=0x80 sectors=2048 sector-size=512 boot=3 write=ok\r
HOSTEL-GUEST disk drive=0x80 sectors=2048 sector-size=512\r
HOSTEL-GUEST disk drive=0x81 sectors=4096 sector-size=512\r
HOSTEL-GUEST fill drive=0x80 lba=100 sectors=200 result=ok\r
HOSTEL-GUEST sum drive=0x80 lba=0 sectors=5 crc32=95754644 result=ok\r
HOSTEL-GUEST verify drive=0x80 lba=90 sectors=20 result=differs at=91\r
HOSTEL-GUEST done failures=1 mode=poweroff\r
"""


def test_report_has_every_field() -> None:
    report = guest.parse_report(LOG)
    assert report is not None
    assert (report.label, report.medium, report.boot, report.write) == ("alpha", "disk", 3, "ok")
    assert report.drive == Disk(0x80, 2048, 512)
    assert report.drive.size == 1 << 20
    assert report.disks == (Disk(0x80, 2048, 512), Disk(0x81, 4096, 512))
    assert report.outcomes == (
        Outcome("fill", 0x80, 100, 200, "ok", None, None),
        Outcome("sum", 0x80, 0, 5, "ok", 0x95754644, None),
        Outcome("verify", 0x80, 90, 20, "differs", None, 91),
    )
    assert (report.failures, report.mode, report.complete, report.ok) == (1, "poweroff", True, False)


def test_report_without_failures_is_ok() -> None:
    report = guest.parse_report(LOG.replace("failures=1", "failures=0"))
    assert report is not None
    assert report.ok


def test_report_that_is_not_finished_is_neither_complete_nor_ok() -> None:
    report = guest.parse_report(LOG[: LOG.index("HOSTEL-GUEST done")])
    assert report is not None
    assert not report.complete
    assert not report.ok


def test_last_line_counts_only_when_it_is_whole() -> None:
    report = guest.parse_report(LOG.replace("failures=1", "failures=0").rstrip() + "")
    assert report is not None
    assert not report.complete


def test_each_boot_of_a_log_is_a_report_of_its_own() -> None:
    reports = guest.parse_reports(LOG + LOG.replace("boot=3", "boot=4"))
    assert [report.boot for report in reports] == [3, 4]


def test_escape_sequences_before_a_line_are_skipped() -> None:
    report = guest.parse_report("\x1b[2J\x1b[1;1H" + LOG.lstrip())
    assert report is not None
    assert report.boot == 3


def test_cdrom_has_no_boot_counter() -> None:
    line = "HOSTEL-GUEST label=cd medium=cdrom drive=0xe0 sectors=28 sector-size=2048 write=none\r\n"
    report = guest.parse_report(line + "HOSTEL-GUEST done failures=0 mode=wait\r\n")
    assert report is not None
    assert report.boot is None
    assert report.ok


def test_error_and_power_button_lines_belong_to_the_boot_before() -> None:
    log = LOG.replace("failures=1", "failures=0")
    report = guest.parse_report(log + "HOSTEL-GUEST power-button\r\nHOSTEL-GUEST error=poweroff\r\n")
    assert report is not None
    assert report.power_button
    assert report.errors == ("poweroff",)
    assert not report.ok


def test_log_without_a_guest_and_damaged_lines_give_no_report() -> None:
    assert guest.parse_report("") is None
    assert guest.parse_report("no bootable device\r\n") is None
    assert guest.parse_report("HOSTEL-GUEST label=x medium=disk\r\n") is None
    assert guest.parse_report("HOSTEL-GUEST label=x medium=disk drive=zz sectors=1 sector-size=1 write=ok\r\n") is None
    assert guest.parse_report("HOSTEL-GUEST done failures=0 mode=stay\r\n") is None
