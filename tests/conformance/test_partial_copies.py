"""Jobs that copy a part of a disk into an image of its own: put on one that has the rest, that is the disk."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from support.daemon import OURS, THEIRS, daemon
from support.image import assert_clean, real_qemu_img

pytestmark = [pytest.mark.requires_tool(tool) for tool in ("qemu-img", "qemu-io", "qemu-storage-daemon")]

SIZE = 6 << 20
JOBS: dict[str, dict[str, Any]] = {
    "blockdev-backup of the top": {"sync": "top"},
    "blockdev-backup of the top, compressed": {"sync": "top", "compress": True},
    "blockdev-backup by a bitmap": {"sync": "incremental", "bitmap": "since"},
    "blockdev-backup by a bitmap, compressed": {"sync": "incremental", "bitmap": "since", "compress": True},
    "blockdev-mirror of the top": {"sync": "top"},
}
CLUSTERS = (("4k", "64k"), ("64k", "4k"), ("512", "2M"))  # of the disk, and of the target


def _nodes(*paths: Path) -> list[str]:
    nodes = (f"driver=qcow2,node-name={path.name},file.driver=file,file.filename={path}" for path in paths)
    return [word for node in nodes for word in ("--blockdev", node)]


def _change(path: Path, seed: int) -> None:
    """Writes and zeroes of any size."""
    rng, words = random.Random(seed), []
    for number in range(24):
        length = rng.choice([512, 4096, 20480, 65536, 300032])
        offset = rng.randrange(0, SIZE - length) // 512 * 512
        how = rng.choice([f"-P {number + 1}", f"-P {number + 1}", "-z", "-z -u"])
        words += ["-c", f"write -q {how} {offset} {length}"]
    subprocess.run(["qemu-io", "-f", "qcow2", *words, str(path)], check=True, capture_output=True, timeout=60)


# QEMU's mirror loses what lies below in clusters of the target that are larger than its units.
@pytest.mark.parametrize(
    ("job", "tool"),
    [*((job, OURS) for job in JOBS), *((job, THEIRS) for job in JOBS if "mirror" not in job)],
    ids=[*(f"{job}-ours" for job in JOBS), *(f"{job}-theirs" for job in JOBS if "mirror" not in job)],
)
def test_a_part_on_the_rest_is_the_disk(tmp_path: Path, job: str, tool: Sequence[str]) -> None:
    rest, disk, target = (tmp_path / name for name in ("rest", "disk", "target"))
    rest.write_bytes(bytes(range(256)) * (SIZE // 256))
    for seed, (its, other) in enumerate(CLUSTERS):
        options: list[str | Path] = ["-o", f"cluster_size={its}", disk]
        if "bitmap" in JOBS[job]:
            real_qemu_img("convert", "-f", "raw", "-O", "qcow2", *options[:2], rest, disk)
            real_qemu_img("bitmap", "--add", "-g", "64k", disk, "since")
        else:
            real_qemu_img("create", "-q", "-f", "qcow2", "-b", rest, "-F", "raw", *options)
        _change(disk, seed)
        real_qemu_img("create", "-q", "-f", "qcow2", "-o", f"cluster_size={other}", target, str(SIZE))
        with daemon(tmp_path, *_nodes(disk, target), tool=tool) as running:
            command, monitor = job.split()[0], running.monitor
            monitor.command(command, job_id="j", device="disk", target="target", **JOBS[job])
            if command == "blockdev-mirror":
                monitor.wait_for("BLOCK_JOB_READY")
                monitor.command("block-job-cancel", device="j")
            assert "error" not in monitor.wait_for("BLOCK_JOB_COMPLETED")["data"]
        assert_clean(target, "qcow2")
        real_qemu_img("rebase", "-u", "-b", rest, "-F", "raw", target)
        real_qemu_img("compare", target, disk)


@pytest.mark.parametrize("length", [1000, 3 << 20, (3 << 20) + 5000, SIZE])
def test_what_the_top_lacks_is_left_as_it_was(tmp_path: Path, length: int) -> None:
    rest, disk, new = (tmp_path / name for name in ("rest", "disk", "new"))
    rest.write_bytes(b"r" * length)
    real_qemu_img("create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", "-b", rest, "-F", "raw", disk, str(SIZE))
    _change(disk, length)
    new.write_bytes(b"n" * SIZE)
    found = []
    for target, tool in ((tmp_path / "ours", OURS), (tmp_path / "theirs", THEIRS)):
        real_qemu_img("convert", "-f", "raw", "-O", "qcow2", new, target)
        with daemon(tmp_path, *_nodes(disk, target), tool=tool) as running:
            running.monitor.command("blockdev-backup", job_id="j", device="disk", target=target.name, sync="top")
            assert "error" not in running.monitor.wait_for("BLOCK_JOB_COMPLETED")["data"]
        real_qemu_img("convert", "-f", "qcow2", "-O", "raw", target, tmp_path / "read")
        found.append((tmp_path / "read").read_bytes())
    assert found[0] == found[1]
