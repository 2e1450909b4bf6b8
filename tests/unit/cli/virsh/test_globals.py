"""Options before virsh's command, what it says of its own work, and its shell at a terminal."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hostel.cli.virsh.globals import parse_globals
from hostel.cli.virsh.main import main
from hostel.cli.virsh.trace import Level, Trace
from hostel.errors import UsageError

URI = "test:///default"


def test_options_end_at_the_command() -> None:
    found = parse_globals(["-qrk", "7", "--keepalive-count=0x3", "--deb", "1", "-c", "a", "-cb", "list", "-q", "--all"])
    assert (found.quiet, found.read_only, found.timing) == (True, True, False)
    assert (found.interval, found.count, found.debug, found.uri) == (7, 3, 1, "b")
    assert found.words == ["list", "-q", "--all"]
    assert parse_globals(["--", "-q"]).words == ["-q"]


@pytest.mark.parametrize("value", ["010", " 8", "+8", "0x8"])
def test_numbers_are_cs(value: str) -> None:
    assert parse_globals(["-k", value]).interval == 8


@pytest.mark.parametrize("value", ["", "08", "8 ", "2147483648", "1_0", "x"])
def test_what_is_no_number_is_refused(value: str) -> None:
    with pytest.raises(UsageError, match=r"^Invalid value for option -k$"):
        parse_globals(["-k", value])


def test_log_keeps_errors_and_what_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    assert main(["-l", str(log), "-d", "1", "-c", URI, "domid nosuch"]) == 1
    monkeypatch.setenv("VIRSH_LOG_FILE", str(log))
    monkeypatch.setenv("VIRSH_DEBUG", "x")
    assert main(["-c", URI, "domid", "again"]) == 1
    said = capsys.readouterr()
    assert said.out.startswith('commands: "domid nosuch"\ndomid: domain(optdata): nosuch\n')
    assert "error: VIRSH_DEBUG not set with a valid numeric value\n" in said.err
    lines = log.read_text().splitlines()
    assert all(
        re.match(rf"\[\d{{4}}\.\d\d\.\d\d \d\d:\d\d:\d\d virsh {os.getpid()}\] (INFO|ERROR) ", line) for line in lines
    )
    assert [line.split("] ")[1] for line in lines][-2:] == [
        "ERROR failed to get domain 'nosuch'", "ERROR failed to get domain 'again'",
    ]  # fmt: skip


def test_log_that_cannot_be_written_ends_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-l", str(tmp_path / "none" / "log"), "list"]) == 1
    assert capsys.readouterr().err.startswith("error: failed to open the log file. check the log file path\n")


def test_less_than_what_is_asked_for_is_not_shown() -> None:
    out = io.StringIO()
    trace = Trace(out, Level.INFO)
    trace.say(Level.DEBUG, "no")
    trace.say(Level.INFO, "yes")
    assert out.getvalue() == "yes\n"


def test_shell_at_a_terminal_completes_and_remembers(tmp_path: Path) -> None:
    environment = {**os.environ, "HOSTEL_HOME": str(tmp_path), "TERM": "dumb", "INPUTRC": "/dev/null"}
    environment.pop("VIRSH_HISTSIZE", None)
    argv = [sys.executable, "-m", "hostel", "virsh", "-c", URI]
    assert b"\r\n1\r\n" in _typed(argv, environment, b"domid --dom\tte\t\n")
    # Another shell has the line still: the key for the one before brings it back.
    assert b"domid --domain test" in _typed(argv, environment, b"\x10\x10\n")
    assert (tmp_path / "cache" / "virsh" / "history").read_text().splitlines()[:2] == ["domid --domain test ", "quit"]


def _typed(argv: list[str], environment: dict[str, str], keys: bytes) -> bytes:
    """What a shell shows when keys are typed, and then ``quit``."""
    ours, theirs = pty.openpty()
    shell = subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    shown = b""
    try:
        while b"virsh # " not in shown:
            shown += os.read(ours, 4096)
        os.write(ours, keys + b"quit\n")
        while piece := _read(ours):
            shown += piece
        assert shell.wait(30) == 0, shown
        return shown
    finally:
        shell.kill()
        shell.wait()
        os.close(ours)


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:  # the other side is closed
        return b""
