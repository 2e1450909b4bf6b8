"""Documents in an editor: our virsh beside real virsh, on the test driver; and the talk where one is not taken."""

from __future__ import annotations

import os
import pty
import select
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hostel.drivers.registry import open_drivers
from hostel.drivers.store import Directories
from hostel.objects import Connection
from support.virsh import real_lines, run_lines

pytestmark = [pytest.mark.requires_tool("virsh")]
CHANGED = "The XML configuration was changed by another user."
# What the editor does: the second time there is nothing left to do.
EDITOR = """#!/bin/sh
[ "$(stat -c %a "$1")" = 600 ] || exit 9
sed -i -e 's/>2097152</>1048576</' -e "s/mtu size='1492'/mtu size='1400'/" \\
    -e "s,<title>.*,<title>x</title>," -e 's/stp=.on. delay=.0./stp="on" delay="3"/' \\
    -e 's,/default-pool<,/other-pool<,' -e 's/^old/new/' "$1"
"""
LINES = (
    "edit test",
    "edit test",
    "edit test --skip-validate",
    "edit nothing",
    "dumpxml test --inactive --xpath /domain/currentMemory",
    "pool-edit default-pool",
    "pool-dumpxml default-pool --xpath //path",
    "net-edit default",
    "iface-edit eth1",
    "iface-edit eth1",
    "iface-dumpxml eth1 --xpath //mtu",
    "iface-edit nothing",
    "desc test old one",
    "desc test --edit",
    "desc test",
    "desc test --edit",
    "desc test --title --edit old title",
    "desc test --title",
    "metadata test http://one.example --edit",
    "metadata test http://one.example --key one --edit",
    "metadata test http://one.example --key one --edit --set x",
    "metadata test http://one.example --key one --edit --remove",
    "snapshot-edit test",
    "checkpoint-edit test",
)


@pytest.fixture
def editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "editor"
    path.write_text(EDITOR)
    path.chmod(0o755)
    monkeypatch.setenv("VISUAL", str(path))
    (tmp_path / "edited").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "edited"))
    return path


def test_every_line_answers_as_virsh(editor: Path, tmp_path: Path) -> None:
    def opener(uri: str, *, read_only: bool) -> Connection:
        return Connection(open_drivers(uri, Directories.under(tmp_path)), read_only=read_only)

    ours = run_lines("test:///default", opener, map(shlex.split, LINES))
    theirs = real_lines("test:///default", LINES, quiet=False)
    for line, (_, *answer), expected in zip(LINES, ours, theirs, strict=True):
        assert [text.split() for text in answer] == [text.split() for text in expected], line


BROKEN = """#!/bin/sh
count=$(cat "$0.count" 2>/dev/null || echo 0)
echo $((count + 1)) > "$0.count"
if [ $count = 0 ]; then sed -i 's,</domain>,,' "$1"; else sed -i -e '$a</domain>' -e 's/>2097152</>1048576</' "$1"; fi
"""


PROGRAMS = pytest.mark.parametrize(
    "program", [["virsh"], [sys.executable, "-m", "hostel", "virsh"]], ids=["theirs", "ours"]
)


def talk(program: list[str], keys: str, line: str = "edit test") -> tuple[int, str]:
    """Edit at a terminal, and press a key whenever one is asked for; the exit code and what is shown."""
    ours, theirs = pty.openpty()
    command = [*program, "-c", "test:///default", line]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown, asked = b"", 0
    deadline = time.monotonic() + 30
    try:
        while time.monotonic() < deadline and select.select([ours], [], [], 30)[0]:
            try:
                shown += os.read(ours, 4096)
            except OSError:
                break
            if shown.count(b"]: ") > asked:
                asked += 1
                os.write(ours, keys[asked - 1 : asked].encode() or b"n")
    finally:
        process.wait(30)
        os.close(ours)
    assert not os.listdir(os.environ["TMPDIR"])
    return process.returncode, shown.decode()


@PROGRAMS
@pytest.mark.parametrize("keys", ["?y", "n", "f"])
def test_what_is_not_taken_is_asked_about(program: list[str], keys: str, editor: Path) -> None:
    editor.write_text(BROKEN)
    code, text = talk(program, keys)
    assert "Premature end of data in tag domain" in text
    assert "Failed. Try again? [y,n,i,f,?]: " in text
    assert ("XML configuration edited" in text) == keys.endswith("y")
    assert code == (0 if keys.endswith("y") else 1)
    assert ("throw away my changes" in text) == keys.startswith("?")


@PROGRAMS
def test_validation_can_be_turned_off_once_it_has_failed(program: list[str], editor: Path) -> None:
    editor.write_text("#!/bin/sh\nsed -i 's,</domain>,<title>new</title><unheard/></domain>,' \"$1\"\n")
    code, text = talk(program, "n")
    assert code == 1
    assert "failed to validate against schema" in text
    code, text = talk(program, "i", "edit test; dumpxml test --inactive")
    assert code == 0
    assert "[y,n,i,f,?]" in text
    assert "<title>new</title>" in text


def test_what_somebody_else_changed_meanwhile_is_not_overwritten(editor: Path, tmp_path: Path) -> None:
    document = tmp_path / "web.xml"
    document.write_text(
        "<domain type='qemu'><name>web</name><memory unit='MiB'>64</memory><os><type>hvm</type></os></domain>"
    )
    ours = [sys.executable, "-m", "hostel", "virsh", "-c", "qemu:///session"]
    editor.write_text(
        f"#!/bin/sh\n{shlex.join(ours)} desc web theirs --config\nsed -i 's,</name>,&<title>mine</title>,' $1\n"
    )

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "HOSTEL_HOME": str(tmp_path / "home")}
        return subprocess.run(
            [*ours, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
            env=environment,
        )  # fmt: skip

    assert run("define", str(document)).returncode == 0
    done = run("edit", "web")
    assert (done.returncode, done.stderr.split("\n")[0]) == (1, f"error: {CHANGED}")
    assert "mine" not in run("dumpxml", "web").stdout
    assert "theirs" in run("dumpxml", "web").stdout
    editor.write_text("#!/bin/sh\nexit 3\n")
    done = run("edit", "web")
    assert done.returncode == 1
    assert "unexpected exit status 3" in done.stderr
