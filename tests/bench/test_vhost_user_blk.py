"""vhost-user-blk back ends side by side: ours and qemu-storage-daemon's, with one driver of our own.

Rates and ratios are reported, never judged here. ``asleep`` is a driver that sleeps as soon as nothing is there for it,
``polling`` one that looks for a moment before it does, as a guest with halt polling. QEMU's is the better rate of its
ways to read a file that is in the page cache.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from bench.rivals import MIB, asynchronous, fast_folder, write_random
from bench.vhost_load import rate
from support.daemon import OURS, THEIRS

pytestmark = [pytest.mark.requires_tool("qemu-storage-daemon"), pytest.mark.slow]

LENGTH = 256 * MIB
ROUNDS = 5  # of which the middle one counts: a lucky one says as little as one beside which something else ran


class Row(NamedTuple):
    """One comparison: requests a second of each."""

    name: str
    ours: float
    qemu: float

    def __str__(self) -> str:
        return f"{self.name:<40}{self.ours:>10.0f}{self.qemu:>10.0f}{self.ours / self.qemu:7.2f}"


@pytest.fixture(scope="module")
def rows() -> Iterator[list[Row]]:
    collected: list[Row] = []
    yield collected
    print(f"\n{'requests a second':<40}{'ours':>10}{'qemu':>10}{'ratio':>7}")
    print("\n".join(map(str, collected)))
    if path := os.environ.get("HOSTEL_BENCH_JSON"):
        with open(path, "a", encoding="utf-8") as stream:
            stream.writelines(json.dumps({**row._asdict(), "ratio": row.ours / row.qemu}) + "\n" for row in collected)


@pytest.fixture(scope="module")
def sockets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """The sockets of our daemon and of QEMU's, in each of its ways; each has an image of its own."""
    work = tmp_path_factory.mktemp("vhost")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(work / "bytecode")
    running = []
    with tempfile.TemporaryDirectory(dir=fast_folder(work)) as name:
        folder = Path(name)
        write_random(folder / "ours", LENGTH)
        found = {}
        for who, tool in (("ours", OURS), *((way, THEIRS) for way in asynchronous(folder / "ours"))):
            if tool == THEIRS:
                shutil.copyfile(folder / "ours", folder / who)
            found[who] = work / f"{who}.sock"
            words = [
                *tool,
                *(
                    "--blockdev",
                    f"driver=file,node-name=file,filename={folder / who}" + f",aio={who}" * (tool == THEIRS),
                ),
                *("--blockdev", "driver=raw,node-name=disk,file=file"),
                "--export",
                f"vhost-user-blk,id=e,node-name=disk,writable=on,addr.type=unix,addr.path={found[who]}",
            ]
            running.append(subprocess.Popen(words, env=environment))
            until = time.monotonic() + 20
            while not found[who].exists():
                assert time.monotonic() < until
                time.sleep(0.05)
        try:
            yield found
        finally:
            for process in running:
                process.terminate()
                process.wait(20)


@pytest.mark.parametrize("spin", [False, True], ids=["asleep", "polling"])
@pytest.mark.parametrize("write", [False, True], ids=["read", "write"])
@pytest.mark.parametrize("depth", [1, 16, 64])
def test_random_requests(rows: list[Row], sockets: dict[str, Path], spin: bool, write: bool, depth: int) -> None:
    found: dict[str, list[float]] = {who: [] for who in sockets}
    for _ in range(ROUNDS):
        for who, path in sockets.items():
            found[who].append(rate(path, write=write, depth=depth, spin=spin))
    name = f"4 KiB {'write' if write else 'read'}, depth {depth}, {'polling' if spin else 'asleep'}"
    middle = {who: statistics.median(rates) for who, rates in found.items()}
    rows.append(Row(name, middle.pop("ours"), max(middle.values())))
