"""What the graph of a storage daemon lets be done to it, beside QEMU's: who stands on whom, and who uses what."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.daemon import daemon
from support.image import real_qemu_img
from support.scene import Client, Command, Event, Step, compare, qemu_io, run

pytestmark = [pytest.mark.requires_tool(tool) for tool in ("qemu-storage-daemon", "qemu-img", "qemu-io")]

NBD = ("--nbd-server", "addr.type=unix,addr.path=nbd.sock")
IMAGES = (
    "qemu-img create -q -f qcow2 base.qcow2 1M",
    "qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2",
    "qemu-img create -q -f qcow2 other.qcow2 1M",
    "qemu-img create -q -f qcow2 free.qcow2 1M",
    'qemu-io -f qcow2 -c "write -P 1 0 256k" base.qcow2',
    'qemu-io -f qcow2 -c "write -P 2 128k 256k" top.qcow2',
)


def add(name: str, **options: object) -> Command:
    file = {"driver": "file", "filename": f"{name}.qcow2"}
    return run("blockdev-add", driver="qcow2", node_name=name, file=file, **options)


def export(node: str, *, writable: bool = False) -> Command:
    return run("block-export-add", type="nbd", id=f"e-{node}", node_name=node, writable=writable)


def pulled(*commands: str) -> Client:
    """Reads of the export that is for reading only."""
    return Client(("qemu-io", "-r", *qemu_io("free", *commands).words[1:]))


def test_a_backup_into_an_overlay_of_the_disk_shows_its_moment(tmp_path: Path) -> None:
    steps: list[Step] = [
        add("base"),
        add("free", backing="base"),
        export("base", writable=True),
        run("blockdev-backup", device="base", target="free", sync="none", job_id="fleece"),
        export("free"),
        qemu_io("base", "write -P 7 64k 128k", "discard 448k 64k"),
        pulled("read -P 1 0 256k", "read -P 0 256k 768k"),
        run("blockdev-snapshot-sync", node_name="base", snapshot_file="x.qcow2", snapshot_node_name="x"),
        run("block_resize", node_name="base", size=2 << 20),
        run("block_resize", node_name="free", size=2 << 20),
        run("blockdev-del", node_name="base"),
        run("block-export-del", id="e-free"),
        run("block-job-cancel", device="fleece"),
        Event("BLOCK_JOB_CANCELLED"),
        Event("JOB_STATUS_CHANGE", "null"),
        qemu_io("base", "read -P 1 0 64k", "read -P 7 64k 128k"),
        run("blockdev-del", node_name="free"),
        run("query-named-block-nodes", flat=True),
    ]
    compare(tmp_path, IMAGES, NBD, steps)


def test_nobody_is_let_at_the_target_of_a_mirror(tmp_path: Path) -> None:
    steps: list[Step] = [
        add("base"),
        add("free"),
        add("other", backing=None),
        run("blockdev-mirror", device="base", target="free", sync="full", job_id="m"),
        Event("BLOCK_JOB_READY"),
        export("free"),
        export("free", writable=True),
        run("block_resize", node_name="free", size=2 << 20),
        run("block_resize", node_name="base", size=2 << 20),
        run("blockdev-mirror", device="free", target="other", sync="full", job_id="n"),
        run("block-commit", device="base", job_id="n"),
        run("blockdev-snapshot-delete-internal-sync", device="base", name="s"),
        run("job-complete", id="m"),
        Event("BLOCK_JOB_COMPLETED"),
        Event("JOB_STATUS_CHANGE", "null"),
        export("free"),
        pulled("read -P 1 0 256k"),
    ]
    compare(tmp_path, IMAGES, NBD, steps)


def test_what_an_overlay_stands_on_is_not_changed_under_it(tmp_path: Path) -> None:
    steps: list[Step] = [
        add("base"),
        add("top", backing="base"),
        add("free"),
        add("other"),
        run("block_resize", node_name="base", size=512 << 10),
        run("block_resize", device="base", size=512 << 10),
        run("blockdev-mirror", device="free", target="base", sync="none", job_id="j"),
        run("blockdev-mirror", device="free", target="base", sync="full", job_id="j", copy_mode="write-blocking"),
        run("blockdev-mirror", device="base", target="free", sync="full", job_id="j"),
        run("blockdev-mirror", device="free", target="free", sync="full", job_id="j"),
        run("block-commit", device="base", job_id="j"),
        run("block-commit", device="top", base_node="nosuch", job_id="j"),
        run("block-commit", device="top", top_node="nosuch", job_id="j"),
        run("blockdev-snapshot", node="base", overlay="free"),
        run("blockdev-snapshot", node="top", overlay="base"),
        run("blockdev-snapshot", node="top", overlay="top"),
        run("blockdev-snapshot", node="other", overlay="other"),
        run("query-jobs"),
    ]
    compare(tmp_path, IMAGES, NBD, steps)


def test_a_transaction_that_fails_leaves_no_job(tmp_path: Path) -> None:
    backup = {"device": "base", "target": "free", "sync": "full", "job-id": "j", "auto-dismiss": False}
    bitmap = {"node": "base", "name": "nosuch"}
    steps: list[Step] = [
        add("base"),
        add("free"),
        run(
            "transaction",
            actions=[
                {"type": "blockdev-backup", "data": backup},
                {"type": "block-dirty-bitmap-clear", "data": bitmap},
            ],
        ),
        Event("JOB_STATUS_CHANGE", "null"),
        run("query-jobs"),
        ("blockdev-backup", backup),
        Event("BLOCK_JOB_COMPLETED"),
        Event("JOB_STATUS_CHANGE", "concluded"),
        run("job-dismiss", id="j"),
        Event("JOB_STATUS_CHANGE", "null"),
    ]
    compare(tmp_path, IMAGES, NBD, steps)


def test_an_overlay_goes_with_the_last_export_of_its_disk(tmp_path: Path) -> None:
    steps: list[Step] = [
        add("base"),
        export("base"),
        run("blockdev-snapshot-sync", node_name="base", snapshot_file="x.qcow2", snapshot_node_name="x"),
        run("block-export-del", id="e-base"),
        Event("BLOCK_EXPORT_DELETED"),
        run("query-named-block-nodes", flat=True),
        run("blockdev-snapshot-sync", node_name="base", snapshot_file="y.qcow2", snapshot_node_name="x"),
        run("blockdev-del", node_name="base"),
        run("query-named-block-nodes", flat=True),
    ]
    compare(tmp_path, IMAGES, NBD, steps)


def test_the_format_of_another_backing_file_name_is_that_of_the_file(tmp_path: Path) -> None:
    """QEMU records the overlay's own format, and cannot open the overlay any more."""
    real_qemu_img("create", "-q", "-f", "raw", tmp_path / "below.raw", "1M")
    real_qemu_img("create", "-q", "-f", "qcow2", "-b", "below.raw", "-F", "raw", tmp_path / "top.qcow2")
    with daemon(tmp_path) as running:
        monitor = running.monitor
        file = {"driver": "file", "filename": "top.qcow2"}
        monitor.command("blockdev-add", driver="qcow2", node_name="top", file=file)
        monitor.command("change-backing-file", device="top", image_node_name="top", backing_file="./below.raw")
    assert "backing file format: raw" in real_qemu_img("info", tmp_path / "top.qcow2")
    real_qemu_img("compare", tmp_path / "top.qcow2", tmp_path / "below.raw")


def test_a_bitmap_of_a_disk_that_is_only_read_is_lost_with_a_word(tmp_path: Path) -> None:
    steps: list[Step] = [
        add("base", read_only=True),
        run("block-dirty-bitmap-add", node="base", name="x", persistent=True),
        run("blockdev-del", node_name="base"),
        add("base", read_only=True),
        run("query-named-block-nodes", flat=True),
    ]
    compare(tmp_path, IMAGES, NBD, steps)
    assert real_qemu_img("check", tmp_path / "ours" / "base.qcow2").startswith("No errors")
