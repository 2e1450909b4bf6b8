"""Lock managers of libvirt's that real daemons and ours share, and what they have."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Final

from support import hosteld, libvirtd_system
from support.libvirtd_system import Libvirtd, LockManager

XML = """<domain type='qemu'><name>{name}</name><memory unit='MiB'>16</memory>
<os><type arch='x86_64' machine='pc'>hvm</type></os><features><acpi/></features>{more}
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator>
{devices}<controller type='usb' model='none'/><memballoon model='none'/></devices></domain>"""
DISKS = "__LIBVIRT__DISKS__"  # sanlock's lockspace of libvirt's
IO_TIMEOUT = 1  # seconds
UNKNOWN = "the cause is unknown"


class Peers:
    """Our daemon and libvirt's under one lock manager, by their URIs, and a folder for files."""

    busy: ClassVar[str]

    def __init__(self, ours: str, libvirtd: Libvirtd, folder: Path) -> None:
        self.ours = ours
        self.theirs = libvirtd.uri
        self.folder = folder
        self._libvirtd = libvirtd

    def create(self, uri: str, name: str, devices: str, more: str = "") -> str:
        """Run a machine; why it does not, or nothing."""
        path = self.folder / f"{name}.xml"
        path.write_text(XML.format(name=name, devices=devices, more=more))
        why = virsh(uri, "create", str(path))
        if UNKNOWN in why:  # libvirt has lost its error on the way: what it has logged tells where
            why = "\n".join([why, *self._libvirtd.messages[-5:]])
        return why

    def destroy(self, uri: str, name: str) -> str:
        """End a machine, and wait until the lock manager has noticed; why it does not end, or nothing."""
        why = virsh(uri, "destroy", name)
        deadline = time.monotonic() + 60
        while not why and self.knows(name) and time.monotonic() < deadline:
            time.sleep(0.05)
        return why

    def knows(self, name: str) -> bool:
        """Whether the lock manager still has a machine of this name, as far as it tells."""
        return False

    def lease(self, key: str) -> str:
        """A lease that is there."""
        raise NotImplementedError

    def has(self, key: str) -> bool:
        """Whether some machine has a lease."""
        raise NotImplementedError

    def has_image(self, path: Path) -> bool:
        """Whether some machine has the lock of an image."""
        raise NotImplementedError


class UnderLockd(Peers):
    """Under virtlockd, which locks files that stand for images."""

    busy = "resource busy: Lockspace resource '{}' is locked"

    def lease(self, key: str) -> str:
        self._file(key).touch()
        space = self.folder / "spaces"
        return f"<lease><lockspace>files</lockspace><key>{key}</key><target path='{space}'/></lease>"

    def has(self, key: str) -> bool:
        return is_locked(self._file(key))

    def has_image(self, path: Path) -> bool:
        return is_locked(self._file(hashlib.sha256(os.fsencode(path)).hexdigest()))

    def _file(self, name: str) -> Path:
        return self.folder / "spaces/files" / name

    @staticmethod
    def manager(folder: Path) -> LockManager:
        """The lock manager, with its files in a folder."""
        settings = f'file_lockspace_dir = "{folder}/spaces/files"\n'
        return LockManager("lockd", settings, 'virtlockd --pid-file "$0/lockd.pid"', "/run/libvirt/virtlockd-sock")


