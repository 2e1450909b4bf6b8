"""Processes that are killed while several threads write an image: what was flushed is there, for us and real tools.

Unlike the power cuts of ``tests/property``, nothing stands between a driver and its file here, and the kill comes
whenever it comes.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from hostel.block import graph
from support import image
from support.killed_writer import Killed
from support.memory_folder import memory_folder
from support.tally import tried  # noqa: F401

pytestmark = pytest.mark.requires_tool("qemu-img")
SOAK: Final = int(os.environ.get("HOSTEL_SOAK", "1"))
KILLS: Final = 3 * SOAK
SIZE: Final = 6 << 20


class Case(NamedTuple):
    """A kind of image.

    Attributes:
        format: its driver.
        options: it is created with, where DATA is the name of a data file.
        lazy: real ``check`` may find errors that opening the image for writing repairs.
        mends: it is to be repaired first, says its driver.
    """

    format: str
    options: str = ""
    lazy: bool = False
    mends: bool = False


CASES: Final = {
    "qcow2": Case("qcow2", "cluster_size=4k"),
    "qcow2 with lazy refcounts": Case("qcow2", "lazy_refcounts=on", lazy=True),
    "qcow2 with subclusters": Case("qcow2", "extended_l2=on,cluster_size=32k"),
    "qcow2 with both": Case("qcow2", "extended_l2=on,cluster_size=16k,lazy_refcounts=on", lazy=True),
    "qcow2 with a data file": Case("qcow2", "data_file=DATA"),
    "qcow2 with a raw data file": Case("qcow2", "data_file=DATA,data_file_raw=on"),
    "qed": Case("qed", "cluster_size=4k,table_size=2"),
    "parallels": Case("parallels", "cluster_size=4096", mends=True),
    "vdi": Case("vdi"),
    "vpc": Case("vpc", "force_size=on"),
    "vhdx": Case("vhdx", "block_size=1M"),
    "vmdk": Case("vmdk"),
    "vmdk of several files": Case("vmdk", "subformat=twoGbMaxExtentSparse"),
    "qcow": Case("qcow"),
}


@pytest.fixture
def folder() -> Iterator[Path]:
    with memory_folder() as folder:
        yield folder


@pytest.mark.parametrize("name", CASES)
def test_what_was_flushed_is_there(folder: Path, name: str, tried: Counter[str]) -> None:  # noqa: F811
    case = CASES[name]
    path = folder / f"disk.{case.format}"
    options = case.options.replace("DATA", str(folder / "data"))
    image.qemu_img("create", "-q", "-f", case.format, *(["-o", options] if options else []), path, SIZE)
    killed = Killed(path, case.format, SIZE, seed=5)
    rng = random.Random(5)
    for turn in range(KILLS):
        killed.write(rng.uniform(0.005, 0.08))
        theirs = as_qemu_finds_it(folder, case) if turn % 3 == 0 else None
        if case.mends:
            image.qemu_img("check", "-q", "-r", "all", "-f", case.format, path)
        with graph.open(str(path), case.format, read_only=False) as node:
            content = bytes(node.read(0, SIZE))
        assert killed.judge(content) == []
        assert theirs in (None, content)
    assert killed.done
    tried["kills"] += KILLS
    tried["flushes that were answered before them"] += killed.flushes


def as_qemu_finds_it(folder: Path, case: Case) -> bytes:
    """The content for the real ``qemu-img``, whose ``check`` finds leaks at worst; of a copy, which it may repair."""
    copy = folder / "copy"
    copy.mkdir(exist_ok=True)
    for each in folder.iterdir():
        if each.is_file():
            shutil.copy(each, copy)
    path = copy / f"disk.{case.format}"
    words = ["qemu-img", "check", "--output=json", "-f", case.format, str(path)]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    if ended.returncode != 63:  # it has a check
        found = json.loads(ended.stdout)
        assert found["check-errors"] == 0
        if found.get("corruptions"):
            assert case.lazy or case.mends, ended.stderr
            image.real_qemu_img("check", "-q", "-r", "all", "-f", case.format, path)
    image.real_qemu_img("convert", "-f", case.format, "-O", "raw", path, copy / "raw")
    return (copy / "raw").read_bytes()[:SIZE]
