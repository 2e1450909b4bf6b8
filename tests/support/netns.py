"""Network namespaces for tests: the test's own, in which nothing of the host's is, and those of other parties."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
# What busybox's DHCP client runs: it takes what it was offered, and says so.
_TAKE = """#!/bin/sh
[ "$1" = bound ] || exit 0
ip address replace $ip/$mask dev $interface
[ -z "$router" ] || ip route replace default via $router
echo "$ip $router $dns" > "$OUT"
"""


def _check(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Take this thread, and what it starts, into a network namespace of its own."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.unshare(_CLONE_NEWNET))
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        yield
    finally:
        _check(_libc.setns(before, _CLONE_NEWNET))
        os.close(before)


class Party:
    """Somebody in a network namespace of its own, reached through a cable to an interface of ours."""

    def __init__(self, cable: str, *, mac: str = "", bridge: str = "") -> None:
        self._process = subprocess.Popen(["unshare", "--net", "sleep", "600"])
        self.pid = self._process.pid
        ours = os.readlink("/proc/thread-self/ns/net")
        deadline = time.monotonic() + 60
        while os.readlink(f"/proc/{self.pid}/ns/net") == ours:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        address = ["address", mac] if mac else []
        peer = ["peer", "name", "eth0", *address, "netns", str(self.pid)]
        subprocess.run(["ip", "link", "add", cable, "type", "veth", *peer], check=True)
        master = ["master", bridge] if bridge else []
        subprocess.run(["ip", "link", "set", cable, *master, "up"], check=True)
        self.run("ip link set lo up; ip link set eth0 up")

    def run(self, script: str, *, timeout: float = 30, check: bool = True) -> str:
        """Run a shell's words there, and return what they print."""
        done = subprocess.run(self.command(script), capture_output=True, text=True, timeout=timeout, check=False)
        assert done.returncode == 0 or not check, done.stdout + done.stderr
        return done.stdout

    def command(self, script: str) -> list[str]:
        """What runs a shell's words there."""
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", "sh", "-c", script]

    def reaches(self, address: str) -> bool:
        """Whether an answer to a ping comes back."""
        done = subprocess.run(
            self.command(f"busybox ping -c 1 -W 1 {address}"), capture_output=True, timeout=30, check=False
        )
        return done.returncode == 0

    def lease(self, work: Path, *, name: str = "guest") -> list[str]:
        """Get an address by DHCP; it, the router, and who answers for names."""
        script, out = work / "take", work / f"lease-{self.pid}"
        script.write_text(_TAKE)
        script.chmod(0o755)
        self.run(f"OUT={out} busybox udhcpc -i eth0 -n -q -f -t 20 -T 1 -x hostname:{name} -s {script}")
        return out.read_text().split()

    def close(self) -> None:
        """Leave; the cable is gone with the namespace."""
        self._process.kill()
        self._process.wait()
