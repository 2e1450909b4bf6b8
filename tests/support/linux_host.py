"""A host of our own: Debian's kernel in a machine that QEMU emulates, with devices to give away.

Its root is the real host's, read-only below a layer in memory: what is installed here is there, and nothing that
happens there stays. It has an IOMMU, and PCI and USB devices (compare ``uml``, which starts faster and has none).
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from support.linux import BEGIN, END, PREPARE, Kernel, cpio, package
from support.qemu import PROGRAM

TIMEOUT = 600.0  # seconds for its whole life, of which it needs 90 where nothing else runs
_ROOT = Path(__file__).parents[2]
_BOOT = ("virtio_pci", "9pnet_virtio", "9p", "overlay")  # modules until there is a root
_COMMAND = "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check tsc=reliable intel_iommu=on"
_INIT = """mkdir -p /lower /layer /new
mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,ro,cache=loose root /lower
mount -t tmpfs -o size=70% layer /layer
mkdir /layer/upper /layer/work
mount -t overlay -o lowerdir=/lower,upperdir=/layer/upper,workdir=/layer/work new /new
cd /new
for folder in proc sys dev; do mount --move /$folder $folder; done
mount -t tmpfs run run
mkdir -p run/lock dev/pts dev/shm lib/modules
mount -t devpts pts dev/pts
cp -r /lib/modules lib/
exec switch_root . /bin/bash -c '
    export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin TERM=dumb HOME=/root LC_ALL=C.UTF-8
    ip link set lo up
    cd {root}
    echo; echo "{begin}"
    export PYTHONPYCACHEPREFIX={bytecode} PYTHONPATH={root}/src:{root}/tests
    timeout {timeout} {python} -m {module} {words} 2>&1
    echo "{end}$?"
    echo o >/proc/sysrq-trigger
    sleep 60
'
"""


def run(work: Path, module: str, words: Sequence[str], devices: Sequence[str], modules: Sequence[str]) -> str:
    """Boot, and run a module of the tests as root; returns what it said, which is also in the failure.

    Args:
        work: an empty folder.
        module: of the tests.
        words: its arguments.
        devices: QEMU's arguments for devices.
        modules: the kernel's that may be asked for with ``modprobe``.
    """
    kernel = Kernel(package("generic"), work / "kernel")
    values = {
        "begin": BEGIN, "end": END, "root": _ROOT, "python": sys.executable, "module": module,
        "bytecode": sys.pycache_prefix or "",
    }  # fmt: skip
    script = PREPARE + _INIT
    for word, value in {**values, "words": shlex.join(words), "timeout": int(TIMEOUT) - 30}.items():
        script = script.replace(f"{{{word}}}", str(value))
    initrd = work / "initrd"
    initrd.write_bytes(_initramfs(kernel, script, modules, work / "modules"))
    # With "enhanced rep movsb" the kernel copies and clears byte by byte, and QEMU one after the other. A second
    # processor would stand still, or spin, wherever a busy host lets the first one wait while it holds a lock.
    command = [
        PROGRAM, "-machine", "q35,kernel-irqchip=split", "-accel", "tcg,tb-size=512", "-cpu", "max,-erms",
        "-m", "1536", "-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio",
        "-kernel", str(work / "vmlinuz"), "-initrd", str(initrd), "-append", _COMMAND,
        "-fsdev", "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap",
        "-device", "virtio-9p-pci,fsdev=root,mount_tag=root", "-device", "intel-iommu,intremap=on,caching-mode=on",
        *devices,
    ]  # fmt: skip
    image = work / "vmlinuz"
    kernel.image.rename(image)
    shutil.rmtree(work / "kernel")  # it is large, and folders of tests are kept for a while
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT, check=False)
    said = done.stdout.decode(errors="replace").replace("\r\n", "\n")
    match = re.search(f"{BEGIN}\n(.*?){END}(\\d+)", said, re.DOTALL)
    assert match is not None, f"Linux did not get to the test:\n{said[-4000:]}{done.stderr.decode(errors='replace')}"
    assert match[2] == "0", match[1]
    return match[1]


def _initramfs(kernel: Kernel, script: str, modules: Sequence[str], work: Path) -> bytes:
    """What is there before there is a root: busybox, modules that are needed at once, and those for later."""
    version = kernel.image.name.removeprefix("vmlinuz-")
    later = work / "lib/modules" / version
    later.mkdir(parents=True)
    for name, content in kernel.modules(modules):
        (later / f"{name}.ko").write_bytes(content)
    subprocess.run(["depmod", "-b", str(work), version], check=True, capture_output=True, timeout=60)
    busybox = Path(shutil.which("busybox") or "/bin/busybox").read_bytes()
    folders = ("bin", "dev", "proc", "sys", "lib", "early", "lib/modules", f"lib/modules/{version}")
    entries = [(name, 0o040755, b"") for name in folders]
    entries += [("bin/busybox", 0o100755, busybox), ("init", 0o100755, script.encode())]
    entries += [(f"lib/modules/{version}/{path.name}", 0o100644, path.read_bytes()) for path in later.iterdir()]
    early = list(kernel.modules(_BOOT))
    entries += [(f"early/{name}.ko", 0o100644, content) for name, content in early]
    entries.append(("modules", 0o100644, "".join(f"/early/{name}.ko\n" for name, _ in early).encode()))
    return cpio(entries)
