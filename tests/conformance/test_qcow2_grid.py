"""qcow2 images over a grid of options beside real ``qemu-img`` and ``qemu-io``: each reads what the other writes."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from hostel.block import graph
from hostel.block.extent import Status
from hostel.block.options import Value
from hostel.block.powers import SnapshotInfo
from support import qcow2
from support.guest_io import noise
from support.memory import MemoryDriver
from support.qcow2_workload import BACKING_NAMES, Workload, random_options
from support.tally import tried

__all__ = ["tried"]
pytestmark = [pytest.mark.requires_tool("qemu-img"), pytest.mark.requires_tool("qemu-io")]
SOAK = int(os.environ.get("HOSTEL_SOAK", "1"))
MIB = 1 << 20


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout


def qemu_options(options: dict[str, Value]) -> str:
    shown = {True: "on", False: "off"}
    return ",".join(
        f"{name}={shown[value] if isinstance(value, bool) else value}"
        for name, value in options.items()
        if not name.startswith("backing")
    )


# ---- what a fresh image is


LAYOUTS: list[dict[str, Value]] = [
    {},
    {"compat": "0.10"},
    {"lazy_refcounts": True},
    {"compression_type": "zstd"},
    {"extended_l2": True},
    {"refcount_bits": 1},
    {"refcount_bits": 64},
    {"cluster_size": 512},
    {"cluster_size": 1024, "compat": "0.10"},
    {"cluster_size": 4096, "refcount_bits": 8},
    {"cluster_size": 8192, "lazy_refcounts": True},
    {"cluster_size": 16384, "extended_l2": True, "refcount_bits": 32},
    {"cluster_size": 2 * MIB},
    {"preallocation": "metadata"},
    {"cluster_size": 4096, "preallocation": "metadata"},
]


@pytest.mark.parametrize("size", [0, 512, 5 * MIB + 512, 64 << 30])
@pytest.mark.parametrize("options", LAYOUTS, ids=lambda options: qemu_options(options) or "default")
def test_a_fresh_image_has_the_bytes_that_qemu_img_writes(tmp_path: Path, options: dict[str, Value], size: int) -> None:
    if "preallocation" in options or int(options.get("cluster_size", 65536)) <= 1024:
        size = min(size, 4 * MIB)
    path = tmp_path / "theirs.qcow2"
    arguments = ["-o", qemu_options(options)] if options else []
    run("qemu-img", "create", "-q", "-f", "qcow2", *arguments, str(path), str(size))
    assert qcow2.create(size, options) == path.read_bytes()


# ---- what we write

GRID = [
    {"cluster_size": cluster, "refcount_bits": bits, "compression_type": kind, "lazy_refcounts": lazy}
    for (cluster, bits), (kind, lazy) in zip(
        itertools.product((512, 4096, 65536, 2 * MIB), (1, 2, 4, 8, 16, 32, 64)),
        itertools.cycle((("zlib", False), ("zstd", False), ("zlib", True), ("zstd", False), ("zstd", True))),
        strict=False,
    )
]
GRID += [{"cluster_size": cluster, "compat": "0.10"} for cluster in (512, 65536, 2 * MIB)]
GRID += [{"cluster_size": cluster, "extended_l2": True} for cluster in (16384, 65536, 2 * MIB)]


def judged(workload: Workload, folder: Path) -> None:
    """Real ``qemu-img`` finds the image clean and equal to what was written; so are its snapshots."""
    image, raw = folder / "disk.qcow2", folder / "expected.raw"
    image.write_bytes(workload.driver.data)
    if workload.original_backing is not None:
        for name in BACKING_NAMES:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(workload.original_backing)
    run("qemu-img", "check", "-q", "-f", "qcow2", str(image))
    raw.write_bytes(workload.content)
    run("qemu-img", "compare", "-q", "-f", "qcow2", "-F", "raw", str(image), str(raw))
    for id, content in workload.snapshots.items():
        raw.write_bytes(content)
        copy = folder / "snapshot.raw"
        run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", "-l", f"snapshot.id={id}", str(image), str(copy))
        # QEMU shows a snapshot with the size that the image has now.
        shown = copy.read_bytes()[: len(content)]
        assert shown == content[: len(shown)]


@pytest.mark.parametrize("options", GRID, ids=lambda options: qemu_options(options))
def test_what_we_write_is_clean_and_equal_for_qemu_img(tmp_path: Path, options: dict[str, Value]) -> None:
    rng = random.Random(f"grid {options}")
    workload = Workload(rng, options=options, size=rng.choice((MIB, 3 * MIB + 512)))
    for _ in range(12):
        workload.step()
    workload.node.close()
    judged(workload, tmp_path)


@pytest.mark.parametrize("mode", ["metadata", "falloc", "full"])
@pytest.mark.parametrize("cluster_size", [512, 65536])
def test_what_we_preallocate_is_clean_and_reads_as_zeroes(tmp_path: Path, cluster_size: int, mode: str) -> None:
    path = tmp_path / "disk.qcow2"
    qcow2.create_file(path, 3 * MIB + 512, {"cluster_size": cluster_size, "preallocation": mode})
    run("qemu-img", "check", "-q", "-f", "qcow2", str(path))
    run("qemu-io", "-t", "unsafe", "-f", "qcow2", "-c", f"read -P 0 0 {3 * MIB + 512}", str(path))
    blocks = path.stat().st_blocks * 512
    assert (blocks >= 3 * MIB) == (mode != "metadata")


# ---- what they write


class Crosswise(Workload):
    """One image that we and QEMU write in turn; ours are the operations of :class:`Workload`."""

    def __init__(self, folder: Path, rng: random.Random, *, compressed: bool = False) -> None:
        self.path = folder / "disk.qcow2"
        options = random_options(rng, (4096, 65536) if compressed else (512, 4096, 65536))
        if compressed:
            # The shape that broke others: converted with compression, then grown, written and snapshotted.
            options["preallocation"] = "off"
        super().__init__(rng, options=options, size=30 * int(options["cluster_size"]) if compressed else None)
        self.node.close()
        for name in BACKING_NAMES if self.backing is not None else ():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(self.backing or b"")
        self.path.write_bytes(self.driver.data)
        if compressed:
            self.content = bytearray(noise(rng, len(self.content)))
            raw = folder / "base.raw"
            raw.write_bytes(self.content)
            self.path.unlink()
            self.img("convert", "-c", "-f", "raw", "-O", "qcow2", "-o", qemu_options(self.options), str(raw))

    def img(self, command: str, *arguments: str, after: tuple[str, ...] = ()) -> None:
        """Run a command of qemu-img on the image."""
        run("qemu-img", command, *arguments, str(self.path), *after)

    def our_turn(self) -> None:
        """Read what QEMU left, and do some operations of ours."""
        self.driver = MemoryDriver(self.path.read_bytes())
        self.node = self.open()
        self.verify()
        self.check()
        for _ in range(self.rng.randrange(1, 12)):
            self.step()
        self.node.close()
        self.path.write_bytes(self.driver.data)

    def their_turn(self) -> None:
        """Check what we left, and let the real tools do some operations."""
        self.img("check", "-q", "-f", "qcow2")
        with graph.open(str(self.path), "qcow2", no_backing=True) as node:
            nothing = [each for each in node.extents() if not each.status & Status.ALLOCATED]
        size = self.cluster_size
        self._unallocated = {at for each in nothing for at in range(-(-each.offset // size), each.end // size)}
        commands = [self._command() for _ in range(self.rng.randrange(1, 12))] if self.content else []
        # QEMU 7.2 packs a compressed cluster behind one whose host cluster was freed since, and may be anything by now.
        commands.sort(key=lambda command: not command.startswith("write -c"))
        if commands:
            words = [word for command in commands for word in ("-c", command)]
            said = run("qemu-io", "-t", "unsafe", "-d", "unmap", "-f", "qcow2", *words, str(self.path))
            assert "failed" not in said and "rror" not in said, said
        wide = int(self.options.get("refcount_bits", 16)) > 4
        resizable = self.version > 2 or not self.snapshots
        if wide and len(self.snapshots) < 6 and self.rng.random() < 0.3:
            self._their_snapshot()
        elif self.snapshots and self.rng.random() < 0.3:
            snapshot = self.rng.choice(self._listed())
            self.img("snapshot", "-d", snapshot.name)
            del self.snapshots[snapshot.id]
        elif wide and self.snapshots and resizable and not self.bitmaps and self.rng.random() < 0.3:
            id = self.rng.choice(list(self.snapshots))
            self.img("snapshot", "-a", id)
            self.content = bytearray(self.snapshots[id])
        elif resizable and (self.version > 2 or self.backing is None) and self.rng.random() < 0.5:
            # QEMU cannot hide what a longer backing file has from a version 2 image that grows.
            size = max(512, len(self.content) + self.rng.randrange(-20, 40) * 512)
            if size < len(self.content):
                # QEMU leaves old data behind an end inside a cluster, and shows it when it grows the image again.
                size += -size % self.cluster_size
            if size > len(self.content) and self.options.get("extended_l2") and self._ends_compressed():
                return  # QEMU zeroes no part of a compressed cluster, which it would have to
            self.img("resize", "-q", "-f", "qcow2", "--shrink", after=(str(size),))
            self.content = bytearray(self.content[:size].ljust(size, b"\0"))
            self.bitmaps = {name: before[:size].ljust(size, b"\0") for name, before in self.bitmaps.items()}

    def _ends_compressed(self) -> bool:
        with graph.open(str(self.path), "qcow2", no_backing=True) as node:
            return any(each.end == node.length and each.status & Status.COMPRESSED for each in node.extents())

    def _their_snapshot(self) -> None:
        self.img("snapshot", "-c", f"theirs {self.rng.getrandbits(32)}")
        (made,) = {each.id for each in self._listed()} - self.snapshots.keys()
        self.snapshots[made] = bytes(self.content)

    def _listed(self) -> list[SnapshotInfo]:
        with graph.open(str(self.path), "qcow2", no_backing=True) as node:
            return list(qcow2.driver_of(node).snapshots())

    def _command(self) -> str:
        """A random command of qemu-io; the content is what it leaves."""
        size, cluster = len(self.content), self.cluster_size
        offset, length = self.place()
        pattern = self.rng.randrange(1, 256)
        kind = self.rng.choice(("write", "write", "write", "write -z", "write -z -u", "discard", "write -c"))
        if kind.startswith("write -z"):
            pattern = 0
        elif kind == "write":
            kind = f"write -P {pattern}"
        elif kind == "write -c":
            # QEMU compresses only where nothing is allocated, not even a place for subclusters.
            if not self._unallocated or self.options.get("extended_l2"):
                return "flush"
            offset, length = self.rng.choice(sorted(self._unallocated)) * cluster, cluster
            kind = f"write -c -P {pattern}"
        else:
            offset = offset // cluster * cluster
            length = min(cluster, size - offset)
            pattern = 0
        self._unallocated.difference_update(range(offset // cluster, -(-(offset + length) // cluster)))
        if kind != "discard" or self.version > 2 or self.backing is None:
            self.content[offset : offset + length] = bytes([pattern]) * length
        return f"{kind} {offset} {length}"


@pytest.mark.parametrize("seed", range(12 * SOAK))
@pytest.mark.parametrize("compressed", [False, True])
def test_we_and_qemu_write_one_image_in_turn(tmp_path: Path, seed: int, compressed: bool, tried: Counter[str]) -> None:
    rng = random.Random(f"crosswise {compressed} {seed}")
    crosswise = Crosswise(tmp_path, rng, compressed=compressed)
    for _ in range(6):
        crosswise.their_turn()
        crosswise.our_turn()
        tried["turns of ours and QEMU's on one image"] += 2
    judged(crosswise, tmp_path)


@pytest.mark.parametrize("options", GRID[::3], ids=lambda options: qemu_options(options))
def test_what_qemu_preallocates_we_read_as_zeroes(tmp_path: Path, options: dict[str, Value]) -> None:
    for mode in ("metadata", "falloc", "full"):
        path = tmp_path / f"{mode}.qcow2"
        wanted = qemu_options({**options, "preallocation": mode})
        run("qemu-img", "create", "-q", "-f", "qcow2", "-o", wanted, str(path), str(MIB + 512))
        with graph.open(str(path), "qcow2") as node:
            assert node.read(0, node.length) == bytes(MIB + 512)
        result, lines = qcow2.check_file(path)
        assert (lines, *qcow2.faults(result)) == ([], 0, 0)
        with graph.open(str(path), "qcow2", read_only=False) as node:
            node.pwrite(1000, b"written")
            node.write_zeroes(512, 70000, unmap=True)
            node.discard(MIB // 2, MIB // 4)
        run("qemu-img", "check", "-q", "-f", "qcow2", str(path))
