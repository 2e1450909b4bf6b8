"""A real Linux mounts file systems on our images: checksums agree in both directions, and nothing is left damaged."""

from __future__ import annotations

import hashlib
import random
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from support import image, qemu
from support.linux import Linux

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.slow,
    pytest.mark.requires_tool("qemu-img"),
    pytest.mark.requires_tool("busybox"),
    pytest.mark.requires_tool("mke2fs"),
    pytest.mark.requires_tool("debugfs"),
    pytest.mark.requires_tool("dpkg-deb"),
]
MIB = 1 << 20
SIZE = 48 * MIB
# Checks what we wrote, changes much of it, and says what is there now.
SCRIPT = """
for disk in /sys/block/[sv]d?; do
    case $(readlink -f $disk) in
        */ata*) bus=ide ;;
        */host*) bus=scsi ;;
        *) bus=virtio ;;
    esac
    device=/dev/${disk##*/}
    mount -t ext4 $device /mnt
    cd /mnt
    sha256sum -c -s /data/sums
    rm -r old
    cp -r files more
    dd if=/data/seed of=files/large bs=5000 seek=100 conv=notrunc 2>/dev/null
    i=0; while [ $i -lt 200 ]; do echo "small $i on $bus" > small-$i; i=$((i+1)); done
    find . -type f | sort | while read -r name; do echo "$bus $(sha256sum "$name")"; done
    cd /
    umount /mnt
    mount -o ro -t ext4 $device /mnt
    [ "$(cat /mnt/small-199)" = "small 199 on $bus" ]
    umount /mnt
done
"""


def write_tree(root: Path) -> dict[str, str]:
    """Write files with known content; returns the SHA-256 of each by its name."""
    rng = random.Random(42)
    sizes = {"files/empty": 0, "files/one": 1, "files/large": 9 * MIB, "old/gone": 3 * MIB}
    sizes |= {f"files/{index}": rng.randrange(200_000) for index in range(40)}
    found = {}
    for name, size in sizes.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rng.randbytes(size))
        found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def on_compressed_base(work: Path, source: Path) -> Path:
    image.qemu_img("convert", "-f", "raw", "-O", "qcow2", "-c", source, work / "base.qcow2")
    image.qemu_img("create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", work / "overlay.qcow2")
    return work / "overlay.qcow2"


def small_clusters(work: Path, source: Path) -> Path:
    path = work / "small.qcow2"
    image.qemu_img("convert", "-f", "raw", "-O", "qcow2", "-o", "cluster_size=4k,lazy_refcounts=on", source, path)
    return path


def after_a_snapshot(work: Path, source: Path) -> Path:
    path = work / "snapshot.qcow2"
    image.qemu_img("convert", "-f", "raw", "-O", "qcow2", "-o", "compression_type=zstd", "-c", source, path)
    image.qemu_img("snapshot", "-c", "before", path)
    return path


# One boot of Linux sees all of them.
DISKS: dict[str, Callable[[Path, Path], Path]] = {
    "virtio": on_compressed_base,
    "ide": small_clusters,
    "scsi": after_a_snapshot,
}


def tool(*words: str | Path) -> str:
    """Run a tool of e2fsprogs, which must succeed; returns what it printed."""
    ended = subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, f"{words}: {ended.stdout}\n{ended.stderr}"
    return ended.stdout


def test_linux_and_we_agree_on_every_file(linux: Linux, tmp_path: Path) -> None:
    sums = write_tree(tmp_path / "tree")
    source = tmp_path / "source.raw"
    source.touch()
    tool("mke2fs", "-q", "-t", "ext4", "-F", "-d", tmp_path / "tree", source, f"{SIZE // 1024}k")
    paths = {bus: make(tmp_path, source) for bus, make in DISKS.items()}
    base = (tmp_path / "base.qcow2").read_bytes()
    args = [argument for bus, path in paths.items() for argument in qemu.disk(path, "qcow2", bus, node=bus)]
    files = {
        "sums": "".join(f"{digest}  {name}\n" for name, digest in sums.items()).encode(),
        "seed": random.Random(1).randbytes(5 * MIB),
    }
    said = linux.run(SCRIPT, args, files=files)
    for bus, path in paths.items():
        theirs = {name: digest for digest, name in re.findall(rf"^{bus} (\w+)  \./(\S+)$", said, re.MULTILINE)}
        assert len(theirs) == 43 + 43 + 200
        assert ours(path, tmp_path / bus) == theirs
        image.assert_clean(path, "qcow2")
    assert (tmp_path / "base.qcow2").read_bytes() == base
    image.qemu_img("snapshot", "-a", "before", paths["scsi"])
    assert image.content(paths["scsi"], "qcow2") == source.read_bytes()


def ours(path: Path, work: Path) -> dict[str, str]:
    """The SHA-256 of each file on an image, read through our block layer and checked by e2fsck."""
    work.mkdir()
    image.qemu_img("convert", "-f", "qcow2", "-O", "raw", path, work / "disk.raw")
    tool("e2fsck", "-fn", work / "disk.raw")
    (work / "tree").mkdir()
    tool("debugfs", "-R", f"rdump / {work / 'tree'}", work / "disk.raw")
    return {
        str(file.relative_to(work / "tree")): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in (work / "tree").rglob("*")
        if file.is_file()
    }
