"""A guest under real QEMU boots from our NBD server, and works on its disk there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hostel import guest
from hostel.block import graph
from hostel.export.nbd.export import NbdExport
from hostel.img import create
from support import qemu
from support.guest import Oracle, report_of
from support.nbd import MIB, serving

pytestmark = pytest.mark.qemu


def nbd_disk(path: Path, export: str) -> list[str]:
    """The arguments for a disk on our server."""
    server = {"type": "unix", "path": str(path)}
    node = {"driver": "raw", "node-name": "disk0", "file": {"driver": "nbd", "server": server, "export": export}}
    return ["-blockdev", json.dumps(node), "-device", "virtio-blk-pci,drive=disk0"]


@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_a_guest_boots_from_our_server_and_writes_to_it(tmp_path: Path, format: str) -> None:
    oracle = Oracle(4 * MIB, seed=11)
    before = oracle.image("from-nbd")
    path = str(tmp_path / "disk")
    create.create(create.plan(path, format, oracle.size))
    with graph.open(path, format, read_only=False) as node:
        node.pwrite(0, before)
        with serving(tmp_path, NbdExport(node, "disk", shared=True)) as server:
            report = report_of(qemu.boot(nbd_disk(server.path, "disk")))
        assert not server.log
    assert report.ok
    assert report.label == "from-nbd"
    assert report.drive.size == oracle.size
    with graph.open(path, format) as node:
        assert node.read(0, oracle.size) == oracle.after(before, 1)


def test_a_read_only_export_is_read_only_to_the_guest(tmp_path: Path) -> None:
    path = tmp_path / "disk.raw"
    path.write_bytes(guest.image(label="locked", size=MIB))
    content = path.read_bytes()
    with graph.open(str(path), "raw") as node, serving(tmp_path, NbdExport(node, "disk")) as server:
        arguments = nbd_disk(server.path, "disk")
        specification = json.loads(arguments[1])
        specification["read-only"] = specification["file"]["read-only"] = True
        report = report_of(qemu.boot([arguments[0], json.dumps(specification), *arguments[2:]]))
    assert report.label == "locked"
    assert path.read_bytes() == content
