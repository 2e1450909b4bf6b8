from __future__ import annotations

import random
from pathlib import Path

import pytest

from hostel.block import graph
from hostel.block.extent import Status
from hostel.errors import BlockError
from hostel.img import copy
from hostel.img.commit import commit, find_base
from hostel.units import MiB
from support.images import content, make, write
from support.memory import Entry, Kind, LoggedDriver
from support.qcow2 import attach, check_file, create

SIZE = 4 * MiB


@pytest.fixture
def chain(tmp_path: Path) -> tuple[Path, Path, Path]:
    base, middle, top = tmp_path / "base.qcow2", tmp_path / "middle.qcow2", tmp_path / "top.qcow2"
    make(base, 2 * MiB)
    write(base, "qcow2", {0: random.Random(1).randbytes(2 * MiB)})
    make(middle, 3 * MiB, backing=base, backing_format="qcow2")
    write(middle, "qcow2", {65536: b"m" * 200000, MiB: 65536, 3 * MiB - 512: b"e" * 512})
    make(top, SIZE, backing=middle, backing_format="qcow2")
    write(top, "qcow2", {100: b"t" * 70000, SIZE - MiB: b"T" * MiB})
    return base, middle, top


def committed(top: Path, depth: int, *, empty: bool = True) -> None:
    with graph.open(str(top), "qcow2", read_only=False, writable_backing=depth) as node:
        commit(node, depth, empty=empty)


def test_backing_image_gets_the_data_and_the_size_and_the_overlay_is_empty(chain: tuple[Path, Path, Path]) -> None:
    base, middle, top = chain
    expected = content(top, "qcow2")
    untouched = base.read_bytes()
    committed(top, 1)
    assert content(middle, "qcow2") == content(top, "qcow2") == expected
    assert base.read_bytes() == untouched
    with graph.open(str(top), "qcow2", no_backing=True) as node:
        assert not any(extent.status & Status.ALLOCATED for extent in node.extents())
    assert top.stat().st_size < MiB
    for path in (middle, top):
        assert check_file(path)[1] == []


def test_base_further_down_gets_what_all_above_it_hold(chain: tuple[Path, Path, Path]) -> None:
    base, _, top = chain
    expected = content(top, "qcow2")
    committed(top, 2, empty=False)
    assert content(base, "qcow2") == content(top, "qcow2") == expected
    assert check_file(base)[1] == []


def test_raw_base_is_written_and_grown(tmp_path: Path) -> None:
    base, top = tmp_path / "base.raw", tmp_path / "top.qcow2"
    base.write_bytes(b"b" * MiB)
    make(top, 2 * MiB, backing=base)
    write(top, "qcow2", {512: b"t" * 512, 65536: 65536, 2 * MiB - 10: b"e" * 10})
    expected = content(top, "qcow2")
    committed(top, 1)
    assert base.read_bytes() == expected == content(top, "qcow2")


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
@pytest.mark.parametrize("seed", range(8))
def test_many_windows_are_committed_by_threads_whatever_clusters_they_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, seed: int
) -> None:
    monkeypatch.setattr(copy, "WINDOW", 4096)
    monkeypatch.setattr(copy, "worker_count", lambda wanted: 4)
    rng = random.Random(f"threads {seed}")
    base, top = tmp_path / "base", tmp_path / "top.qcow2"
    if kind == "raw":
        base.write_bytes(rng.randbytes(MiB))
    else:
        make(base, MiB, options=f"cluster_size={rng.choice((4096, 65536))}")
        write(base, "qcow2", {rng.randrange(MiB - 70000): rng.randbytes(70000) for _ in range(4)})
    make(top, SIZE, backing=base, backing_format=kind, options="cluster_size=512")
    write(top, "qcow2", {rng.randrange(SIZE // 512) * 512: rng.randbytes(rng.randrange(1, 512)) for _ in range(200)})
    write(top, "qcow2", {rng.randrange(SIZE - 70000): rng.randbytes(70000) for _ in range(8)})
    expected = content(top, "qcow2")
    committed(top, 1)
    assert content(base, kind) == content(top, "qcow2") == expected
    if kind == "qcow2":
        assert check_file(base)[1] == []


def test_snapshots_keep_what_the_overlay_forgets(chain: tuple[Path, Path, Path]) -> None:
    _, _, top = chain
    with graph.open(str(top), "qcow2", read_only=False) as node:
        node.driver.snapshot_create("kept", date=(1, 0))  # type: ignore[attr-defined]
    with graph.open(str(top), "qcow2", no_backing=True) as node:
        held = [extent.offset for extent in node.extents() if extent.status & Status.ALLOCATED]
    committed(top, 1)
    with graph.open(str(top), "qcow2", read_only=False) as node:
        node.driver.snapshot_apply("kept")  # type: ignore[attr-defined]
    with graph.open(str(top), "qcow2", no_backing=True) as node:
        assert [extent.offset for extent in node.extents() if extent.status & Status.ALLOCATED] == held
    assert check_file(top)[1] == []


def test_base_is_found_by_any_of_its_names(chain: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    base, middle, top = chain
    with graph.open(str(top), "qcow2") as node:
        assert find_base(node, None) == find_base(node, str(middle)) == find_base(node, "middle.qcow2") == 1
        assert find_base(node, str(base)) == find_base(node, "./base.qcow2") == 2
        for name in ("other.qcow2", str(top)):
            with pytest.raises(BlockError, match=f"^Did not find '{name}' in the backing chain of '{top}'$"):
                find_base(node, name)
    with graph.open(str(base), "qcow2") as node, pytest.raises(BlockError, match="does not have a backing file"):
        find_base(node, None)


class Shared(LoggedDriver):
    """Logs into a list that several share, with its own name."""

    def __init__(self, data: bytes, log: list[tuple[str, Entry]], label: str) -> None:
        super().__init__(data)
        self._label = label
        self._shared = log

    def flush(self) -> None:
        super().flush()
        self._drain()

    def pwrite(self, offset: int, data: memoryview) -> None:
        super().pwrite(offset, data)
        self._drain()

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
        super().write_zeroes(offset, length, unmap=unmap)
        self._drain()

    def _drain(self) -> None:
        self._shared += [(self._label, entry) for entry in self.log]
        self.log.clear()


def test_base_is_synced_before_the_overlay_forgets_anything() -> None:
    log: list[tuple[str, Entry]] = []
    top_bytes = create(SIZE, {"backing_file": "base", "backing_fmt": "qcow2"})
    with attach(driver := LoggedDriver(top_bytes)) as node:
        node.pwrite(0, b"data" * 100000)
    base = attach(Shared(create(SIZE), log, "base"))
    top = attach(Shared(bytes(driver.data), log, "top"))
    top.driver.children["backing"] = base
    commit(top, 1)
    top.close()
    last_base_write = max(i for i, (who, entry) in enumerate(log) if who == "base" and entry.kind is Kind.WRITE)
    synced = [
        i for i, (who, entry) in enumerate(log) if who == "base" and entry.kind is Kind.FLUSH and i > last_base_write
    ]
    first_top = min(i for i, (who, entry) in enumerate(log) if who == "top" and entry.kind is not Kind.FLUSH)
    assert last_base_write < synced[0] < first_top
