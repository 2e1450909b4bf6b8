"""An iSCSI target in user space (tgt)."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from support.web import free_port

TIMEOUT = 20.0  # seconds for anything that a test waits for
TARGET = "iqn.2024-01.test:disks"


@contextlib.contextmanager
def target(*disks: Path, user: str = "", password: str = "", thin: bool = False) -> Iterator[str]:
    """Serve files as the logical units 1, 2, ... of one target; gives its URL without a unit.

    Args:
        disks: the files.
        user: who may log in; everybody where it is empty.
        password: theirs, of twelve characters or more.
        thin: the units take UNMAP.
    """
    port = free_port()
    control = str(port % 30000)
    words = ["tgtd", "-f", "--iscsi", f"portal=127.0.0.1:{port}", "-C", control]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as daemon:
        try:
            until = time.monotonic() + TIMEOUT
            while _admin(control, "--op", "show", "--mode", "system").returncode:
                assert daemon.poll() is None, "tgtd has ended"
                assert time.monotonic() < until, "tgtd does not answer"
                time.sleep(0.05)
            _must(control, "--op", "new", "--mode", "target", "--tid", "1", "-T", TARGET)
            for number, disk in enumerate(disks, 1):
                unit = ["--mode", "logicalunit", "--tid", "1", "--lun", str(number)]
                _must(control, "--op", "new", *unit, "-b", str(disk))
                if thin:
                    _must(control, "--op", "update", *unit, "--params", "thin_provisioning=1")
            if user:
                _must(control, "--op", "new", "--mode", "account", "--user", user, "--password", password)
                _must(control, "--op", "bind", "--mode", "account", "--tid", "1", "--user", user)
            _must(control, "--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL")
            yield f"iscsi://127.0.0.1:{port}/{TARGET}"
        finally:
            daemon.kill()  # it does not end while there are targets


def _admin(control: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = ["tgtadm", "-C", control, "--lld", "iscsi", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)


def _must(control: str, *words: str) -> None:
    done = _admin(control, *words)
    assert not done.returncode, done.stderr


def may_serve() -> bool:
    """Whether this user may run the target."""
    return os.geteuid() == 0