class UnderSanlock(Peers):
    """Under sanlock, which has leases on storage."""

    busy = "Failed to acquire lock: File exists"

    def lease(self, key: str) -> str:
        path = self.folder / "spaces" / key
        if not path.exists():
            path.write_bytes(bytes(1 << 20))
            self.sanlock("init", "-r", f"{DISKS}:{key}:{path}:0")
        return f"<lease><lockspace>{DISKS}</lockspace><key>{key}</key><target path='{path}'/></lease>"

    def knows(self, name: str) -> bool:
        lines = self.sanlock("status").splitlines()
        clients = {words[1]: words[2:] for line in lines if (words := line.split())[:1] == ["p"]}
        # A lease is let go of after its process is gone, and is shown with it until then.
        return [name] in clients.values() or any(
            line.rpartition(" p ")[2] not in clients for line in lines if line.startswith("r ")
        )

    def hand_over(self, path: Path) -> str:
        """Have a process get a lease, made here, as another that has it is killed; what it ends with, or nothing."""
        path.write_bytes(bytes(1 << 20))
        self.sanlock("init", "-r", f"{DISKS}:{path.name}:{path}:0")
        module = [sys.executable, "-m", "support.handover", str(self.folder / "home/state")]
        command = [*self._libvirtd.inside, *module, DISKS, path.name, str(path)]
        run = {**os.environ, **self.manager(self.folder).environment, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=run)
        return done.stderr if done.returncode else ""

    def has(self, key: str) -> bool:
        return f"r {DISKS}:{key}:" in self.sanlock("status")

    def has_image(self, path: Path) -> bool:
        return self.has(hashlib.md5(os.fsencode(path)).hexdigest())

    def sanlock(self, *words: str) -> str:
        """What sanlock's own tool says."""
        run = {**os.environ, **self.manager(self.folder).environment}
        command = ["sanlock", "client", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=run).stdout

    @staticmethod
    def manager(folder: Path) -> LockManager:
        """The lock manager, with its files in a folder."""
        settings = f'auto_disk_leases = 1\ndisk_lease_dir = "{folder}/spaces"\nhost_id = 1\nio_timeout = {IO_TIMEOUT}\n'
        run = str(folder / "sanlock")
        options = ("-D", "-w", "0", "-h", "0", "-l", "0", "-U", "root", "-G", "root")
        words = [sys.executable, str(Path(__file__).with_name("limits.py")), "sanlock", "daemon", *options]
        return LockManager("sanlock", settings, shlex.join(words), f"{run}/sanlock.sock", {"SANLOCK_RUN_DIR": run})


KINDS: Final[dict[str, type[UnderLockd] | type[UnderSanlock]]] = {"virtlockd": UnderLockd, "sanlock": UnderSanlock}


def _run(uri: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["virsh", "-q", "-c", uri, *words],
        capture_output=True, text=True, timeout=90, check=False, env={**os.environ, "LC_ALL": "C"},
    )  # fmt: skip


def state(uri: str, name: str) -> str:
    """What a machine does; empty where there is none."""
    return _run(uri, "domstate", name).stdout.strip()


def dumped(uri: str, name: str) -> str:
    """The document of a machine, for another host."""
    return _run(uri, "dumpxml", name, "--migratable").stdout


def virsh(uri: str, *words: str) -> str:
    """Run the real virsh; what it complains of in one line, after its own beginning."""
    done = _run(uri, *words)
    lines = [line.removeprefix("error: ") for line in done.stderr.splitlines()]
    return lines[-1] if lines and done.returncode else ""


def is_locked(path: Path) -> bool:
    """Whether another process has the lock of a file that virtlockd would take."""
    if not path.exists():
        return False
    with path.open("r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1)
        except BlockingIOError:
            return True
    return False


@contextlib.contextmanager
def peers(kind: str) -> Iterator[UnderLockd | UnderSanlock]:
    """Run both daemons; their machines end with them."""
    with tempfile.TemporaryDirectory(prefix="lk-", ignore_cleanup_errors=True) as name:  # short, for sockets
        folder = Path(name)
        (folder / "spaces/files").mkdir(parents=True)
        (folder / "sanlock").mkdir()
        manager = KINDS[kind].manager(folder)
        with libvirtd_system.apart(drivers=("qemu", "storage", "secret"), lock_manager=manager) as theirs:
            home = folder / "home"
            config = home / "state/config"
            config.mkdir(parents=True)
            (config / "qemu.conf").write_text(f'lock_manager = "{manager.name}"\n')
            (config / f"qemu-{manager.name}.conf").write_text(manager.settings)
            run = dict(manager.environment)
            with hosteld.process(directory=home, wrapper=theirs.inside, environment=run) as ours:
                yield KINDS[kind](ours.uri("qemu:///session"), theirs, folder)
