"""A guest that discards, zeroes and trims an export's disk: the image holds what the guest reads, snapshots too."""

from __future__ import annotations

import hashlib
import os
import random
import re
from pathlib import Path

import pytest

from support import image, qemu
from support.daemon import daemon
from support.guest_exports import KINDS, attached, exported
from support.linux import END, Linux

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.slow,
    pytest.mark.requires_tool("qemu-img"),
    pytest.mark.requires_tool("busybox"),
    pytest.mark.requires_tool("dpkg-deb"),
    pytest.mark.requires_tool("mke2fs"),
]
MIB = 1 << 20
SIZE = 24 * MIB
SOAK = int(os.environ.get("HOSTEL_SOAK", "1"))  # with more, all three exports are tried
POINTS = ("discarded", "files", "trimmed", "more")
# At each point it says what the whole disk reads as, and waits.
SCRIPT = r"""
mkdir -p /mnt /etc
: > /etc/mke2fs.conf
: > /etc/mtab
point() {
    sync; echo 3 > /proc/sys/vm/drop_caches
    echo "<P $1 $(md5sum < /dev/vda)>"
    read word
}
blkdiscard -o 1M -l 3M /dev/vda
/usr/sbin/blkdiscard -z -o 5M -l 3M /dev/vda
point discarded
/usr/sbin/mkfs.ext4 -q -F -E lazy_itable_init=1 /dev/vda 2>/dev/null
mount -t ext4 /dev/vda /mnt
for i in 1 2 3; do dd if=/dev/urandom of=/mnt/$i bs=64k count=40 2>/dev/null; done
umount /mnt
point files
mount -t ext4 /dev/vda /mnt
rm /mnt/1 /mnt/3
sync
/usr/sbin/fstrim /mnt
umount /mnt
point trimmed
mount -t ext4 -o discard /dev/vda /mnt
dd if=/dev/urandom of=/mnt/4 bs=64k count=20 2>/dev/null
rm /mnt/2
umount /mnt
point more
"""


@pytest.mark.parametrize("kind", KINDS if SOAK > 1 else KINDS[:1])
def test_what_a_guest_gives_up_reads_the_same_in_the_image(tmp_path: Path, kind: str) -> None:
    """What is below, full of data, never shows again; an overlay is put on the disk at two of the points."""
    base, path = tmp_path / "base", tmp_path / "disk"
    image.qemu_img("create", "-q", "-f", "qcow2", base, SIZE)
    image.write(base, "qcow2", (0, random.Random(4).randbytes(20 * MIB)))
    image.qemu_img("create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", "-b", base, "-F", "qcow2", path, SIZE)
    linux = Linux(tmp_path)
    programs = ("mkfs.ext4", "blkdiscard", "fstrim")
    (tmp_path / "initrd").write_bytes(linux.initramfs(SCRIPT, {}, ("ext4", "crc32c_generic"), programs))
    append = "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check tsc=reliable"
    boot = ["-kernel", str(linux.kernel.image), "-initrd", str(tmp_path / "initrd"), "-append", append, "-cpu", "max"]
    node = f"qcow2,node-name=disk,discard=unmap,file.driver=file,file.filename={path}"
    layers: list[tuple[Path, str]] = []
    digest = ""
    with daemon(tmp_path, *exported(kind, tmp_path, node)) as running:
        with qemu.machine([*boot, "-no-reboot", *attached(kind, tmp_path)], memory=256) as guest:
            top = "disk"
            for point in POINTS:
                found = re.search(
                    rf"<P {point} (\w+)", guest.wait_for("->", times=POINTS.index(point) + 1, timeout=100)
                )
                assert found is not None
                digest = found[1]
                if point in ("discarded", "files"):
                    layers.append((path, digest))
                    path = tmp_path / f"after-{point}"
                    image.qemu_img("create", "-q", "-f", "qcow2", "-b", layers[-1][0], "-F", "qcow2", path, SIZE)
                    file = {"driver": "file", "filename": str(path)}
                    running.monitor.command(
                        "blockdev-add", driver="qcow2", node_name=point, file=file, discard="unmap", backing=None
                    )
                    running.monitor.command("blockdev-snapshot", node=top, overlay=point)
                    top = point
                guest.type("go\n")
            layers.append((path, digest))
            assert guest.wait(timeout=100) == 0
            assert f"{END}0" in guest.serial, guest.serial
        assert running.stop() == 0
    for layer, seen in layers:
        assert hashlib.md5(image.content(layer, "qcow2")).hexdigest() == seen, layer
        image.assert_clean(layer, "qcow2")
