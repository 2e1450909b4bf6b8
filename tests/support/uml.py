"""A kernel of our own as a process (User-mode Linux), for what the host's has not: device mapper, SCSI, iSCSI, NFS.

Its root is the host's, below a layer in memory: what is installed here is there, and nothing that happens there stays.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

TIMEOUT = 240.0  # seconds for a kernel's whole life
_ROOT = Path(__file__).parents[2]

_INIT = """#!/bin/bash
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin TERM=dumb HOME=/root LC_ALL=C.UTF-8
mount -t proc proc /proc
modules=/usr/lib/uml/modules/$(uname -r)
insmod $modules/kernel/fs/overlayfs/overlay.ko
mount -t tmpfs -o size=70% t /mnt
mkdir /mnt/u /mnt/w /mnt/r
mount -t overlay -o lowerdir=/,upperdir=/mnt/u,workdir=/mnt/w o /mnt/r
cd /mnt/r
mount -t proc proc proc
mount -t sysfs s sys
mount -t devtmpfs d dev
mount -t tmpfs t run
mkdir -p run/lock dev/pts dev/shm lib/modules srv/out
mount -t devpts d dev/pts
ln -sfn $modules lib/modules/$(uname -r)
mount -t hostfs none srv/out -o {work}
mkdir -p var/cache/hostel
[ ! -d srv/out/cache ] || cp -r srv/out/cache/. var/cache/hostel
mkdir -p mnt/host
pivot_root . mnt/host  # profiles of AppArmor name paths from the root of all, not from that of a process
exec chroot . /bin/bash -c '
    ip link set lo up
    cd {root}
    export PYTHONPYCACHEPREFIX={bytecode} PYTHONPATH={root}/src:{root}/tests
    timeout {timeout} {python} -m {module} {name} >/srv/out/said 2>&1
    echo $? >/srv/out/code
    sync
    echo o >/proc/sysrq-trigger
    sleep 60
'
"""


def run(work: Path, module: str, name: str, *disks: int, kernel: Sequence[str] = ()) -> None:
    """Boot, and run a function of a module of the tests; what it said is in the failure.

    Args:
        work: an empty folder.
        module: whose ``main`` takes the name.
        name: the function's.
        disks: sizes in bytes of the disks ``/dev/ubda``, ``/dev/ubdb``, ...
        kernel: more words of its command line.
    """
    script = work / "init"
    values = {
        "work": work, "root": _ROOT, "python": sys.executable, "module": module, "name": name,
        "bytecode": sys.pycache_prefix or "",
    }  # fmt: skip
    text = _INIT
    for word, value in {**values, "timeout": int(TIMEOUT) - 20}.items():
        text = text.replace(f"{{{word}}}", str(value))
    script.write_text(text)
    script.chmod(0o755)
    words = ["linux.uml", "mem=768M", "quiet", "rootfstype=hostfs", "rootflags=/", "ro", f"init={script}", *kernel]
    for letter, size in zip("abcdefgh", disks, strict=False):
        disk = work / f"disk-{letter}"
        with disk.open("wb") as file:
            file.truncate(size)
        words.append(f"ubd{letter}={disk}")
    environment = {**os.environ, "TMPDIR": str(work), "HOME": str(work)}
    done = subprocess.run(
        [*words, "con=null", "con0=fd:0,fd:1", "con1=null"],
        stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT, check=False, env=environment,
    )  # fmt: skip
    said = work / "said"
    code = work / "code"
    told = said.read_text() if said.exists() else done.stdout.decode(errors="replace")[-4000:]
    assert code.exists() and code.read_text().strip() == "0", told


def may_boot() -> bool:
    """Whether this user may use the host's files as root does."""
    return os.geteuid() == 0
