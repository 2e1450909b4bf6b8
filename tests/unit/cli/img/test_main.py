"""The frame of qemu-img: table of commands, help, errors."""

from __future__ import annotations

import importlib
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from hostel.block.registry import FILES, FILTERS, FORMATS, PROTOCOLS
from hostel.cli.img.main import COMMANDS, main
from hostel.cli.qemu.release import QEMU_VERSION
from hostel.cli.qemu_io.main import main as qemu_io


def test_help_shows_every_command_and_format(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"], "qemu-img") == 0
    out = capsys.readouterr().out
    for name in COMMANDS:
        assert f"\n  {name} " in out
    names = sorted((*FORMATS, *PROTOCOLS, *FILES, *FILTERS))
    assert f"\nSupported formats: {' '.join(names)}\n" in out
    assert {"raw", "nbd", "file", "throttle"} < set(names)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_tells_of_each_of_its_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"], "qemu-img") == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: qemu-img {name} ")
    for flag in importlib.import_module(COMMANDS[name]).COMMAND.flags:
        for each in flag.names:
            assert f"--{each}" in out if len(each) > 1 else f"-{each}" in out


def test_the_version_begins_as_qemus_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-V", "--nonsense"], "qemu-img") == 0
    assert capsys.readouterr().out.startswith(f"qemu-img version {QEMU_VERSION} (Hostel ")


def test_nothing_to_do_is_no_error() -> None:
    assert main(["-T", "foo"], "qemu-img") == 0


def test_errors_begin_with_the_name_it_was_called_by(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nonsense"], "my-img") == 1
    assert capsys.readouterr().err == (
        "my-img: Command not found: nonsense\nTry 'my-img --help' for more information\n"
    )


def test_names_of_any_bytes_are_printed(tmp_path: Path) -> None:
    path = bytes(tmp_path) + b"/\xff\xfe"
    Path(path.decode(errors="surrogateescape")).write_bytes(bytes(512))
    ended = subprocess.run(
        [sys.executable, "-m", "hostel", "qemu-img", "info", "-f", "raw", path],
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert ended.stdout.startswith(b"image: " + path + b"\n")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_are_no_failure_and_no_image(tmp_path: Path, closed: str) -> None:
    path = tmp_path / "a"
    ended = subprocess.run(
        ["sh", "-c", f'exec "$1" -m hostel qemu-img create -f qcow2 "$2" 1M {closed}', "sh", sys.executable, path],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert main(["check", "-q", "-f", "qcow2", str(path)], "qemu-img") == 0


@pytest.mark.parametrize("command", ["info", "map", "map --output=json", "check", "snapshot -l", "measure"])
def test_a_reader_that_has_gone_is_no_news(tmp_path: Path, command: str) -> None:
    assert main(["create", "-q", "-f", "qcow2", str(tmp_path / "a"), "1M"], "qemu-img") == 0
    ended = _shut_out([*command.split(), str(tmp_path / "a")], "pipe")
    assert (ended.returncode, ended.stderr) == (0, b"")  # QEMU's ignores SIGPIPE, too


_WORK = (
    ("create -f raw x 1M", "x"),
    ("convert -p -f raw -O raw a x", "x"),
    ("convert -p -f raw -O qcow2 a x", "x"),
    ("resize -f raw a 2M", "a"),
    ("commit -p top", "a"),
    ("rebase -p -b '' top", "top"),
    ("amend -p -o compat=0.10 top", "top"),
)


@pytest.mark.parametrize("shut", ["pipe", "full"])
@pytest.mark.parametrize(("command", "changed"), _WORK)
def test_work_is_done_though_nobody_hears_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, changed: str, shut: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a").write_bytes(bytes(range(256)) * 4096)
    assert main(["create", "-q", "-f", "qcow2", "-b", "a", "-F", "raw", "top"], "qemu-img") == 0
    assert qemu_io(["-c", "write -q 0 64k", "top"], "qemu-io") == 0
    before = Path(changed).read_bytes() if Path(changed).exists() else None
    ended = _shut_out(shlex.split(command), shut)
    assert Path(changed).read_bytes() != before
    assert main(["check", "-q", "top"], "qemu-img") == 0
    told = b"qemu-img: Could not write to standard output: No space left on device\n"
    assert (ended.returncode, ended.stderr) == (0, b"" if shut == "pipe" else told)


@pytest.mark.parametrize(("command", "code"), [("info", 1), ("map", 1), ("measure", 1), ("compare -F raw", 2)])
def test_a_result_that_cannot_be_told_is_a_failure(tmp_path: Path, command: str, code: int) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(512))
    ended = _shut_out([*command.split()[:3], "-f", "raw", *[str(path)] * (2 if code == 2 else 1)], "full")
    assert (ended.returncode, ended.stderr.count(b"\n")) == (code, 1)


def _shut_out(words: list[str], shut: str) -> subprocess.CompletedProcess[bytes]:
    """Run the tool with a standard output that nobody reads any more, or that is full."""
    if shut == "pipe":
        reading, writing = os.pipe()
        os.close(reading)
    else:
        writing = os.open("/dev/full", os.O_WRONLY)
    try:
        return subprocess.run(
            [sys.executable, "-m", "hostel", "qemu-img", *words],
            stdout=writing,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writing)
