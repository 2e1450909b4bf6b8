"""A real Linux for tests: Debian's cloud kernel and static busybox in an initramfs that is built here.

``./test`` downloads the kernel's package to ``.cache``; nothing is installed. The initramfs holds busybox, the modules
that disks need, and a script of the test's; what the script prints between two marks comes back over the serial port.
"""

from __future__ import annotations

import atexit
import functools
import io
import lzma
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from support import qemu

CACHE = Path(os.environ.get("HOSTEL_TEST_CACHE") or Path(__file__).parents[2] / ".cache")
MODULES = ("virtio_pci", "virtio_blk", "virtio_scsi", "sd_mod", "ata_piix")
BEGIN = "HOSTEL-LINUX begin"
END = "HOSTEL-LINUX end status="
# What an init begins with: the tools, the kernel's file systems, the modules that are named.
PREPARE = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in $(cat /modules); do
    insmod "$module" || echo "insmod $module failed"
done
"""
INIT = (
    PREPARE
    + """mkdir -p /mnt /tmp
echo; echo "BEGIN"
sh -eu /script 2>&1
echo "END$?"
poweroff -f
""".replace("BEGIN", BEGIN).replace("END", END)
)


def cpio(entries: Sequence[tuple[str, int, bytes]]) -> bytes:
    """Write a "new ASCII" cpio archive, the format of an initramfs.

    Args:
        entries: name, mode with file type, and content (a link's target) of each, folders before what is in them.
    """
    out = io.BytesIO()
    for inode, (name, mode, content) in enumerate([*entries, ("TRAILER!!!", 0, b"")], 1):
        path = name.encode() + b"\0"
        # inode, mode, uid, gid, links, mtime, size, device (2), special device (2), name size, checksum
        fields = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path), 0)
        out.write(b"070701" + b"".join(b"%08x" % field for field in fields) + path)
        out.write(bytes(-out.tell() % 4) + content)
        out.write(bytes(-out.tell() % 4))
    return out.getvalue()


def package(kind: str) -> Path:
    """The package of a kernel of a kind, ``cloud`` or ``generic``; without one the test is skipped, or fails in CI."""
    packages = [
        path for path in sorted(CACHE.glob("linux-image-*.deb")) if ("-cloud-" in path.name) == (kind == "cloud")
    ]
    if not packages:
        missing = f"needs a {kind} Linux kernel in {CACHE} (./test downloads it)"
        pytest.fail(missing) if "HOSTEL_TESTS_IN_CI" in os.environ else pytest.skip(missing)
    return packages[-1]


class Kernel:
    """The kernel and its modules, unpacked from the package."""

    def __init__(self, package: Path, work: Path) -> None:
        subprocess.run(["dpkg-deb", "-x", str(package), str(work)], check=True, timeout=120)
        self.image = next((work / "boot").glob("vmlinuz-*"))
        modules = next(path for path in (work / "lib/modules", work / "usr/lib/modules") if path.is_dir())
        self._files = {path.name.split(".")[0].replace("-", "_"): path for path in modules.rglob("*.ko*")}

    def modules(self, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """Each module with what it depends on before it; what is not there is built in."""
        done: set[str] = set()

        def visit(name: str) -> Iterator[tuple[str, bytes]]:
            if name in done or name not in self._files:
                return
            done.add(name)
            content = self._files[name].read_bytes()
            if self._files[name].suffix == ".xz":
                content = lzma.decompress(content)
            found = re.search(rb"\0depends=([\w,-]*)\0", content)
            for needed in found.group(1).decode().split(",") if found else ():
                yield from visit(needed.replace("-", "_"))
            yield name, content

        for name in names:
            yield from visit(name)


def _programs(names: Sequence[str], folders: set[str]) -> Iterator[tuple[str, int, bytes]]:
    """The entries of programs and libraries, with those of the folders that are not there yet."""
    found = {path for name in names if (path := shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin"))}
    assert len(found) == len(names), f"{names}: only {found} are there"
    for path in list(found):
        told = subprocess.run(["ldd", path], capture_output=True, text=True, timeout=30, check=True).stdout
        found.update(re.findall(r"(/\S+) \(0x", told))
    for path in sorted(found):
        for folder in reversed(Path(path).parents[:-1]):
            if (name := str(folder).lstrip("/")) not in folders:
                folders.add(name)
                yield name, 0o040755, b""
        yield path.lstrip("/"), 0o100755, Path(path).read_bytes()


@functools.cache
def _small_kernel() -> Kernel:
    """The cloud kernel, unpacked once for all that boot it; gone with this process."""
    folder = Path(tempfile.mkdtemp(prefix="hostel-kernel-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    folder.chmod(0o755)
    return Kernel(package("cloud"), folder)


class Linux:
    """Boots the kernel with a script.

    Args:
        work: where initramfses are written.
    """

    def __init__(self, work: Path) -> None:
        self.kernel = _small_kernel()
        self.work = work

    def initramfs(
        self, script: str, files: dict[str, bytes], modules: Sequence[str] = (), programs: Sequence[str] = ()
    ) -> bytes:
        """Build the initramfs for one script.

        Args:
            script: see :meth:`run`.
            files: of the test's, by path.
            modules: beside the usual ones.
            programs: of the host's, with their libraries, where they are on the host.
        """
        busybox = shutil.which("busybox")
        assert busybox is not None
        entries: list[tuple[str, int, bytes]] = [
            (name, 0o040755, b"") for name in ("bin", "dev", "proc", "sys", "lib", "data")
        ]
        entries.append(("bin/busybox", 0o100755, Path(busybox).read_bytes()))
        entries.append(("init", 0o100755, INIT.encode()))
        entries.append(("script", 0o100755, script.encode()))
        loaded = []
        for name, content in self.kernel.modules((*MODULES, *modules)):
            entries.append((f"lib/{name}.ko", 0o100644, content))
            loaded.append(f"/lib/{name}.ko\n")
        entries.append(("modules", 0o100644, "".join(loaded).encode()))
        entries.extend(_programs(programs, {name for name, _, _ in entries}))
        entries.extend((f"data/{name}", 0o100644, content) for name, content in files.items())
        return cpio(entries)

    def run(
        self,
        script: str,
        args: Sequence[str],
        *,
        files: dict[str, bytes] | None = None,
        modules: Sequence[str] = (),
    ) -> str:
        """Boot, run the script as root, and return what it printed; fails when it failed.

        Args:
            script: for busybox's shell, with ``set -eu``.
            args: QEMU's arguments for the disks.
            files: what it finds in ``/data``.
            modules: what the kernel needs beside what disks need.
        """
        initrd = self.work / "initrd"
        initrd.write_bytes(self.initramfs(script, files or {}, modules))
        append = "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check tsc=reliable"
        boot = ["-kernel", str(self.kernel.image), "-initrd", str(initrd), "-append", append, "-cpu", "max", *args]
        serial = qemu.boot(boot, memory=256, timeout=120).replace("\r\n", "\n")
        match = re.search(f"{BEGIN}\n(.*?){END}(\\d+)", serial, re.DOTALL)
        assert match is not None, f"Linux did not get to the script:\n{serial}"
        assert match.group(2) == "0", f"the script failed with status {match.group(2)}:\n{match.group(1)}"
        return match.group(1)
