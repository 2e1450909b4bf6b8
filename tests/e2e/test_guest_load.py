"""Guests that write as fast as they can while our side is disturbed: what they were told is flushed is there."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from support import image
from support.daemon import daemon
from support.guest_load import Load, Report, missing

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.slow,
    pytest.mark.requires_tool("qemu-img"),
    pytest.mark.requires_tool("busybox"),
    pytest.mark.requires_tool("dpkg-deb"),
]
SIZE = 6 << 20


def vhost(folder: Path) -> list[str]:
    """QEMU's arguments for a disk of a vhost-user-blk export, which may go and come back."""
    return [
        "-object", "memory-backend-memfd,id=memory,size=256M,share=on", "-machine", "memory-backend=memory",
        "-chardev", f"socket,id=vhost,path={folder / 'vhost.sock'},reconnect=1",
        "-device", "vhost-user-blk-pci,chardev=vhost",
    ]  # fmt: skip


def export(folder: Path, path: Path) -> list[str]:
    node = f"qcow2,node-name=disk,discard=unmap,file.driver=file,file.filename={path}"
    return [
        "--blockdev", node, "--export",
        f"vhost-user-blk,id=guest,node-name=disk,addr.type=unix,addr.path={folder / 'vhost.sock'},writable=on",
    ]  # fmt: skip


@contextlib.contextmanager
def load(folder: Path, args: Sequence[str]) -> Iterator[Load]:
    """A guest that writes to the disk that QEMU's arguments make."""
    running = Load(folder, args, SIZE)
    try:
        running.start()
        yield running
    finally:
        running.close()


def judge(path: Path, said: Report) -> None:
    """All that was flushed is in the image, the guest read it as it is, and the image is sound."""
    content = image.content(path, "qcow2")
    assert missing(content, said, SIZE) == []
    assert said.digest == hashlib.sha256(content).hexdigest()
    image.assert_clean(path, "qcow2")


def test_a_back_end_that_is_killed_takes_nothing_with_it_that_was_flushed(tmp_path: Path) -> None:
    """What qcow2 held back in memory is gone, and the guest hears of it: none of its flushes succeeds any more."""
    path = tmp_path / "disk.qcow2"
    image.qemu_img("create", "-q", "-f", "qcow2", path, SIZE)
    with contextlib.ExitStack() as stack:
        running: Load | None = None
        while running is None or "<U " not in running.machine.serial:  # a kill may find that nothing is held back
            with daemon(tmp_path, *export(tmp_path, path)) as killed:
                running = running or stack.enter_context(load(tmp_path, vhost(tmp_path)))
                running.wait_for(">", 6)
                killed.process.kill()
                killed.process.wait(20)
            (tmp_path / "vhost.sock").unlink()
        with daemon(tmp_path, *export(tmp_path, path)) as last:
            said = running.end()
            assert last.stop() == 0
            assert last.process.stderr is not None
            assert "no flush succeeds before the guest resets the disk" in last.process.stderr.read()
    assert any(said.flushed.values())
    judge(path, said)
