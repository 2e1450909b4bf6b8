"""Random backing chains through convert, compare, rebase and commit, beside a bytearray that knows every byte."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hostel.block import graph
from hostel.block.node import BlockNode
from hostel.block.options import given_options
from hostel.img import convert
from hostel.img.commit import commit
from hostel.img.compare import Difference, compare
from hostel.img.copy import CopySettings
from hostel.img.create import Plan
from hostel.img.rebase import change_backing, find_in_chain, rebase
from support.images import UNSAFE, apply, below, content, make, scatter, write
from support.qcow2 import check_file

SOAK = int(os.environ.get("HOSTEL_SOAK", "1"))
EXAMPLES = settings(max_examples=25 * SOAK, deadline=None, suppress_health_check=[HealthCheck.too_slow])

sizes = st.integers(1, 1200).map(lambda sectors: sectors * 512)
layer_options = st.sampled_from(
    ["cluster_size=512", "cluster_size=4k", "cluster_size=64k", "cluster_size=64k,compat=0.10", "extended_l2=on"]
)


class Chain:
    """Images that stand on one another in a folder.

    Attributes:
        paths: from the base to the top.
        formats: of each.
        disks: what each reads as.
    """

    def __init__(self, folder: Path, seed: int, layers: list[tuple[int, str]]) -> None:
        self.folder = folder
        self.rng = random.Random(seed)
        self.paths: list[Path] = []
        self.formats: list[str] = []
        self.disks: list[bytearray] = []
        for index, (size, options) in enumerate(layers):
            self.add(f"layer{index}", size, options)

    def add(self, name: str, size: int, options: str) -> None:
        path = self.folder / name
        backing = self.paths[-1] if self.paths else None
        format = "qcow2" if options else "raw"
        make(
            path,
            size,
            format=format,
            options=options,
            backing=backing,
            backing_format=self.formats[-1] if backing else "",
        )
        disk = below(self.disks[-1] if self.disks else b"", size)
        pieces = scatter(self.rng, size, self.rng.randrange(8))
        write(path, format, pieces)
        apply(disk, pieces)
        self.paths.append(path)
        self.formats.append(format)
        self.disks.append(disk)

    @property
    def top(self) -> Path:
        return self.paths[-1]


@contextmanager
def chain(seed: int, layers: list[tuple[int, str]], *, raw_base: bool) -> Iterator[Chain]:
    with tempfile.TemporaryDirectory() as name:
        if raw_base:
            layers = [(layers[0][0], ""), *layers]
        yield Chain(Path(name), seed, layers)


def assert_clean(path: Path) -> None:
    result, lines = check_file(path)
    assert (lines, result.corruptions, result.leaks, result.check_errors) == ([], 0, 0, 0)


layers = st.lists(st.tuples(sizes, layer_options), min_size=1, max_size=3)


@EXAMPLES
@given(
    seed=st.integers(0, 2**32),
    layers=layers,
    raw_base=st.booleans(),
    target=st.sampled_from(["", "cluster_size=512", "cluster_size=64k", "cluster_size=2M", "compression_type=zstd"]),
    compress=st.booleans(),
    min_sparse=st.sampled_from([0, 512, 4096, 12288, 65536]),
    threads=st.integers(1, 3),
)
def test_copy_of_any_chain_has_its_bytes(
    seed: int,
    layers: list[tuple[int, str]],
    raw_base: bool,
    target: str,
    compress: bool,
    min_sparse: int,
    threads: int,
) -> None:
    with chain(seed, layers, raw_base=raw_base) as images:
        path = images.folder / "target"
        format = "qcow2" if target else "raw"
        chosen = CopySettings(compress=compress and bool(target), min_sparse=min_sparse, threads=threads)
        with graph.open(str(images.top), images.formats[-1]) as node:
            convert.convert([node], planned(node, path, format, target, compress=chosen.compress), chosen)
        assert content(path, format) == images.disks[-1]
        with graph.open(str(images.top), images.formats[-1]) as one, graph.open(str(path), format) as other:
            assert compare(one, other) is None
        if format == "qcow2":
            assert_clean(path)


def planned(node: BlockNode, path: Path, format: str, options: str, **keywords: object) -> Plan:
    return convert.plan_target([node], str(path), format, given=given_options(options), **keywords)  # type: ignore[arg-type]


@EXAMPLES
@given(seed=st.integers(0, 2**32), layers=layers, other=st.tuples(sizes, layer_options))
def test_overlay_copy_on_the_same_base_has_the_same_bytes(
    seed: int, layers: list[tuple[int, str]], other: tuple[int, str]
) -> None:
    with chain(seed, [*layers, other], raw_base=True) as images:
        path = images.folder / "target"
        with graph.open(str(images.top), images.formats[-1]) as node:
            plan = planned(node, path, "qcow2", "", backing=str(images.paths[-2]), backing_format=images.formats[-2])
            convert.convert([node], plan)
        assert content(path, "qcow2") == images.disks[-1]
        assert_clean(path)


@EXAMPLES
@given(seed=st.integers(0, 2**32), first=layers, second=layers)
def test_compare_finds_the_first_sector_that_differs(
    seed: int, first: list[tuple[int, str]], second: list[tuple[int, str]]
) -> None:
    with chain(seed, first, raw_base=True) as one, chain(seed + seed % 2, second, raw_base=False) as other:
        disks = one.disks[-1], other.disks[-1]
        length = max(map(len, disks))
        a, b = (disk.ljust(length, b"\0") for disk in disks)
        differing = (start for start in range(0, length, 512) if a[start : start + 512] != b[start : start + 512])
        expected = next((Difference(start) for start in differing), None)
        with graph.open(str(one.top), one.formats[-1]) as left, graph.open(str(other.top), other.formats[-1]) as right:
            assert compare(left, right) == compare(right, left) == expected
            assert compare(left, left) is None


@EXAMPLES
@given(
    seed=st.integers(0, 2**32),
    layers=layers,
    overlay=st.tuples(sizes, layer_options),
    new=st.sampled_from(["other", "chain", "none"]),
)
def test_rebased_overlay_has_the_same_bytes(
    seed: int, layers: list[tuple[int, str]], overlay: tuple[int, str], new: str
) -> None:
    with chain(seed, [*layers, overlay], raw_base=True) as images:
        other = images.folder / "other"
        disk = bytearray(images.disks[-2])
        apply(disk, scatter(images.rng, len(disk), 4))
        other.write_bytes(disk[: images.rng.randrange(len(disk) + 1)])
        with graph.open(str(images.top), "qcow2", read_only=False, cache=UNSAFE) as node:
            if new == "other":
                with graph.open(str(other), "raw") as backing:
                    rebase(node, backing)
                change_backing(node, str(other), "raw")
            elif new == "chain":
                index = images.rng.randrange(len(images.paths) - 1)
                rebase(node, find_in_chain(node, str(images.paths[index])))
                change_backing(node, str(images.paths[index]), images.formats[index])
            else:
                rebase(node, None)
                change_backing(node, None, None)
        assert content(images.top, "qcow2") == images.disks[-1]
        assert_clean(images.top)


@EXAMPLES
@given(seed=st.integers(0, 2**32), layers=layers, overlay=st.tuples(sizes, layer_options), raw_base=st.booleans())
def test_committed_base_has_the_overlay_s_bytes(
    seed: int, layers: list[tuple[int, str]], overlay: tuple[int, str], raw_base: bool
) -> None:
    with chain(seed, [*layers, overlay], raw_base=raw_base) as images:
        depth = images.rng.randrange(1, len(images.paths))
        with graph.open(str(images.top), "qcow2", read_only=False, cache=UNSAFE, writable_backing=depth) as node:
            commit(node, depth, empty=depth == 1)
        base, format = images.paths[-1 - depth], images.formats[-1 - depth]
        expected = images.disks[-1]
        found = content(base, format)
        assert found[: len(expected)] == expected
        assert found[len(expected) :] == images.disks[-1 - depth][len(expected) :]
        if depth == 1:
            assert content(images.top, "qcow2") == expected
            assert_clean(images.top)
        if format == "qcow2":
            assert_clean(base)
