"""Programs that end without closing what they wrote."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from support.image import assert_clean, content, qemu_img

WRITING = """
import os, sys
from hostel.block import graph
node = graph.open(sys.argv[1], "qcow2", read_only=False)
node.pwrite(0, b"\\x07" * 65536)
"""


def run(program: str, path: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    qemu_img("create", "-q", "-f", "qcow2", path, "8M")
    words = [sys.executable, *flags, "-c", WRITING + program, str(path)]
    return subprocess.run(words, check=False, capture_output=True, text=True, timeout=60)


def test_what_is_left_open_is_closed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "x.qcow2"
    for end in ("", "del node", "sys.exit(3)", "raise ValueError", "node.share()"):
        path.unlink(missing_ok=True)
        done = run(end, path)
        assert "unclosed" not in done.stderr
        assert content(path, "qcow2")[:65537] == b"\x07" * 65536 + b"\0"
        assert_clean(path, "qcow2")


def test_it_is_told_where_such_warnings_are_wanted(tmp_path: Path) -> None:
    path = tmp_path / "x.qcow2"
    done = run("", path, "-W", "default::ResourceWarning")
    assert f"ResourceWarning: unclosed image '{path}'" in done.stderr
    path.unlink()
    assert run("node.close()", path, "-W", "default::ResourceWarning").stderr == ""


def test_it_is_closed_also_where_warnings_are_errors(tmp_path: Path) -> None:
    path = tmp_path / "x.qcow2"
    assert f"unclosed image '{path}'" in run("", path, "-W", "error").stderr
    assert content(path, "qcow2")[:1] == b"\x07"


def test_failure_is_printed(tmp_path: Path) -> None:
    path = tmp_path / "x.qcow2"
    done = run("import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))", path)
    assert f"RuntimeWarning: '{path}' was not closed, and could not be at the end: File too large\n" in done.stderr


def test_forked_child_leaves_them_to_its_parent(tmp_path: Path) -> None:
    path = tmp_path / "x.qcow2"
    done = run("os.fork() or sys.exit(0); os.wait()", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert content(path, "qcow2")[:1] == b"\x07"
    assert_clean(path, "qcow2")
