"""A real Linux writes to directories of the host through its own FAT driver, over our NBD server."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
from pathlib import Path

import pytest

from hostel.block import graph
from hostel.export.nbd.export import NbdExport
from support.linux import Linux
from support.nbd import serving

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.slow,
    pytest.mark.requires_tool("busybox"),
    pytest.mark.requires_tool("dpkg-deb"),
]
KINDS = ("12:", "16:", "32:")
MODULES = ("vfat", "nls_cp437", "nls_utf8", "nls_ascii")
SCRIPT = """
for disk in /sys/block/vd?; do
    mount -t vfat -o iocharset=utf8 /dev/${disk##*/}1 /mnt
    cd /mnt
    sha256sum -c -s /data/sums
    mkdir -p 'a new folder/below'
    cp /data/seed 'a new folder/below/the seed.bin'
    sync
    mv 'moved here.dat' 'a new folder/moved there.dat'
    dd if=/data/seed of=changed.dat bs=1000 seek=7 count=20 conv=notrunc 2>/dev/null
    cat /data/seed >> grown.dat
    sync
    rm -r old
    # As editors save.
    echo 'the new text' > saved.txt.tmp; mv saved.txt.tmp saved.txt
    mv one.txt three.txt; mv two.txt one.txt; mv three.txt two.txt
    : > cut.dat
    i=0; while [ $i -lt 150 ]; do echo "small $i" > "small file $i"; [ $((i % 40)) = 0 ] && sync; i=$((i+1)); done
    i=0; while [ $i -lt 150 ]; do [ $((i % 3)) = 0 ] || rm "small file $i"; i=$((i+1)); done
    echo unicode > 'Ünïcode ☃.txt'
    cd /
    umount /mnt
done
"""


def disk(path: Path, node: str) -> list[str]:
    """The arguments for a disk on our server."""
    server = {"type": "unix", "path": str(path)}
    tree = {"driver": "raw", "node-name": node, "file": {"driver": "nbd", "server": server, "export": "disk"}}
    return ["-blockdev", json.dumps(tree), "-device", f"virtio-blk-pci,drive={node}"]


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a directory."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_linux_writes_into_a_directory(linux: Linux, tmp_path: Path) -> None:
    rng = random.Random("vvfat and linux")
    seed = rng.randbytes(300_000)
    before = {name: rng.randbytes(40_000) for name in ("moved here.dat", "changed.dat", "grown.dat", "cut.dat")}
    before |= {f"old/{name}": rng.randbytes(20_000) for name in ("gone", "also/gone")}
    before |= {"saved.txt": b"the old text\n", "one.txt": b"1" * 9000, "two.txt": b"2" * 90}
    after = {
        "a new folder/below/the seed.bin": seed,
        "a new folder/moved there.dat": before["moved here.dat"],
        "changed.dat": before["changed.dat"][:7000] + seed[:20_000] + before["changed.dat"][27_000:],
        "grown.dat": before["grown.dat"] + seed,
        "cut.dat": b"",
        "saved.txt": b"the new text\n",
        "one.txt": before["two.txt"],
        "two.txt": before["one.txt"],
        "Ünïcode ☃.txt": b"unicode\n",
        **{f"small file {number}": f"small {number}\n".encode() for number in range(0, 150, 3)},
    }
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in before.items())
    with contextlib.ExitStack() as stack:
        arguments: list[str] = []
        for number, kind in enumerate(KINDS):
            folder = tmp_path / f"folder{number}"
            for name, data in before.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(data)
            node = stack.enter_context(graph.open(f"fat:{kind}rw:{folder}", "raw", read_only=False))
            place = tmp_path / f"server{number}"
            place.mkdir()
            server = stack.enter_context(serving(place, NbdExport(node, "disk", shared=True)))
            arguments += disk(server.path, f"disk{number}")
        linux.run(SCRIPT, arguments, files={"seed": seed, "sums": sums.encode()}, modules=MODULES)
        for number in range(len(KINDS)):  # the guest's last flush has brought it there
            assert contents(tmp_path / f"folder{number}") == after
    for number in range(len(KINDS)):
        assert contents(tmp_path / f"folder{number}") == after
