"""An SSH server of the tests' own, with keys of its own, and an agent that holds the user's."""

from __future__ import annotations

import base64
import contextlib
import getpass
import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from support.process import started
from support.web import free_port, listens

TIMEOUT = 20.0  # seconds for anything that a test waits for


class SshServer(NamedTuple):
    """The server, and who may log in.

    Attributes:
        port: where it listens on 127.0.0.1.
        user: who may.
        home: a home folder with a key and known hosts.
        agent: the socket of an agent that holds the key.
        sha256: the hexadecimal hash of the server's key.
    """

    port: int
    user: str
    home: Path
    agent: Path
    sha256: str

    def url(self, path: Path, check: str = "no") -> str:
        """A file's URL; ``check`` is QEMU's ``host_key_check``, and empty for none."""
        mark = f"?host_key_check={check}" if check else ""
        return f"ssh://{self.user}@127.0.0.1:{self.port}{path}{mark}"

    def environment(self, **more: str) -> dict[str, str]:
        """An environment in which the agent is found, and the home folder."""
        return {**os.environ, "HOME": str(self.home), "SSH_AUTH_SOCK": str(self.agent), **more}


@contextlib.contextmanager
def ssh_server(work: Path) -> Iterator[SshServer]:
    """Run a server; ``work`` is an empty folder."""
    home = work / "home"
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    for name in (work / "host", home / ".ssh" / "id_ed25519"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", name], check=True, timeout=TIMEOUT)
    shutil.copy(home / ".ssh" / "id_ed25519.pub", work / "authorized")
    port = free_port()
    public = (work / "host.pub").read_text().split()
    (home / ".ssh" / "known_hosts").write_text(f"[127.0.0.1]:{port} {public[0]} {public[1]}\n")
    (work / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {work}/host\nAuthorizedKeysFile {work}/authorized\nStrictModes no\n"
        f"UsePAM no\nPidFile none\nPasswordAuthentication no\nSubsystem sftp internal-sftp\n"
    )
    agent = work / "agent"
    with contextlib.ExitStack() as stack:
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # where the server locks its helper in
        stack.enter_context(started([str(shutil.which("sshd")), "-D", "-e", "-f", str(work / "sshd_config")]))
        stack.enter_context(started(["ssh-agent", "-D", "-a", str(agent)]))
        until = time.monotonic() + TIMEOUT
        while not (listens(port) and agent.exists()):
            assert time.monotonic() < until, "the server does not listen"
            time.sleep(0.05)
        subprocess.run(
            ["ssh-add", "-q", home / ".ssh" / "id_ed25519"],
            env={**os.environ, "SSH_AUTH_SOCK": str(agent)},
            check=True,
            capture_output=True,
            timeout=TIMEOUT,
        )
        digest = hashlib.sha256(base64.b64decode(public[1])).hexdigest()
        yield SshServer(port, getpass.getuser(), home, agent, digest)
