"""A Gluster server with one volume, in a network and among processes of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from support.process import started

TIMEOUT = 60.0  # seconds for anything that a test waits for
_ADDRESS = "10.99.0.1"  # Gluster takes no loopback address

_CONFIGURATION = """
volume management
    type mgmt/glusterd
    option working-directory {work}/state
    option run-directory {work}/run
    option transport-type socket
    option transport.socket.bind-address {address}
    option transport.socket.listen-port 24007
    option ping-timeout 0
    option glusterd-sockfile {work}/glusterd.sock
    option event-threads 1
    option max-port 60999
end-volume
"""
# All that the server starts ends with it: it is the first process of a namespace.
_START = """
ip link set lo up && ip addr add {address}/32 dev lo
mount -t tmpfs none /run && mkdir -p /run/gluster
mkdir -p /var/log/glusterfs/bricks && mount -t tmpfs none /var/log/glusterfs && mkdir -p /var/log/glusterfs/bricks
exec glusterd --no-daemon -f {work}/glusterd.vol -p {work}/glusterd.pid -l {work}/glusterd.log
"""


class GlusterServer:
    """The server's network.

    Attributes:
        url: of the volume.
        socket: where the server listens on this host.
        folder: where the volume's files lie.
    """

    url = f"gluster://{_ADDRESS}/disks"

    def __init__(self, first: int, work: Path) -> None:
        self._first = first
        self.socket = work / "glusterd.sock"
        self.folder = work / "brick"

    def inside(self, words: Sequence[object]) -> list[str]:
        """A command line that runs a command in the server's network."""
        return ["nsenter", "-t", str(self._first), "-n", "-m", "-p", *map(str, words)]

    def run(self, *words: object) -> subprocess.CompletedProcess[str]:
        """Run a command there."""
        return subprocess.run(self.inside(words), capture_output=True, text=True, timeout=TIMEOUT, check=False)

    def manage(self, *words: object) -> subprocess.CompletedProcess[str]:
        """Run a command of the server's."""
        return self.run("gluster", "--mode=script", f"--glusterd-sock={self.socket}", *words)


@contextlib.contextmanager
def gluster_server(work: Path) -> Iterator[GlusterServer]:
    """Serve the volume ``disks``; as root only.

    Args:
        work: an empty folder, with a short name: sockets lie in it.
    """
    for name in ("state", "run", "brick"):
        (work / name).mkdir()
    (work / "glusterd.vol").write_text(_CONFIGURATION.format(work=work, address=_ADDRESS))
    words = ["unshare", "-n", "-m", "-p", "--fork", "--kill-child", "--mount-proc", "sh", "-ec"]
    with started([*words, _START.format(work=work, address=_ADDRESS)]) as holder:
        until = time.monotonic() + TIMEOUT
        while not (children := Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text()):
            assert holder.poll() is None, "a namespace cannot be made"
            assert time.monotonic() < until
            time.sleep(0.01)
        server = GlusterServer(int(children), work)
        try:
            while server.manage("volume", "info").returncode:
                assert holder.poll() is None, (work / "glusterd.log").read_text()
                assert time.monotonic() < until, (work / "glusterd.log").read_text()
                time.sleep(0.1)
            for words in (["create", "disks", f"{_ADDRESS}:{server.folder}", "force"], ["start", "disks"]):
                done = server.manage("volume", *words)
                assert not done.returncode, done.stdout + done.stderr
            yield server
        finally:
            os.kill(int(children), signal.SIGKILL)  # a namespace's first process is asked for nothing


def may_serve() -> bool:
    """Whether this user may make a network of its own, with folders of its own over the host's."""
    if os.geteuid() != 0:
        return False
    words = ["unshare", "-n", "-m", "-p", "--fork", "mount", "-t", "tmpfs", "none", "/run"]
    return subprocess.run(words, capture_output=True, timeout=TIMEOUT, check=False).returncode == 0
