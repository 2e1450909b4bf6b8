"""``hostel guest``: what it writes, what it refuses, and what it reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostel import guest
from hostel.cli.main import run_tool

MIB = 1 << 20


def run(*words: str | Path) -> int:
    return run_tool("guest", [str(word) for word in words])


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    path.write_bytes(bytes(MIB))
    return path


def test_guest_is_written_with_its_label_and_mode(disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("write", "-f", "raw", "--label", "alpha", "--mode", "wait", disk) == 0
    assert disk.read_bytes() == guest.image(label="alpha", mode=guest.Mode.WAIT, size=MIB)
    assert capsys.readouterr().out == f"The guest 'alpha', 4096 bytes, is on {disk}\n"


def test_guest_replaces_a_guest_but_nothing_else_without_force(disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("write", "-f", "raw", disk) == run("write", "-f", "raw", "--label", "other", disk) == 0
    disk.write_bytes(b"precious" + bytes(MIB - 8))
    assert run("write", "-f", "raw", disk) == 1
    assert capsys.readouterr().err == (
        f"error: {disk}: something else is at the start of this disk; --force overwrites it\n"
    )
    assert disk.read_bytes() == b"precious" + bytes(MIB - 8)
    assert run("write", "-f", "raw", "--force", disk) == 0
    assert disk.read_bytes() == guest.image(size=MIB)


def test_disk_that_is_too_small_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "small"
    path.write_bytes(bytes(512))
    assert run("write", "-f", "raw", path) == 1
    assert capsys.readouterr().err == f"error: {path}: the guest needs 4096 bytes, and this image has 512\n"


def test_count_reads_what_the_guest_counted_and_goes_up_on_request(
    disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("write", "-f", "raw", disk)
    capsys.readouterr()
    for words in ((), ("--up",), ("--up",), ("--up",)):
        assert run("count", "-f", "raw", *words, disk) == 0
    said = [line.partition("booted ")[2] for line in capsys.readouterr().out.splitlines()]
    assert said == ["never", "once", "twice", "3 times"]
    assert guest.read_state(disk.read_bytes()[guest.state_offset() :][:512]) == guest.State(3, True)


def test_count_refuses_a_disk_without_guest_and_a_damaged_counter(
    disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("count", "-f", "raw", disk) == 1
    assert "the guest is not on this disk" in capsys.readouterr().err
    run("write", "-f", "raw", disk)
    run("count", "-f", "raw", "--up", disk)
    content = bytearray(disk.read_bytes())
    content[guest.state_offset() + 100] ^= 1
    disk.write_bytes(content)
    assert run("count", "-f", "raw", "--up", disk) == 1
    assert "damaged" in capsys.readouterr().err
    assert disk.read_bytes() == content


def test_report_is_one_line_a_boot_and_the_last_one_decides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log"
    boot = "HOSTEL-GUEST label=a medium=disk drive=0x80 sectors=2048 sector-size=512 boot={} write={}\r\n"
    done = "HOSTEL-GUEST done failures={} mode=wait\r\n"
    log.write_text(boot.format(1, "write-error") + done.format(1) + boot.format(2, "ok") + done.format(0))
    assert run("report", log) == 0
    assert capsys.readouterr().out.splitlines() == [
        "a: boot 1, from disk 80h of 1 MiB, write-error, 1 failure",
        "a: boot 2, from disk 80h of 1 MiB, wrote its disk and read it back, no failures",
    ]
    log.write_text(boot.format(1, "ok"))
    assert run("report", log) == 1
    assert "did not finish" in capsys.readouterr().out
    log.write_text("Booting from Hard Disk...\r\n")
    assert run("report", log) == 1
    assert capsys.readouterr().err == f"error: {log}: no guest has spoken here\n"


@pytest.mark.parametrize("words", [(), ("no-such",), ("write",), ("write", "--mode", "dance", "x")])
def test_wrong_command_line_is_an_error_that_names_the_help(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words) == 1
    assert "--help' for more information." in capsys.readouterr().err
