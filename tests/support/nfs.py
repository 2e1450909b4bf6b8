"""An NFS server in user space (nfs-ganesha) in a network of its own, and commands that run there."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from support.process import started

TIMEOUT = 30.0  # seconds for anything that a test waits for

_CONFIGURATION = """
NFS_CORE_PARAM {{ NFS_Port = 2049; MNT_Port = 20048; Enable_NLM = false; Enable_RQUOTA = false; Enable_UDP = false;
    Protocols = 3,4; mount_path_pseudo = true; }}
NFSV4 {{ Graceless = true; Minor_Versions = 0,1,2; RecoveryBackend = fs; }}
EXPORT {{ Export_Id = 1; Path = {folder}; Pseudo = /exp; Access_Type = RW; Squash = No_Root_Squash; SecType = sys;
    Protocols = 3,4; Transports = TCP; FSAL {{ Name = VFS; }} }}
LOG {{ Default_Log_Level = EVENT; }}
"""


class NfsServer:
    """The server's network.

    Attributes:
        url: of the export.
    """

    url = "nfs://127.0.0.1/exp"

    def __init__(self, holder: int) -> None:
        self._holder = holder

    def inside(self, words: Sequence[object]) -> list[str]:
        """A command line that runs a command in the server's network."""
        return ["nsenter", "-t", str(self._holder), "-n", "-m", *map(str, words)]

    def run(self, *words: object) -> subprocess.CompletedProcess[str]:
        """Run a command there."""
        return subprocess.run(self.inside(words), capture_output=True, text=True, timeout=60, check=False)


@contextlib.contextmanager
def nfs_server(folder: Path, work: Path) -> Iterator[NfsServer]:
    """Serve a folder as ``/exp``; as root only.

    Args:
        folder: what is served.
        work: an empty folder for what the server writes.
    """
    configuration = work / "ganesha.conf"
    configuration.write_text(_CONFIGURATION.format(folder=folder))
    prepare = (
        "ip link set lo up && mount -t tmpfs none /run && mkdir -p /run/rpcbind /run/ganesha && echo ready && "
        "exec sleep 600"
    )
    with contextlib.ExitStack() as stack:
        holder = stack.enter_context(started(["unshare", "-n", "-m", "sh", "-c", prepare], stdout=subprocess.PIPE))
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"ready\n"
        server = NfsServer(holder.pid)
        stack.enter_context(started(server.inside(["rpcbind", "-f"])))
        words = ["ganesha.nfsd", "-F", "-f", configuration, "-p", work / "pid", "-L", work / "log", "-N", "NIV_EVENT"]
        stack.enter_context(started(server.inside(words)))
        until = time.monotonic() + TIMEOUT
        while server.run("sh", "-c", "ss -ltn | grep -q :20048 && ss -ltn | grep -q :2049").returncode:
            assert time.monotonic() < until, (work / "log").read_text()
            time.sleep(0.1)
        yield server


def may_serve() -> bool:
    """Whether this user may make a network of its own, with a folder of its own over ``/run``."""
    if os.geteuid() != 0:
        return False
    words = ["unshare", "-n", "-m", "mount", "-t", "tmpfs", "none", "/run"]
    return subprocess.run(words, capture_output=True, timeout=TIMEOUT, check=False).returncode == 0
