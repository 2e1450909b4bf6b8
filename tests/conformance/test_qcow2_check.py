"""Our check and repair beside real ``qemu-img check`` on the same image."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from hostel.block import graph
from hostel.block.powers import CheckResult, Repair
from hostel.cli.main import main
from support.qcow2 import check_file, driver_of

pytestmark = [pytest.mark.requires_tool("qemu-img"), pytest.mark.requires_tool("qemu-io")]
NAMES = {name.replace("_", "-"): name for name in CheckResult.__slots__}


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def qemu_check(path: Path) -> tuple[dict[str, int], list[str], int]:
    done = subprocess.run(
        ["qemu-img", "check", "-f", "qcow2", "--output=json", str(path)], capture_output=True, text=True, timeout=60
    )
    return json.loads(done.stdout), done.stderr.splitlines(), done.returncode


def make(path: Path, cluster_size: int, refcount_bits: int) -> None:
    options = f"cluster_size={cluster_size},refcount_bits={refcount_bits}"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, str(path), "40M")
    io = ("qemu-io", "-t", "unsafe", "-f", "qcow2", str(path), "-c")
    run(*io, "write -P 1 0 2M", "-c", "write -P 2 4M 100k", "-c", "write -z 8M 1M")
    if cluster_size > 512:
        run(*io, f"write -c -P 3 20M {cluster_size}", "-c", f"write -c -P 4 22M {cluster_size}")
    if refcount_bits > 2:
        run("qemu-img", "snapshot", "-c", "a", str(path))
        run(*io, "write -P 5 1M 1M")
        run("qemu-img", "snapshot", "-c", "b", str(path))
        run("qemu-img", "bitmap", "--add", str(path), "bitmap")


def assert_same(path: Path) -> None:
    theirs, their_lines, _ = qemu_check(path)
    ours, lines = check_file(path)
    assert {key: getattr(ours, name) for key, name in NAMES.items()} == {key: theirs.get(key, 0) for key in NAMES}
    # A table that several snapshots share is looked at once by us, and once for each of them by QEMU.
    assert list(dict.fromkeys(lines)) == list(dict.fromkeys(their_lines))


@pytest.mark.parametrize("refcount_bits", [1, 2, 8, 16, 32, 64])
@pytest.mark.parametrize("cluster_size", [512, 4096, 65536, 2097152])
def test_a_sound_image_checks_as_with_qemu_img(tmp_path: Path, cluster_size: int, refcount_bits: int) -> None:
    path = tmp_path / "disk.qcow2"
    make(path, cluster_size, refcount_bits)
    assert_same(path)


def poke(path: Path, place: int, value: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        file.write(value.to_bytes(8, "big"))


def entry(path: Path, place: int) -> int:
    return int.from_bytes(path.read_bytes()[place : place + 8], "big")


def reftable(path: Path) -> int:
    return entry(path, 48)


def l1(path: Path) -> int:
    return entry(path, 40)


def l2(path: Path) -> int:
    return entry(path, l1(path)) & 0xFFFFFFFFFFFE00


DAMAGE: dict[str, Callable[[Path], None]] = {
    "no refcount block": lambda path: poke(path, reftable(path), 0),
    "reserved bits in the refcount table": lambda path: poke(path, reftable(path), entry(path, reftable(path)) | 1),
    "a refcount block that is the header": lambda path: poke(path, reftable(path) + 8, l1(path)),
    "refcounts too low and too high": lambda path: poke(path, entry(path, reftable(path)), 0x0002000100010005),
    "an L2 table lost": lambda path: poke(path, l1(path), 0),
    "COPIED wrong in L1": lambda path: poke(path, l1(path), entry(path, l1(path)) ^ 1 << 63),
    "COPIED wrong in L2": lambda path: poke(path, l2(path), entry(path, l2(path)) ^ 1 << 63),
    "two clusters at one place": lambda path: poke(path, l2(path), entry(path, l2(path) + 8)),
    "a zero cluster preallocated nowhere": lambda path: poke(path, l2(path), 0x50201),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("cluster_size", [4096, 65536])
def test_damage_is_reported_as_by_qemu_img_and_repaired(tmp_path: Path, damage: str, cluster_size: int) -> None:
    path = tmp_path / "disk.qcow2"
    make(path, cluster_size, 16)
    DAMAGE[damage](path)
    assert_same(path)
    found, _ = check_file(path)
    assert found.corruptions or found.leaks
    repaired, lines = check_file(path, Repair.ALL)
    assert (repaired.corruptions, repaired.leaks, repaired.check_errors) == (0, 0, 0), lines
    assert repaired.corruptions_fixed or repaired.leaks_fixed
    assert_same(path)
    with graph.open(str(path), "qcow2") as image:
        assert [each.name for each in driver_of(image).snapshots()] == ["a", "b"]
    assert qemu_check(path)[2] == 0


def test_repairing_leaks_alone_leaves_errors(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    make(path, 65536, 16)
    with path.open("r+b") as file:
        file.truncate(3000 << 16)
        file.seek(entry(path, reftable(path)) + 4000)
        file.write((1).to_bytes(2, "big"))
        file.seek(entry(path, reftable(path)) + 2 * (l2(path) >> 16))
        file.write((1).to_bytes(2, "big"))
    before, _ = check_file(path)
    assert before.leaks and before.corruptions
    result, _ = check_file(path, Repair.LEAKS)
    assert result.leaks == 0 and result.leaks_fixed == before.leaks
    assert result.corruptions == before.corruptions
    assert_same(path)


@pytest.mark.parametrize("seed", range(10))
def test_random_damage_never_loses_a_snapshot_nor_raises_anything_but_oserror(tmp_path: Path, seed: int) -> None:
    path, copy = tmp_path / "disk.qcow2", tmp_path / "damaged.qcow2"
    chance = random.Random(seed)
    make(path, 4096, 16)
    for _ in range(5):
        shutil.copy(path, copy)
        for _ in range(chance.choice((1, 2, 4))):
            table = chance.choice((reftable, l1, l2, lambda path: entry(path, reftable(path)) & ~511))
            value = chance.choice((0, 0x10000, chance.getrandbits(64), 0x3FFF0000, 1 << 63 | 0x50000))
            poke(copy, table(path) + 8 * chance.randrange(64), value)
        try:
            check_file(copy)
            result, _ = check_file(copy, Repair.ALL)
        except OSError:
            continue
        assert copy.read_bytes()[60:64] == (2).to_bytes(4, "big")
        after, _ = check_file(copy)
        assert after.leaks <= result.leaks and after.corruptions <= result.corruptions


EXTERNAL_DAMAGE = {
    "a cluster of another": {0: 1 << 63 | 0x30000},
    "reserved bits": {1: 1 << 63 | 1 << 60 | 0x10000},
    "compressed": {1: 1 << 62 | 0x50000},
    "compressed and copied": {1: 3 << 62 | 0x50000},
    "not aligned": {1: 1 << 63 | 0x10200},
}


@pytest.mark.parametrize("damage", EXTERNAL_DAMAGE)
def test_entries_that_no_external_data_file_has_are_told_as_by_qemu(
    tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("disk.qcow2")
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file=data", str(path), "1M")
    run("qemu-io", "-f", "qcow2", str(path), "-c", "write -P 1 0 256k")
    for index, value in EXTERNAL_DAMAGE[damage].items():
        poke(path, l2(path) + 8 * index, value)
    assert_same(path)
    reads = [main(["qemu-io", "-r", "-f", "qcow2", "-c", "read 0 128k", str(path)])]
    told = capfd.readouterr().err
    reads.append(
        subprocess.run(["qemu-io", "-r", "-f", "qcow2", "-c", "read 0 128k", str(path)], timeout=60).returncode
    )
    assert reads == [1, 1] or damage == "reserved bits"
    if damage == "a cluster of another":
        assert told == capfd.readouterr().err
        assert "External data file host cluster offset 0x30000 does not match" in told
        before = Path("data").read_bytes()
        assert main(["qemu-io", "-f", "qcow2", "-c", "write 0 4k", str(path)]) == 1
        assert Path("data").read_bytes() == before


@pytest.mark.parametrize("data_file", ["", ",data_file=data"])
@pytest.mark.parametrize(("entry_value", "bitmap"), [(0, 1), (0, 1 << 32 | 1), (None, 1 << 32 | 1)])
def test_subclusters_that_contradict_their_cluster_are_told_as_by_qemu(
    tmp_path: Path, data_file: str, entry_value: int | None, bitmap: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("disk.qcow2")
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", f"extended_l2=on{data_file}", str(path), "1M")
    run("qemu-io", "-f", "qcow2", str(path), "-c", "write -P 1 0 64k")
    if entry_value is not None:
        poke(path, l2(path), entry_value)
    poke(path, l2(path) + 8, bitmap)
    assert_same(path)
    assert check_file(path)[0].corruptions


def test_what_is_wrong_in_a_table_is_told_in_its_order(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", str(path), "1M")
    run("qemu-io", "-f", "qcow2", str(path), "-c", "write -P 1 0 64k")
    far = 1 << 40
    for index, entry in enumerate((far, far + 65536, 2 * far | 2, 3 * far, 0, 4 * far | 1 << 9, 5 * far, 6 * far | 4)):
        poke(path, l2(path) + 8 * index, entry)
    assert_same(path)
    assert len(check_file(path)[1]) > 8
