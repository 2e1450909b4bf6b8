"""The three ways in which a guest's disk may be an export of the storage daemon's."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

KINDS: Final = ("vhost-user-blk", "nbd", "fuse")


def exported(kind: str, folder: Path, node: Iterable[str] | str) -> list[str]:
    """The daemon's arguments that export a node called ``disk``, which further words describe."""
    if kind == "fuse":
        (folder / "mount").touch()
    blockdev = ["--blockdev", node if isinstance(node, str) else ",".join(node)]
    address = f"addr.type=unix,addr.path={folder / 'export.sock'}"
    return {
        "vhost-user-blk": [*blockdev, "--export", f"vhost-user-blk,id=guest,node-name=disk,{address},writable=on"],
        "nbd": ["--nbd-server", address, *blockdev, "--export", "nbd,id=guest,node-name=disk,writable=on"],
        "fuse": [*blockdev, "--export", f"fuse,id=guest,node-name=disk,mountpoint={folder / 'mount'},writable=on"],
    }[kind]


def attached(kind: str, folder: Path) -> list[str]:
    """QEMU's arguments for the disk; what cannot be done is an I/O error of the guest's."""
    if kind == "vhost-user-blk":
        return [
            "-object", "memory-backend-memfd,id=memory,size=256M,share=on", "-machine", "memory-backend=memory",
            "-chardev", f"socket,id=vhost,path={folder / 'export.sock'},reconnect=1",
            "-device", "vhost-user-blk-pci,chardev=vhost",
        ]  # fmt: skip
    place = f"driver=file,filename={folder / 'mount'}"
    if kind == "nbd":
        place = f"driver=nbd,server.type=unix,server.path={folder / 'export.sock'},export=disk"
    device = "virtio-blk-pci,drive=disk0,werror=report,rerror=report"
    return ["-blockdev", f"{place},node-name=disk0,discard=unmap", "-device", device]
