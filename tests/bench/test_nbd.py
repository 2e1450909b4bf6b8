"""NBD servers side by side: ours, qemu-nbd and nbdkit. Rates and ratios are reported, never judged here.

Of qemu-nbd it is the better rate of its ways to read a file that is in the page cache.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from bench.nbd_load import rate
from bench.rivals import MIB, asynchronous, fast_folder, write_random
from support.nbd import Peer

pytestmark = [
    pytest.mark.requires_tool("qemu-nbd"),
    pytest.mark.requires_tool("qemu-img"),
    pytest.mark.requires_tool("nbdkit"),
    pytest.mark.slow,
]

LENGTH = 256 * MIB
ROUNDS = 5  # of which the middle one counts: a lucky one says as little as one beside which something else ran
CASES = [
    *((write, 4096, 1, False, True) for write in (False, True)),
    *((write, 4096, depth, False, False) for write in (False, True) for depth in (1, 16, 64)),
    *((write, length, depth, True, False) for write in (False, True) for length, depth in ((65536, 16), (MIB, 4))),
]


class Row(NamedTuple):
    """One comparison: requests a second of each."""

    name: str
    ours: float
    qemu: float
    nbdkit: float | None

    def __str__(self) -> str:
        kit = f"{self.nbdkit:>10.0f}{self.ours / self.nbdkit:7.2f}" if self.nbdkit else ""
        return f"{self.name:<46}{self.ours:>10.0f}{self.qemu:>10.0f}{self.ours / self.qemu:7.2f}{kit}"


@pytest.fixture(scope="module")
def rows() -> Iterator[list[Row]]:
    collected: list[Row] = []
    yield collected
    print(f"\n{'requests a second':<46}{'ours':>10}{'qemu-nbd':>10}{'ratio':>7}{'nbdkit':>10}{'ratio':>7}")
    print("\n".join(map(str, collected)))
    if path := os.environ.get("HOSTEL_BENCH_JSON"):
        with open(path, "a", encoding="utf-8") as stream:
            stream.writelines(json.dumps({**row._asdict(), "ratio": row.ours / row.qemu}) + "\n" for row in collected)


class Servers:
    """The three, qemu-nbd in each of its ways; each with an image of its own, started when first used."""

    def __init__(self, folder: Path, sockets: Path) -> None:
        self.folder = folder
        self.sockets = sockets
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def path(self, who: str, format: str) -> Path:
        path = self.sockets / f"{who}-{format}"
        if str(path) not in self.running:
            image = self.folder / f"{who}.{format}"
            shutil.copyfile(self.folder / f"image.{format}", image)
            options = ["-t", "-e", "0", "-f", format, "-k", str(path), str(image)]
            words = {
                "ours": [sys.executable, "-m", "hostel", "qemu-nbd", *options],
                "nbdkit": ["nbdkit", "-f", "-U", str(path), "file", str(image)],
            }.get(who, ["qemu-nbd", f"--aio={who}", *options])
            self.running[str(path)] = subprocess.Popen(words, stderr=subprocess.DEVNULL)
            self._wait(path)
        return path

    def _wait(self, path: Path) -> None:
        deadline = time.monotonic() + 20
        while True:
            try:
                with Peer(path) as peer:
                    peer.receive(18)
                    return
            except (OSError, AssertionError):
                assert time.monotonic() < deadline
                time.sleep(0.05)

    def stop(self) -> None:
        for process in self.running.values():
            process.kill()
            process.wait(20)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with tempfile.TemporaryDirectory(dir=fast_folder(tmp_path_factory.mktemp("images"))) as name:
        folder = Path(name)
        write_random(folder / "image.raw", LENGTH)
        words = [
            "qemu-img",
            "convert",
            "-f",
            "raw",
            "-O",
            "qcow2",
            str(folder / "image.raw"),
            str(folder / "image.qcow2"),
        ]
        subprocess.run(words, check=True, timeout=60)
        running = Servers(folder, tmp_path_factory.mktemp("nbd"))
        yield running
        running.stop()


@pytest.mark.parametrize("format", ["raw", "qcow2"])
@pytest.mark.parametrize(("write", "length", "depth", "sequential", "awake"), CASES)
def test_rate(
    rows: list[Row], servers: Servers, format: str, write: bool, length: int, depth: int, sequential: bool, awake: bool
) -> None:
    theirs = asynchronous(servers.folder / "image.raw")
    rivals = ["ours", *theirs, *(["nbdkit"] if format == "raw" else [])]
    found: dict[str, list[float]] = {who: [] for who in rivals}
    for _ in range(ROUNDS):
        for who in rivals:
            path = servers.path(who, format)
            found[who].append(rate(path, write=write, length=length, depth=depth, sequential=sequential, awake=awake))
    middle = {who: statistics.median(rates) for who, rates in found.items()}
    what = f"{'sequential' if sequential else 'random'} {'writes' if write else 'reads'}"
    name = f"{format}: {length >> 10} KiB {what}, depth {depth}{', awake' if awake else ''}"
    rows.append(Row(name, middle["ours"], max(middle[way] for way in theirs), middle.get("nbdkit")))
