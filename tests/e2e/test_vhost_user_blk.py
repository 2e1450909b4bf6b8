"""Guests under real QEMU boot from our vhost-user-blk back end, and real qemu-img judges what they leave."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from pathlib import Path

import pytest

from hostel import guest
from support import image, qemu
from support.daemon import Daemon, daemon
from support.guest import Oracle, report_of
from support.linux import Linux

pytestmark = [pytest.mark.qemu, pytest.mark.requires_tool("qemu-img")]
MIB = 1 << 20


def export(path: Path, format: str, *, more: str = "writable=on") -> list[str]:
    """The daemon's arguments that export an image to a guest."""
    node = f"driver={format},node-name=disk,discard=unmap,file.driver=file,file.filename={path}"
    socket = path.parent / "vhost.sock"
    return [
        "--blockdev", node,
        "--export", f"vhost-user-blk,id=guest,node-name=disk,addr.type=unix,addr.path={socket},{more}",
    ]  # fmt: skip


def disk(folder: Path, *, memory: int = 64, more: str = "") -> list[str]:
    """QEMU's arguments for a disk that is served through shared memory."""
    return [
        "-object", f"memory-backend-memfd,id=memory,size={memory}M,share=on", "-machine", "memory-backend=memory",
        "-chardev", f"socket,id=vhost,path={folder / 'vhost.sock'}",
        "-device", f"vhost-user-blk-pci,chardev=vhost,bootindex=1{more}",
    ]  # fmt: skip


@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_a_guest_boots_from_our_back_end_and_writes_to_it(tmp_path: Path, format: str) -> None:
    oracle = Oracle(4 * MIB, seed=12)
    before = oracle.image("from-vhost")
    path = tmp_path / f"disk.{format}"
    (tmp_path / "before.raw").write_bytes(before)
    image.qemu_img("convert", "-f", "raw", "-O", format, tmp_path / "before.raw", path)
    with daemon(tmp_path, *export(path, format)) as running:
        report = report_of(qemu.boot(disk(tmp_path)))
        assert running.stop() == 0
    assert report.ok
    assert report.label == "from-vhost"
    assert report.drive.size == oracle.size
    assert image.content(path, format) == oracle.after(before, 1)
    if format == "qcow2":
        image.assert_clean(path, format)


def test_a_read_only_export_is_read_only_to_the_guest(tmp_path: Path) -> None:
    path = tmp_path / "disk.raw"
    path.write_bytes(guest.image(label="locked", size=MIB))
    content = path.read_bytes()
    with daemon(tmp_path, *export(path, "raw", more="writable=off")):
        report = report_of(qemu.boot(disk(tmp_path)))
    assert report.label == "locked"
    assert path.read_bytes() == content


# All that Linux's driver does: two queues, indirect descriptors, flushes, a discard, zeroes, and a new size.
SCRIPT = """
blocks() { cat /sys/block/vda/size; }
cd /sys/block/vda
echo has $(blocks) blocks, $(ls mq | wc -l) queues, $(cat queue/write_cache), $(cat queue/logical_block_size)
echo is $(cat serial)
dd if=/data/seed of=/dev/vda bs=64k seek=16 conv=fsync 2>/dev/null
dd if=/data/seed of=/dev/vda bs=4096 seek=4096 oflag=direct 2>/dev/null
blkdiscard -o 1048576 -l 1048576 /dev/vda
echo 3 > /proc/sys/vm/drop_caches
echo reads $(dd if=/dev/vda bs=1M skip=1 count=20 2>/dev/null | sha256sum)
echo ready | dd of=/dev/vda bs=512 count=1 conv=sync,fsync 2>/dev/null
i=0; while [ $(blocks) -lt 262144 ] && [ $i -lt 300 ]; do sleep 0.2; i=$((i+1)); done
echo grown to $(blocks)
dd if=/data/seed of=/dev/vda bs=1M seek=100 conv=fsync 2>/dev/null
"""


