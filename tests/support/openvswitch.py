"""A switch of Open vSwitch in the test's own network, in the user's space: no module of the kernel is needed."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from support.daemon import listens
from support.process import end

_SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"


@contextlib.contextmanager
def running() -> Iterator[subprocess.Popen[bytes]]:
    """Run a switch without bridges; ``ovs-vsctl`` of this process and its children talks to it.

    Gives the process that passes packets on.
    """
    folder = Path(tempfile.mkdtemp(prefix="ovs-"))
    places = dict.fromkeys(("OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR"), str(folder))
    started: list[subprocess.Popen[bytes]] = []
    with mock.patch.dict(os.environ, places):
        try:
            database, socket = folder / "conf.db", folder / "db.sock"
            subprocess.run(["ovsdb-tool", "create", database, _SCHEMA], check=True, timeout=30)
            for command in (
                ["ovsdb-server", database, f"--remote=punix:{socket}"],
                ["ovs-vswitchd", f"unix:{socket}", "--disable-system"],
            ):
                started.append(subprocess.Popen([*command, "-vconsole:off"], stdin=subprocess.DEVNULL))
                deadline = time.monotonic() + 60
                while not listens(socket):
                    assert time.monotonic() < deadline and started[-1].poll() is None
                    time.sleep(0.01)
            vsctl("--no-wait", "init")
            yield started[-1]
        finally:
            for process in reversed(started):
                end(process)
            shutil.rmtree(folder)


def add_bridge(name: str) -> None:
    """Make a bridge whose packets the switch itself passes on."""
    vsctl("add-br", name, "--", "set", "Bridge", name, "datapath_type=netdev")


def vsctl(*words: str) -> str:
    """Run ``ovs-vsctl``; what it prints."""
    command = ["ovs-vsctl", "--timeout=60", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=80).stdout.strip()


def column(table: str, record: str, name: str) -> str:
    """A value in the switch's database, as it is written there; lists are empty where nothing is set."""
    return vsctl("get", table, record, name)
