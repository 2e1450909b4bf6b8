"""``hostel quickstart`` as a user meets it: what it proves, what it leaves behind, and how it fails."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel import guest

pytestmark = pytest.mark.qemu
HOSTEL = [sys.executable, "-m", "hostel"]
EMULATOR = shutil.which("qemu-system-x86_64") or ""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where the tour is to happen; nothing must be there afterwards."""
    return tmp_path / "tour"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A user's environment, with a home and a place for temporary files of its own."""
    for name in ("home", "temporary", "bin"):
        (tmp_path / name).mkdir()
    found = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "HOSTEL_"))}
    return {**found, "HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "temporary")}


def tour(environment: dict[str, str], *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    argv = [*HOSTEL, "quickstart", *map(str, arguments)]
    return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=300, check=False)


def machines_of(place: Path) -> list[bytes]:
    """The command lines of all QEMUs that name this directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes()
        except OSError:
            continue
        if b"qemu-system" in command.split(b"\0")[0] and os.fsencode(place) in command:
            found.append(command)
    return found


def assert_nothing_is_left(tmp_path: Path, place: Path) -> None:
    assert not place.exists()
    assert list((tmp_path / "home").iterdir()) == list((tmp_path / "temporary").iterdir()) == []
    assert machines_of(tmp_path) == []


def put_emulator(tmp_path: Path, environment: dict[str, str], script: str) -> None:
    """Put a stand-in for QEMU before the real one."""
    path = tmp_path / "bin" / "qemu-system-x86_64"
    path.write_text(f"#!{sys.executable}\nimport os, sys\n{script}\n")
    path.chmod(0o755)
    environment["PATH"] = f"{path.parent}:{environment['PATH']}"


def test_the_guest_proves_it_and_nothing_is_left_twice_in_a_row(
    tmp_path: Path, place: Path, environment: dict[str, str]
) -> None:
    for arguments in ((), ("--dir", place)):
        ended = tour(environment, *arguments)
        assert (ended.returncode, ended.stderr) == (0, "")
        assert re.search(r"PROVEN by the guest: .* QEMU \d+\.\d+\.\d+ \((TCG|KVM)\) and counted 1, 2, 2 ", ended.stdout)
        assert "serial port: HOSTEL-GUEST label=quickstart medium=disk" in ended.stdout
        assert "Images are identical." in ended.stdout
        assert "NOT REAL" not in ended.stdout
        assert_nothing_is_left(tmp_path, place)


def test_what_is_printed_can_be_typed(tmp_path: Path, place: Path, environment: dict[str, str]) -> None:
    said = tour(environment, "--dir", place).stdout
    (tmp_path / "bin/hostel").write_text(f'#!/bin/sh\nexec {sys.executable} -m hostel "$@"\n')
    (tmp_path / "bin/hostel").chmod(0o755)
    place.mkdir()
    lines = ["set -eu"]
    for match in re.finditer(r"^  \$ ((?:.*\\\n)*.*)|^    (the guest boots|the machine is off)", said, re.MULTILINE):
        command, waiting = match.groups()
        if command and not command.startswith("export PATH"):
            lines.append(command)
        elif waiting == "the guest boots":
            count = sum(line.startswith("until [ $(grep -c done") for line in lines) + 1
            lines.append(f"until [ $(grep -c done serial.log) = {count} ]; do sleep 0.1; done")
        elif waiting:
            lines.append("until hostel virsh domstate quickstart | grep -q 'shut off'; do sleep 0.1; done")
    environment["PATH"] = f"{tmp_path / 'bin'}:{environment['PATH']}"
    typed = subprocess.run(
        ["sh", "-c", "\n".join(lines)], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert (typed.returncode, typed.stderr) == (0, ""), typed.stdout
    reports = guest.parse_reports((place / "serial.log").read_text())
    assert [(report.boot, report.ok) for report in reports] == [(1, True), (2, True), (2, True)]
    assert typed.stdout.count("Images are identical.") == 1
    assert machines_of(place) == []


def test_what_is_kept_can_be_gone_on_with(tmp_path: Path, place: Path, environment: dict[str, str]) -> None:
    ended = tour(environment, "--keep", "--dir", place)
    assert ended.returncode == 0
    assert f"All of it is left in {place}" in ended.stdout
    environment["HOSTEL_HOME"] = str(place)
    for words, expected in (
        (["virsh", "list", "--all", "--name"], "quickstart\n\n"),
        (["virsh", "start", "quickstart"], "Domain 'quickstart' started\n\n"),
        (["virsh", "destroy", "quickstart"], "Domain 'quickstart' destroyed\n\n"),
    ):
        done = subprocess.run(
            [*HOSTEL, *words], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, expected, "")
    again = tour(environment, "--dir", place)
    assert again.returncode == 1
    assert again.stderr == f"error: '{place}' is not empty: remove what is in it, or name another directory\n"
    assert (place / "pool/copy.qcow2").exists()


@pytest.mark.parametrize("option", ["", "--no-qemu"])
def test_without_qemu_it_says_what_was_not_real_and_what_to_install(
    tmp_path: Path, place: Path, environment: dict[str, str], option: str
) -> None:
    if not option:
        environment["PATH"] = str(tmp_path / "bin")
    ended = tour(environment, "--dir", place, *filter(None, [option]))
    assert ended.returncode == 3
    assert ended.stderr == ""
    assert ended.stdout.count("NOT REAL: no guest ran") == 3
    assert ("apt-get install qemu-system-x86" in ended.stdout) == (not option)
    assert "PROVEN" not in ended.stdout
    assert "Images are identical." in ended.stdout
    assert_nothing_is_left(tmp_path, place)


def test_a_guest_that_cannot_write_its_disk_proves_nothing(
    tmp_path: Path, place: Path, environment: dict[str, str]
) -> None:
    edit = "[word.replace('\"read-only\": false', '\"read-only\": true') for word in sys.argv[1:]]"
    put_emulator(tmp_path, environment, f"os.execv({EMULATOR!r}, [{EMULATOR!r}, *{edit}])")
    ended = tour(environment, "--dir", place)
    assert ended.returncode == 1
    assert "write=write-error" in ended.stdout
    assert "exit code 1" in ended.stderr
    assert "PROVEN" not in ended.stdout
    assert_nothing_is_left(tmp_path, place)


def test_a_qemu_that_does_not_start_is_quoted(tmp_path: Path, place: Path, environment: dict[str, str]) -> None:
    fail = "sys.exit('qemu-system-x86_64: out of luck')"
    put_emulator(tmp_path, environment, f"'-S' in sys.argv and {fail}\nos.execv({EMULATOR!r}, sys.argv)")
    ended = tour(environment, "--dir", place)
    assert ended.returncode == 1
    assert "out of luck" in ended.stderr
    assert_nothing_is_left(tmp_path, place)


@pytest.fixture
def running(place: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    # Who runs the tests may have been told to ignore that signal, as by nohup; it would be, too.
    argv = ["env", "--default-signal=HUP", *HOSTEL, "quickstart", "--dir", str(place)]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, env=environment, stdout=pipe, stderr=pipe, text=True) as child:
        yield child
        child.kill()


@pytest.mark.parametrize(
    ("number", "moment", "pause"),
    [
        (signal.SIGINT, "vol-create-as", 0),
        (signal.SIGINT, "virt-install", 0.2),
        (signal.SIGINT, "serial port: ", 0.1),
        (signal.SIGTERM, "virt-install", 0.3),
        (signal.SIGHUP, "serial port: ", 0),
    ],
)
def test_a_signal_ends_it_and_nothing_is_left(
    tmp_path: Path, place: Path, running: subprocess.Popen[str], number: signal.Signals, moment: str, pause: float
) -> None:
    assert running.stdout is not None
    assert running.stderr is not None
    assert any(moment in line for line in running.stdout)
    time.sleep(pause)
    running.send_signal(number)
    running.send_signal(number)  # the second one must not keep it from cleaning up
    rest, errors = running.communicate(timeout=60)
    assert running.returncode == 128 + number
    assert errors.endswith(f"\nInterrupted\nRemoved {place}; --keep leaves it for a look\n")
    assert "Traceback" not in errors
    assert "PROVEN" not in rest
    assert_nothing_is_left(tmp_path, place)


def test_nobody_reads_on_and_nothing_is_left(tmp_path: Path, place: Path, running: subprocess.Popen[str]) -> None:
    assert running.stdout is not None
    assert running.stderr is not None
    assert any("[2/6]" in line for line in running.stdout)
    running.stdout.close()
    assert running.wait(60) == 141
    assert "Traceback" not in running.stderr.read()
    assert_nothing_is_left(tmp_path, place)
