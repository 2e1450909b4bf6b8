"""What ``test_nbd_in_kernel`` does in a kernel of its own: images as disks of the host, by both tools."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

MIB = 1 << 20
OURS = (sys.executable, "-m", "hostel", "qemu-nbd")
REAL = ("qemu-nbd",)
DEVICE = Path("/dev/nbd0")
_SECTORS = Path("/sys/block/nbd0/size")
_READ_ONLY = Path("/sys/block/nbd0/ro")
_SERVER = Path("/sys/block/nbd0/pid")


def ran(*words: object, code: int = 0) -> str:
    """What a tool says, which ends with this code."""
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, f"{words}: {done.returncode}, {done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def wait(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not what():
        assert time.monotonic() < deadline, "not within 20 seconds"
        time.sleep(0.05)


def image(name: str, size: str = "64M") -> Path:
    path = Path("/root") / name
    ran("qemu-img", "create", "-q", "-f", "qcow2", path, size)
    return path


def gone(path: Path) -> None:
    """Wait until nobody has the image open."""
    wait(
        lambda: subprocess.run(["qemu-img", "info", path], capture_output=True, timeout=60, check=False).returncode == 0
    )
    wait(lambda: not _SERVER.exists())


@contextlib.contextmanager
def connected(path: Path, *options: str) -> Iterator[None]:
    assert ran(*OURS, "-c", DEVICE, "-f", "qcow2", *options, path) == ""
    try:
        yield
    finally:
        assert ran(*OURS, "-d", DEVICE) == f"{DEVICE} disconnected\n"
        gone(path)


def holds(path: Path, pattern: int, offset: int, length: int) -> None:
    assert "Pattern verification failed" not in ran("qemu-io", "-c", f"read -P {pattern} {offset} {length}", path)


def disks() -> None:
    """What is written to the disk is in the image, with nothing that flushes it but the end."""
    path = image("disk.qcow2")
    with connected(path):
        assert int(_SECTORS.read_text()) == 64 * MIB // 512 and _READ_ONLY.read_text() == "0\n"
        with DEVICE.open("r+b") as disk:
            disk.write(b"\x37" * (16 * MIB))
        ran(*OURS, "-c", DEVICE, path, code=1)  # it is in use
    holds(path, 0x37, 0, 16 * MIB)
    with connected(path):
        ran("mkfs.ext4", "-q", "-F", DEVICE)
        ran("mount", DEVICE, "/srv")
        Path("/srv/file").write_text("in the image\n")
        ran("umount", "/srv")
    ran("qemu-img", "check", path)
    with connected(path, "-r"):
        assert _READ_ONLY.read_text() == "1\n"
        ran("mount", "-o", "ro,noload", DEVICE, "/srv")
        assert Path("/srv/file").read_text() == "in the image\n"
        ran("umount", "/srv")
    with connected(path):
        ran("parted", "-s", DEVICE, "mklabel", "gpt", "mkpart", "one", "1MiB", "8MiB")
        assert Path("/dev/nbd0p1").exists()
    with connected(path):
        assert Path("/dev/nbd0p1").exists()  # when the tool has ended, with nobody who looks for it


def large() -> None:
    """A disk has more sectors than 32 bits tell; a part of it, and its snapshot, are disks too."""
    path = image("large.qcow2", "9T")
    ran("qemu-io", "-c", "write -P 1 8T 64k", path)
    ran("qemu-img", "snapshot", "-c", "before", path)
    ran("qemu-io", "-c", "write -P 2 8T 64k", path)
    for options, expected in (((), b"\2"), (("-l", "before"), b"\1")):
        with connected(path, *options), DEVICE.open("rb") as disk:
            assert int(_SECTORS.read_text()) == (9 << 40) // 512
            disk.seek(8 << 40)
            assert disk.read(1) == expected
    with connected(path, "-o", str(8 << 40)), DEVICE.open("rb") as disk:
        assert disk.read(1) == b"\2"


def ends() -> None:
    """However the server ends on request, the image has all; a device that the kernel has not is told of."""
    path = image("ended.qcow2")
    words = [*map(str, (*OURS, "-v", "-c", DEVICE, "-f", "qcow2", path))]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        assert server.stderr.readline() == f"NBD device {DEVICE} is now connected to {path}\n"
        with DEVICE.open("r+b") as disk:
            disk.write(b"\x21" * (16 * MIB))
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0 and server.stderr.read() == ""
    gone(path)
    holds(path, 0x21, 0, 16 * MIB)
    assert not Path("/var/lock/qemu-nbd-nbd0").exists()
    for tool in (OURS, REAL):
        said = ran(*tool, "-c", "/dev/nbd99", path, code=1).splitlines()[0]
        assert said == "qemu-nbd: Failed to open /dev/nbd99: No such file or directory", said
        said = ran(*tool, "-d", "/dev/nbd99", code=1).splitlines()[0]
        assert said == "qemu-nbd: Cannot open /dev/nbd99: No such file or directory", said
        said = ran(*tool, "-c", "/dev/null", path, code=1).splitlines()[0]
        assert said.startswith("qemu-nbd: Failed to set NBD socket"), said
        assert ran(*tool, "-d", DEVICE) == f"{DEVICE} disconnected\n"
    ran(*REAL, "-c", DEVICE, "-f", "qcow2", path)  # whose disk ours lets go of, with what was written to it
    with DEVICE.open("r+b") as disk:
        disk.write(b"\x22" * (16 * MIB))
    assert ran(*OURS, "-d", DEVICE) == f"{DEVICE} disconnected\n"
    gone(path)
    holds(path, 0x22, 0, 16 * MIB)


def killed() -> None:
    """A device whose server was killed is let go of, and can be connected again."""
    path = image("killed.qcow2")
    words = [*map(str, (*OURS, "-v", "-c", DEVICE, "-f", "qcow2", path))]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        server.stderr.readline()
        os.kill(server.pid, signal.SIGKILL)
        server.wait(60)
    assert ran(*OURS, "-d", DEVICE) == f"{DEVICE} disconnected\n"
    gone(path)
    with connected(path):
        assert int(_SECTORS.read_text()) == 64 * MIB // 512


def main() -> None:
    ran("modprobe", "nbd", "max_part=4")
    globals()[sys.argv[1]]()


if __name__ == "__main__":
    main()
