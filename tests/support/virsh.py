"""The same line for our virsh and for the real one."""

from __future__ import annotations

import io
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from hostel.cli.output import Output
from hostel.cli.virsh.main import run_words
from hostel.cli.virsh.session import Connection, Opener, Session
from hostel.drivers.store import Directories
from support.additions import without_additions

_MARK: Final = "hostel-mark"  # between the answers of lines, and of an event that tells where a listener is
MARKED: Final = f"<domain type='qemu'><name>{_MARK}</name><memory>1024</memory><os><type>hvm</type></os></domain>"
_PROMPT: Final = "virsh # "


def run_lines(
    uri: str, opener: Opener, lines: Iterable[Sequence[str]], *, quiet: bool = False
) -> list[tuple[int, str, str]]:
    """Run lines with our virsh on one connection; of each its exit code, and what it printed and complained of.

    What our errors say beyond virsh's is left out.
    """
    out, err = io.StringIO(), io.StringIO()
    session = Session(Output(out, err, quiet=quiet), uri, opener)
    answers = []
    try:
        for words in lines:
            code = run_words(session, list(words))
            answers.append((code, out.getvalue(), without_additions(err.getvalue())))
            for stream in (out, err):
                stream.seek(0)
                stream.truncate()
    finally:
        session.close()
    return answers


class Ours:
    """Our virsh on a session of its own."""

    def __init__(self, home: Path) -> None:
        self._directories = Directories.under(home)

    def run(self, line: str) -> tuple[int, str, str]:
        return run_lines("qemu:///session", self._open, [[line]])[0]

    def _open(self, uri: str, *, read_only: bool) -> Connection:
        import hostel

        return hostel.open(uri, self._directories, read_only=read_only)


class Real:
    """The real virsh on a daemon of its own."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    def run(self, line: str) -> tuple[int, str, str]:
        done = subprocess.run(
            ["virsh", "-c", self._uri, line], capture_output=True, text=True, timeout=60, check=False,
            stdin=subprocess.DEVNULL, env={**os.environ, "LC_ALL": "C.UTF-8"},
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    def beside(self, driver: str) -> Real:
        """The same daemon's driver of another kind, such as ``secret``."""
        return Real(f"{driver}+{self._uri.partition('+')[2]}")

    def forget(self) -> None:
        for name in self.run("pool-list --all --name")[1].split():
            self.run(f"pool-destroy {name}")
            self.run(f"pool-undefine {name}")


def real_lines(uri: str, lines: Sequence[str], *, quiet: bool = True) -> list[tuple[str, str]]:
    """Run lines in one process of the real virsh; of each what it printed and complained of."""
    script = "".join(f"{line}\necho {_MARK}\ndomid {_MARK}\n" for line in lines)
    done = subprocess.run(
        ["virsh", *(["-q"] if quiet else []), "-c", uri],
        input=script, capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    # It repeats what it reads, each line after its prompt.
    out = re.split(rf"{_PROMPT}echo {_MARK}\n{_MARK}\n*{_PROMPT}domid {_MARK}\n+", done.stdout)
    err = re.split(rf"error: failed to get domain '{_MARK}'\n\n*", done.stderr)
    answers = zip(lines, out, err, strict=False)
    return [(text.rpartition(f"{_PROMPT}{line}\n")[2], complaint) for line, text, complaint in answers]


def listened(
    argv: list[str],
    log: Path,
    environment: dict[str, str],
    act: Callable[[], object],
    mark: Callable[[], object] | None = None,
) -> list[str]:
    """The lines that a listener prints while ``act`` runs, but for how many there were.

    Args:
        argv: the listener.
        log: where it prints to.
        environment: the listener's.
        act: what happens.
        mark: makes events of something called ``hostel-mark``, which tell that the listener hears; without it,
            ``act`` waits until it does, and until it has heard all.
    """

    def hear() -> None:
        if mark is None:
            return
        before, deadline = log.read_text().count(_MARK), time.monotonic() + 60
        while log.read_text().count(_MARK) == before:
            assert time.monotonic() < deadline, f"{argv} hears nothing"
            mark()
            time.sleep(0.2)

    with log.open("w") as said:
        listener = subprocess.Popen(argv, stdout=said, stderr=subprocess.STDOUT, env=environment)
        try:
            hear()
            act()
            hear()
            time.sleep(0.5)  # what came another way than the mark may come later
        finally:
            listener.send_signal(2)
            listener.wait(20)
    lines = [line for line in log.read_text().splitlines() if _MARK not in line]
    assert "event loop interrupted" in lines, lines
    return lines[: lines.index("event loop interrupted")]
