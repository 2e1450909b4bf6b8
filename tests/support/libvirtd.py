"""A libvirtd of our own: session mode, its files in one directory, ended with the test."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.answers import remembered

NOBODY = 65534
RECORDED = "9.0"


class Libvirtd:
    """A running daemon; :meth:`virsh` talks to it."""

    def __init__(self, directory: Path) -> None:
        self.uri = f"qemu+unix:///session?socket={directory}/run/libvirt/libvirt-sock"

    def virsh(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the real virsh."""
        return subprocess.run(
            ["virsh", "-q", "-c", self.uri, *arguments],
            capture_output=True, text=True, timeout=60, check=check, env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip

    def skip_unless_recorded(self) -> None:
        """Skip where libvirt is not the one that our records are of."""
        found = re.search(r"Using library: libvirt ([0-9]+\.[0-9]+)", self.virsh("version").stdout)
        if found is None or found[1] != RECORDED:
            pytest.skip(f"compares with libvirt {RECORDED}; here is {found[1] if found else 'another one'}")

    def normal_form(self, path: Path, name: str) -> str:
        """The document of a domain as libvirt stores it."""
        try:
            self.virsh("define", str(path))
            return self.virsh("dumpxml", "--inactive", "--security-info", name).stdout
        finally:
            self.virsh("undefine", "--nvram", name, check=False)

    def refusal(self, xml: str) -> str:
        """Why a document cannot be defined, in one line; empty when it can."""
        with tempfile.NamedTemporaryFile("w", suffix=".xml") as file:
            file.write(xml)
            file.flush()
            answer = self.virsh("define", file.name, check=False)
        if answer.returncode == 0:
            for name in self.virsh("list", "--all", "--name").stdout.splitlines():
                self.virsh("undefine", name)
            return ""
        lines = [line.removeprefix("error: ") for line in answer.stderr.splitlines()]
        return next(line for line in lines if not line.startswith("Failed to define domain"))


def first_port() -> int:
    """Where a daemon looks for ports of screens, 5000 on of migrations, and 10000 on of web sockets.

    Daemons of other test workers, and ours, look elsewhere. libvirtd tries whether a port is free and lets it go until
    QEMU takes it: of two that start a machine at the same time, one finds its QEMU ended, or that it cannot listen.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    return 20_000 + 100 * int(worker)


def _ports() -> str:
    """Lines of its settings."""
    first = {"remote_display": first_port(), "remote_websocket": first_port() + 10_000}
    return "".join(f"{name}_port_min = {port}\n{name}_port_max = {port + 99}\n" for name, port in first.items())


@contextlib.contextmanager
def running() -> Iterator[Libvirtd]:
    """A daemon; as root it runs as nobody, since a session is not root's."""
    directory = Path(tempfile.mkdtemp(prefix="lv-"))
    directory.chmod(0o755)
    try:
        with remembered(directory / "cache/libvirt/qemu/cache/capabilities", "session"), _running(directory) as served:
            yield served
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def _running(directory: Path) -> Iterator[Libvirtd]:
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(directory), "LC_ALL": "C"}
    for name, folder in (
        ("RUNTIME_DIR", "run"),
        ("CONFIG_HOME", "config"),
        ("CACHE_HOME", "cache"),
        ("DATA_HOME", "d"),
    ):
        (directory / folder).mkdir(exist_ok=True)
        environment[f"XDG_{name}"] = str(directory / folder)
    (directory / "config/libvirt").mkdir()
    (directory / "config/libvirt/qemu.conf").write_text(_ports())
    command = ["libvirtd"]
    if os.getuid() == 0:
        for path in (directory, *directory.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        command = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups", *command]
    program = shutil.which("libvirtd", path=environment["PATH"])
    assert program is not None
    daemon = subprocess.Popen(
        command, env=environment, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        served = Libvirtd(directory)
        deadline = time.monotonic() + 60
        while served.virsh("version", check=False).returncode:
            assert time.monotonic() < deadline and daemon.poll() is None, "libvirtd does not answer"
            time.sleep(0.1)
        yield served
    finally:
        daemon.terminate()
        try:
            daemon.wait(20)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait(20)
