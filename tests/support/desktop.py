"""A screen that nobody sees, with a session bus, for the programs that want a desktop."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

WIDTH, HEIGHT = 1280, 900  # pixels
_TIMEOUT = 60.0  # seconds
_PYTHON = "/usr/bin/python3"  # which Debian's bindings are for
_WIDGETS = Path(__file__).with_name("widgets.py")


class Desktop:
    """An X server and a session bus; programs are started on it, and what they show is asked for."""

    def __init__(self, directory: Path, display: str, bus: str) -> None:
        self._directory = directory
        self.environment = {
            **os.environ,
            "DISPLAY": display,
            "DBUS_SESSION_BUS_ADDRESS": bus,
            "HOME": str(directory),
            "XDG_RUNTIME_DIR": str(directory),
            "GSETTINGS_BACKEND": "memory",
            "LC_ALL": "C.UTF-8",
        }
        for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "WAYLAND_DISPLAY"):
            self.environment.pop(name, None)

    @contextlib.contextmanager
    def program(self, *command: str) -> Iterator[Path]:
        """Run a program until the caller is done; the path of what it says."""
        log = self._directory / f"{command[0]}.log"
        with log.open("a") as out:
            process = subprocess.Popen(
                command, env=self.environment, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
            )
        with _ended(process):
            yield log

    def widgets(self) -> list[tuple[str, str]]:
        """Role and name of all that is shown."""
        return [(role, name) for role, name in json.loads(self._ask("list"))]

    def press(self, role: str, name: str) -> None:
        """Do what a click on a widget does."""
        self._ask("press", role, name)

    def wait_for(self, role: str, name: str) -> None:
        """Wait until such a widget is shown; ``name`` is a pattern."""
        self.wait(
            lambda: any(its == role and re.fullmatch(name, said, re.DOTALL) for its, said in self.widgets()), name
        )

    def wait(self, done: Callable[[], bool], what: str) -> None:
        """Wait until something has come about."""
        deadline = time.monotonic() + _TIMEOUT
        while not done():
            assert time.monotonic() < deadline, (what, [said for _, said in self.widgets() if said])
            time.sleep(0.2)

    def pixels(self) -> bytes:
        """The screen, ``HEIGHT`` rows of ``WIDTH`` times red, green, blue."""
        command = ["import", "-window", "root", "-depth", "8", "rgb:-"]
        done = subprocess.run(command, env=self.environment, capture_output=True, timeout=_TIMEOUT, check=True)
        assert len(done.stdout) == 3 * WIDTH * HEIGHT
        return done.stdout

    def save(self, path: Path) -> None:
        """Keep the screen as an image."""
        path.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["import", "-window", "root", str(path)], env=self.environment, timeout=_TIMEOUT, check=True)

    def _ask(self, *words: str) -> str:
        done = subprocess.run(
            [_PYTHON, str(_WIDGETS), *words],
            env=self.environment, capture_output=True, text=True, timeout=_TIMEOUT, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextlib.contextmanager
def desktop(directory: Path) -> Iterator[Desktop]:
    """A desktop whose programs' files are in ``directory``; all ends with it."""
    server = ["Xvfb", "-displayfd", "1", "-screen", "0", f"{WIDTH}x{HEIGHT}x24", "-nolisten", "tcp"]
    bus = ["dbus-daemon", "--session", "--nofork", "--print-address=1", f"--address=unix:dir={directory}"]
    with _telling(server) as display, _telling(bus) as address:
        yield Desktop(directory, f":{display}", address)


@contextlib.contextmanager
def _telling(command: list[str]) -> Iterator[str]:
    """Run a server; the line that it says once it serves."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    with _ended(process):
        assert process.stdout is not None
        assert select.select([process.stdout], [], [], _TIMEOUT)[0], f"{command[0]} says nothing"
        line = process.stdout.readline().strip()
        assert line, f"{command[0]} ended"
        yield line


@contextlib.contextmanager
def _ended(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> Iterator[None]:
    """End a process with the caller, whatever comes."""
    with process:
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
