"""Lock managers of libvirt's that real daemons and ours share, and what they have."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from support import hosteld, libvirtd_system

XML = """<domain type='qemu'><name>{name}</name><memory unit='MiB'>16</memory>{more}
<os><type arch='x86_64' machine='pc'>hvm</type></os><features><acpi/></features>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator>
{devices}<controller type='usb' model='none'/><memballoon model='none'/></devices></domain>"""


class Peers(NamedTuple):
    """Our daemon and libvirt's under one lock manager, by their URIs, and a folder for files."""

    ours: str
    theirs: str
    folder: Path

    def create(self, uri: str, name: str, devices: str, more: str = "") -> str:
        """Run a machine; why it does not, or nothing."""
        path = self.folder / f"{name}.xml"
        path.write_text(XML.format(name=name, devices=devices, more=more))
        return virsh(uri, "create", str(path))

    def lock_of(self, path: Path) -> Path:
        """The file whose lock stands for an image."""
        return self.folder / "spaces/files" / hashlib.sha256(os.fsencode(path)).hexdigest()


def virsh(uri: str, *words: str) -> str:
    """Run the real virsh; what it complains of in one line, after its own beginning."""
    done = subprocess.run(
        ["virsh", "-q", "-c", uri, *words],
        capture_output=True, text=True, timeout=90, check=False, env={**os.environ, "LC_ALL": "C"},
    )  # fmt: skip
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
def peers(folder: Path, name: str, settings: str) -> Iterator[Peers]:
    """Run both daemons; their machines end with them."""
    with libvirtd_system.apart(drivers=("qemu", "storage", "secret"), lock_manager=(name, settings)) as theirs:
        home = folder / "home"
        config = home / "state/config"
        config.mkdir(parents=True)
        (config / "qemu.conf").write_text(f'lock_manager = "{name}"\n')
        (config / f"qemu-{name}.conf").write_text(settings)
        with hosteld.process(directory=home, wrapper=theirs.inside) as ours:
            yield Peers(ours.uri("qemu:///session"), theirs.uri, folder)
