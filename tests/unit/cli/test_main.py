"""The frame: tools by name, errors in one line, exit codes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hostel.cli import main as frame
from hostel.errors import HostelError


def test_an_unknown_tool_is_refused_with_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    assert frame.main(["hostel", "virhs"]) == 1
    assert "did you mean 'virsh'?" in capsys.readouterr().err


def test_a_link_named_virsh_is_virsh(capsys: pytest.CaptureFixture[str]) -> None:
    assert frame.main(["/usr/local/bin/virsh", "-v"]) == 0
    assert capsys.readouterr().out == "9.0.0\n"


def test_bytes_that_are_no_utf8_are_printed_as_they_are() -> None:
    words = [b"virsh", b"-c", b"test:///default", b"echo", b"\xff\xfe"]
    done = subprocess.run([sys.executable, "-m", "hostel", *words], capture_output=True, timeout=30, check=True)
    assert done.stdout == b"\xff\xfe\n"


def test_help_names_every_tool(capsys: pytest.CaptureFixture[str]) -> None:
    assert frame.main(["hostel", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in frame.TOOLS)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (HostelError("what to do"), 1, "p: what to do\n"),
        (FileNotFoundError(2, "No such file or directory", "x.img"), 1, "p: x.img: No such file or directory\n"),
        (KeyboardInterrupt(), 130, "\n"),
    ],
    ids=["ours", "host", "interrupt"],
)
def test_an_error_is_one_line_and_an_exit_code(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOSTEL_DEBUG", raising=False)

    def fail() -> int:
        raise error

    assert frame.guarded("p: ", fail) == code
    assert capsys.readouterr().err == line


def test_a_traceback_is_shown_only_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> int:
        raise ValueError("a bug")

    monkeypatch.setenv("HOSTEL_DEBUG", "1")
    with pytest.raises(ValueError, match="a bug"):
        frame.guarded("p: ", fail)
    monkeypatch.delenv("HOSTEL_DEBUG")
    assert frame.guarded("p: ", fail) == 1


@pytest.mark.parametrize(
    "left",
    [
        "import atexit; atexit.register(print, 'last word', end='')",
        "import threading; threading.Timer(0.2, print, ['last word'], {'end': ''}).start()",
    ],
    ids=["registered", "thread"],
)
def test_what_is_left_to_do_is_done_before_the_process_ends(left: str) -> None:
    script = f"{left}; from hostel.cli.main import run; import sys; sys.argv = ['hostel', 'no-such-tool']; run()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, b"last word")
