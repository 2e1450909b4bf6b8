"""A real QEMU without Hostel's driver: what a guest says when an argument list boots it."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

PROGRAM = "qemu-system-x86_64"
BASE = (PROGRAM, "-accel", "tcg", "-nodefaults", "-display", "none", "-no-user-config")

# How a disk is attached to each bus; {node} is the block node.
BUSES = {
    "virtio": ("-device", "virtio-blk-pci,drive={node}"),
    "ide": ("-device", "ide-hd,drive={node}"),
    "sata": ("-device", "ahci,id=ahci", "-device", "ide-hd,bus=ahci.0,drive={node}"),
    "scsi": ("-device", "virtio-scsi-pci,id=scsi", "-device", "scsi-hd,bus=scsi.0,drive={node}"),
    "lsi": ("-device", "lsi53c895a,id=lsi", "-device", "scsi-hd,bus=lsi.0,drive={node}"),
    "usb": ("-device", "qemu-xhci", "-device", "usb-storage,drive={node}"),
}


def blockdev(path: Path, fmt: str, *, node: str = "disk0", read_only: bool = False) -> list[str]:
    """The ``-blockdev`` arguments for an image file."""
    spec = {"driver": fmt, "node-name": node, "read-only": read_only, "file": {"driver": "file", "filename": str(path)}}
    return ["-blockdev", json.dumps(spec)]


def disk(path: Path, fmt: str = "raw", bus: str = "virtio", *, node: str = "disk0", extra: str = "") -> list[str]:
    """The arguments for a disk; ``extra`` goes to its device, such as ``bootindex=1``."""
    device = [arg.format(node=node) for arg in BUSES[bus]]
    if extra:
        device[-1] += "," + extra
    return [*blockdev(path, fmt, node=node), *device]


def cdrom(path: Path, *, node: str = "cd0", extra: str = "") -> list[str]:
    """The arguments for a CD-ROM on IDE."""
    return [*blockdev(path, "raw", node=node, read_only=True), "-device", f"ide-cd,drive={node}{extra and ',' + extra}"]


class Machine:
    """A running QEMU with its serial port on our pipes and a QMP socket."""

    def __init__(self, args: Sequence[str], *, memory: int = 64, monitor: Path | None = None) -> None:
        argv = [*BASE, "-m", str(memory), "-serial", "stdio", *args]
        if monitor is not None:
            argv += ["-qmp", f"unix:{monitor},server=on,wait=off"]
        self.monitor = monitor
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0)
        self._serial = bytearray()
        self._errors = bytearray()
        self._changed = threading.Condition()
        self._readers = [
            threading.Thread(target=self._read, args=(stream, into), daemon=True)
            for stream, into in ((self.process.stdout, self._serial), (self.process.stderr, self._errors))
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: IO[bytes], into: bytearray) -> None:
        while data := stream.read(4096):
            with self._changed:
                into += data
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    @property
    def serial(self) -> str:
        """What came over the serial port so far."""
        with self._changed:
            return self._serial.decode("utf-8", "replace")

    def type(self, text: str) -> None:
        """Type on the serial console."""
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode())

    def wait_for(self, text: str, *, times: int = 1, timeout: float = 60) -> str:
        """Wait until ``text`` has come ``times`` times over the serial port; return all of it."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while self._serial.count(text.encode()) < times:
                left = deadline - time.monotonic()
                alive = any(reader.is_alive() for reader in self._readers)
                if left <= 0 or not alive:
                    why = "QEMU has ended" if not alive else f"{timeout} s have passed"
                    raise AssertionError(
                        f"{why} without '{text}' on the serial port, which said:\n"
                        f"{self._serial.decode('utf-8', 'replace')}\n{self._errors.decode('utf-8', 'replace')}"
                    )
                self._changed.wait(min(left, 1))
        return self.serial

    def wait(self, *, timeout: float = 60) -> int:
        """Wait for the end of QEMU; return its exit status."""
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"QEMU still runs after {timeout} s; its serial port said:\n{self.serial}") from None
        for reader in self._readers:
            reader.join(10)
        return status

    @property
    def errors(self) -> str:
        """QEMU's standard error so far."""
        return self._errors.decode("utf-8", "replace")

    def qmp(self, command: str, **arguments: Any) -> Any:
        """Send one QMP command on a connection of its own and return its answer."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(20)
            sock.connect(str(self.monitor))
            with sock.makefile("rw") as stream:
                stream.readline()
                for request in ({"execute": "qmp_capabilities"}, {"execute": command, "arguments": arguments}):
                    stream.write(json.dumps(request))
                    stream.flush()
                    answer = json.loads(stream.readline())
                    while "event" in answer:
                        answer = json.loads(stream.readline())
                    assert "error" not in answer, answer
                return answer["return"]

    def close(self) -> None:
        """Kill QEMU where it still runs, and close what is open."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for reader in self._readers:
            reader.join(10)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert stream is not None
            with contextlib.suppress(OSError):
                stream.close()


@contextlib.contextmanager
def machine(args: Sequence[str], *, memory: int = 64, monitor: Path | None = None) -> Iterator[Machine]:
    """Run QEMU for the length of a block."""
    running = Machine(args, memory=memory, monitor=monitor)
    try:
        yield running
    finally:
        running.close()


def boot(args: Sequence[str], *, memory: int = 64, timeout: float = 60) -> str:
    """Boot, wait until the machine has switched itself off, and return what came over the serial port."""
    with machine([*args, "-no-reboot"], memory=memory) as running:
        status = running.wait(timeout=timeout)
        assert status == 0, f"QEMU ended with status {status}: {running.errors}"
        return running.serial
