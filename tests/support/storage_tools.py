"""The tools of storage, as far as tests ask: each records how it was called, and does or fails as the real one does.

A tool is a script in a folder of the search path. What it answers lies beside it, so that a test can say it.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

_SCRIPT = """#!{python}
import json, os, sys
folder, name = {folder!r}, os.path.basename(sys.argv[0])
with open(folder + "/calls", "a") as calls:
    calls.write(json.dumps([name, *sys.argv[1:]]) + "\\n")
with open(folder + "/answers") as file:
    rows = json.load(file)
line = " ".join([name, *sys.argv[1:]])
for pattern, code, out, err, run in rows:
    if line.startswith(pattern):
        sys.stdout.write(out)
        sys.stderr.write(err)
        if run:
            exec(run)
        sys.exit(code)
sys.exit(0)
"""


_SETTLED = "udevadm settle"


class Tools:
    """A folder of tools that are found before those of the host."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        self._answers: list[tuple[str, int, str, str, str]] = []
        folder.mkdir()
        (folder / "calls").touch()
        self._save()
        monkeypatch.setenv("PATH", str(folder))

    def add(self, *names: str) -> None:
        """Install tools that succeed and say nothing."""
        for name in names:
            path = self._folder / name
            path.write_text(_SCRIPT.format(python=sys.executable, folder=str(self._folder)))
            path.chmod(0o755)

    def answer(self, line: str, out: str = "", *, code: int = 0, err: str = "", run: str = "") -> None:
        """Say what a tool does whose command line begins with ``line``; the last that was said counts."""
        self.add(line.split()[0])
        self._answers.insert(0, (line, code, out, err, run))
        self._save()

    def calls(self) -> list[str]:
        """The command lines since the last time, without the folder."""
        path = self._folder / "calls"
        lines = [" ".join(json.loads(line)) for line in path.read_text().splitlines()]
        path.write_text("")
        return lines

    def _save(self) -> None:
        # Never half of it for a tool that runs meanwhile.
        temporary = self._folder / "answers.new"
        temporary.write_text(json.dumps(self._answers))
        os.replace(temporary, self._folder / "answers")


def pool(kind: str, source: str, path: str = "/dev/nosuch") -> str:
    """The document of a pool that a tool manages."""
    return f"<pool type='{kind}'><name>p</name><source>{source}</source><target><path>{path}</path></target></pool>"


def calls(tools: Tools) -> list[str]:
    """What was called, without waiting for devices, which depends on the host."""
    return [line for line in tools.calls() if line != _SETTLED]
