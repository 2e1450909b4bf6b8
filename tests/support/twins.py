"""The same ``qemu-img`` command with the real tool and with ours, on the same files in twin folders."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shlex
import subprocess
from pathlib import Path
from typing import NamedTuple

from hostel.cli.main import main
from support import key_timing
from support.additions import without_additions

# Both tools must see the same locale and time zone.
_ENVIRONMENT = {"LC_ALL": "C.UTF-8", "TZ": "UTC"}


class Result(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


class Twins:
    """Two folders that start out equal: the real tool works in one, ours in the other."""

    def __init__(self, folder: Path) -> None:
        self.real = folder / "real"
        self.ours = folder / "ours"
        self.real.mkdir()
        self.ours.mkdir()

    def prepare(self, command: str) -> None:
        """Run a command of the real tools, such as ``qemu-img create a 1M``, in both folders."""
        for folder in (self.real, self.ours):
            key_timing.run(shlex.split(command), cwd=folder, env=os.environ | _ENVIRONMENT).check_returncode()

    def share(self, name: str) -> None:
        """Let both folders have the real one's file, where not even the time of a snapshot may differ."""
        self.write(name, (self.real / name).read_bytes())

    def write(self, name: str, data: bytes, offset: int | None = None) -> None:
        """Write into a file of both folders; a new file where ``offset`` is None."""
        for folder in (self.real, self.ours):
            path = folder / name
            if offset is None:
                path.write_bytes(data)
                continue
            with path.open("r+b") as file:
                file.seek(offset)
                file.write(data)

    def truncate(self, name: str, size: int) -> None:
        """Give a file of both folders a size; it is made where there is none."""
        for folder in (self.real, self.ours):
            with (folder / name).open("ab") as file:
                file.truncate(size)

    def same(self, command: str) -> Result:
        """Run ``qemu-img COMMAND`` with both; output, errors and exit code must be equal."""
        words = shlex.split(command)
        expected, found = self.run_real(words), self.run_ours(words)
        assert found == expected, f"qemu-img {command}"
        return found

    def refused(self, command: str) -> Result:
        """The same for a command that must fail and change nothing."""
        before = _digests(self.ours)
        found = self.same(command)
        assert found.code != 0, f"qemu-img {command} was to fail"
        assert _digests(self.ours) == before, f"qemu-img {command} changed a file and failed"
        return found

    def run_ours(self, words: list[str]) -> Result:
        """Run our tool, in process."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.chdir(self.ours), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(["qemu-img", *words])
        return Result(code, self._neutral(out.getvalue()), self._neutral(without_additions(err.getvalue())))

    def virtual_sizes(self, name: str, format: str) -> tuple[int, int]:
        """The virtual size in bytes of an image in both folders, as the real tool has it."""
        sizes = []
        for folder in (self.real, self.ours):
            told = subprocess.run(
                ["qemu-img", "info", "--output=json", "-f", format, name],
                cwd=folder,
                capture_output=True,
                check=True,
                timeout=60,
            )
            sizes.append(int(json.loads(told.stdout)["virtual-size"]))
        return sizes[0], sizes[1]

    def run_real(self, words: list[str]) -> Result:
        """Run the real tool."""
        ended = key_timing.run(["qemu-img", *words], cwd=self.real, env=os.environ | _ENVIRONMENT)
        out, err = (stream.decode(errors="surrogateescape") for stream in (ended.stdout, ended.stderr))
        return Result(ended.returncode, self._neutral(out), self._neutral(err))

    def _neutral(self, text: str) -> str:
        return text.replace(str(self.real), "FOLDER").replace(str(self.ours), "FOLDER")


def _digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