@pytest.mark.slow
@pytest.mark.requires_tool("busybox")
@pytest.mark.requires_tool("dpkg-deb")
def test_linux_works_on_our_disk_and_sees_it_grow(tmp_path: Path) -> None:
    (tmp_path / "linux").mkdir()
    linux = Linux(tmp_path / "linux")
    path = tmp_path / "disk.raw"
    with path.open("wb") as stream:
        stream.truncate(64 * MIB)
    seed = random.Random(3).randbytes(2 * MIB)
    content = bytearray(128 * MIB)
    for start, data in ((MIB, seed), (16 * MIB, seed), (MIB, bytes(MIB))):
        content[start : start + len(data)] = data
    with daemon(tmp_path, *export(path, "raw", more="writable=on,num-queues=2")) as running:
        growing = threading.Thread(target=grow_when_ready, args=(running, path))
        growing.start()
        machine = ["-smp", "2", *disk(tmp_path, memory=256, more=",num-queues=2")]
        said = linux.run(SCRIPT, machine, files={"seed": seed})
        growing.join(60)
        assert not growing.is_alive()
        assert running.stop() == 0
    assert "has 131072 blocks, 2 queues, write back, 512" in said
    assert "is vhost_user_blk" in said
    assert f"reads {hashlib.sha256(content[MIB : 21 * MIB]).hexdigest()}" in said
    assert "grown to 262144" in said
    content[:6], content[100 * MIB : 102 * MIB] = b"ready\n", seed
    assert image.content(path, "raw") == content


def grow_when_ready(running: Daemon, path: Path) -> None:
    """Double the disk once the guest has written that it waits for it."""
    wait_for(path, 0, b"ready")
    running.monitor.command("block_resize", node_name="disk", size=128 * MIB)


# Writes numbered blocks one by one, each durable, until the host says that it is enough; then looks at all of them.
STEADY = """
i=0
echo started | dd of=/dev/vda bs=512 count=1 conv=sync,fsync 2>/dev/null
while [ $i -lt 4000 ]; do
    i=$((i+1))
    printf "%08d" $i | dd of=/dev/vda bs=4096 seek=$((i+16)) conv=sync,fsync 2>/dev/null
    dd if=/dev/vda bs=512 skip=8 count=1 iflag=direct of=/tmp/answer 2>/dev/null
    grep -q enough /tmp/answer && break
done
echo 3 > /proc/sys/vm/drop_caches
j=0
while [ $j -lt $i ]; do
    j=$((j+1))
    [ "$(dd if=/dev/vda bs=4096 skip=$((j+16)) count=1 2>/dev/null | head -c 8)" = "$(printf %08d $j)" ]
done
echo kept all of $i
dmesg | grep -i "i/o error" || echo no errors
"""


@pytest.mark.slow
@pytest.mark.requires_tool("busybox")
@pytest.mark.requires_tool("dpkg-deb")
def test_a_guest_goes_on_after_its_back_end_was_killed_and_came_back(tmp_path: Path) -> None:
    """QEMU connects again, and the queue goes on where the used ring says: nothing is lost, and nothing fails."""
    (tmp_path / "linux").mkdir()
    linux = Linux(tmp_path / "linux")
    path = tmp_path / "disk.raw"
    with path.open("wb") as stream:
        stream.truncate(32 * MIB)
    said: list[str] = []
    machine = [word.replace("vhost.sock", "vhost.sock,reconnect=1") for word in disk(tmp_path, memory=256)]
    guest = threading.Thread(target=lambda: said.append(linux.run(STEADY, machine)))
    for round in range(3):
        with daemon(tmp_path, *export(path, "raw")) as running:
            if not round:
                guest.start()
                wait_for(path, 0, b"started")
            time.sleep(2.5)
            running.process.kill()
            running.process.wait(20)
        (tmp_path / "vhost.sock").unlink()
    with daemon(tmp_path, *export(path, "raw")) as last:
        with path.open("r+b") as stream:
            stream.seek(4096)
            stream.write(b"enough")
        guest.join(100)
        assert not guest.is_alive()
        assert last.stop() == 0
    (text,) = said
    assert "no errors" in text
    count = int(text.partition("kept all of ")[2].split()[0])
    assert count > 5
    content = path.read_bytes()
    assert all(content[4096 * (j + 16) :][:8] == b"%08d" % j for j in range(1, count + 1))


def wait_for(path: Path, offset: int, text: bytes) -> None:
    """Wait until the guest has written something."""
    until = time.monotonic() + 100
    while time.monotonic() < until:
        with path.open("rb") as stream:
            stream.seek(offset)
            if stream.read(len(text)) == text:
                return
        time.sleep(0.1)
    raise AssertionError(f"the guest did not write {text!r}")
