"""What takes its time without copying data: checks, maps, starts, and how much memory is taken meanwhile.

Reported beside real ``qemu-img``, never judged here, since machines differ.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from bench.rivals import MIB, OURS, THEIRS, fast_folder, write_random
from hostel.block import graph
from hostel.img.info import info

pytestmark = [pytest.mark.requires_tool("qemu-img"), pytest.mark.slow]
GIB = 1 << 30
IMAGES = 1000
ROUNDS = 5


class Cost(NamedTuple):
    """The least of what several runs of a command took: seconds, and bytes of memory at the most."""

    seconds: float
    memory: int


class Report:
    """Lines that are printed in the end."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, name: str, ours: Cost, theirs: Cost) -> None:
        """Two commands that did the same."""
        ratio = ours.seconds / theirs.seconds
        self.lines.append(
            f"{name:<40}{ours.seconds:9.3f}s{theirs.seconds:9.3f}s{ratio:7.2f}"
            f"{ours.memory // MIB:7} MiB{theirs.memory // MIB:7} MiB"
        )


@pytest.fixture(scope="module")
def report() -> Iterator[Report]:
    collected = Report()
    yield collected
    print("\n" + "\n".join([f"{'':<40}{'ours':>10}{'qemu-img':>10}{'ratio':>7}{'memory':>15}", *collected.lines]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=fast_folder(tmp_path_factory.mktemp("bench"))) as name:
        yield Path(name)


# A process that is born of a large one counts its memory as its own: so a small one lies between.
_RUNNER = """
import os, sys, time
start = time.perf_counter()
nowhere = os.open(os.devnull, os.O_WRONLY)
actions = [(os.POSIX_SPAWN_DUP2, nowhere, 1), (os.POSIX_SPAWN_DUP2, nowhere, 2)]
pid = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=actions)
_, status, usage = os.wait4(pid, 0)
print(time.perf_counter() - start, usage.ru_maxrss, os.waitstatus_to_exitcode(status))
"""


def cost(folder: Path, words: Sequence[str], rounds: int = ROUNDS) -> Cost:
    """Run a command several times."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    found = []
    for _ in range(rounds):
        runner = [sys.executable, "-I", "-S", "-c", _RUNNER, *words]
        done = subprocess.run(runner, check=True, capture_output=True, text=True, timeout=300, env=environment)
        seconds, kibibytes, code = done.stdout.split()
        assert int(code) in (0, 3), words
        found.append(Cost(float(seconds), int(kibibytes) << 10))
    return Cost(min(each.seconds for each in found), min(each.memory for each in found))


def both(report: Report, folder: Path, name: str, *words: str, rounds: int = ROUNDS) -> Cost:
    """Run a command with both tools."""
    ours, theirs = (cost(folder, [*tool, *words], rounds) for tool in (OURS, THEIRS))
    report.add(name, ours, theirs)
    return ours


def create(path: Path, size: str, options: str = "") -> None:
    chosen = ["-o", options] if options else []
    subprocess.run([*THEIRS, "create", "-q", "-f", "qcow2", *chosen, str(path), size], check=True, timeout=300)


def test_check_of_1_tib_with_all_its_metadata(report: Report, folder: Path) -> None:
    path = folder / "full.qcow2"
    create(path, "1T", "preallocation=metadata")
    both(report, folder, "check, 1 TiB of metadata", "check", "-q", "-f", "qcow2", str(path), rounds=3)
    path.unlink()


def test_snapshots_of_100_gib_with_all_their_metadata(report: Report, folder: Path) -> None:
    path = folder / "snapshots.qcow2"
    names, tools, options = ("ours", "theirs"), (OURS, THEIRS), ("-c", "-a", "-d")
    taken: dict[tuple[str, str], list[Cost]] = {}
    for number in range(ROUNDS):
        for name, tool in list(zip(names, tools, strict=True))[:: 1 if number % 2 else -1]:
            create(path, "100G", "preallocation=metadata")
            for option in options:
                found = cost(folder, [*tool, "snapshot", option, "moment", str(path)], rounds=1)
                taken.setdefault((option, name), []).append(found)
            path.unlink()
    for option in options:
        report.add(f"snapshot {option}, 100 GiB of metadata", *(min(taken[option, name]) for name in names))


def test_map_of_a_million_extents(report: Report, folder: Path) -> None:
    path = folder / "fragmented.qcow2"
    create(path, "64G", "preallocation=metadata")
    with graph.open(str(path), "qcow2") as node:
        image = node.driver._image  # type: ignore[attr-defined]
        tables = [entry & 0x00FFFFFFFFFFFE00 for entry in image.l1]
        place, length = image.header.refcount_table_offset, image.header.refcount_table_clusters << 16
    with path.open("r+b") as file:
        for table in tables:
            file.seek(table)
            entries = bytearray(file.read(65536))
            for at in range(8, 65536, 16):
                entries[at : at + 8] = bytes(8)
            file.seek(table)
            file.write(entries)
        # Without refcounts it passes for an image whose data is there: nobody asks for holes of its file.
        file.seek(place)
        file.write(bytes(length))
    for form in ("json", "human"):
        words = ("map", "-f", "qcow2", f"--output={form}", str(path))
        both(report, folder, f"map --output={form}, 1 M extents", *words, rounds=3)
    path.unlink()


def test_start(report: Report, folder: Path) -> None:
    create(folder / "a.qcow2", "1G")
    both(report, folder, "info", "info", "-f", "qcow2", str(folder / "a.qcow2"), rounds=15)


def test_info_of_a_thousand_images(report: Report, folder: Path) -> None:
    paths = [folder / f"{index}.qcow2" for index in range(IMAGES)]
    for path in paths:
        path.write_bytes((folder / "a.qcow2").read_bytes())
    program = (
        "import sys, time; from hostel.block import graph; from hostel.img.info import info\n"
        "start = time.perf_counter()\n"
        "for path in sys.argv[1:]:\n"
        "    with graph.open(path, 'qcow2', no_backing=True, no_io=True) as node: info(node)\n"
    )
    ours = cost(folder, [sys.executable, "-c", program, *map(str, paths)])
    one = cost(folder, [*THEIRS, "info", "-f", "qcow2", str(paths[0])], 15)
    report.add("info of 1,000 images: API, processes", ours, one._replace(seconds=one.seconds * IMAGES))
    with graph.open(str(paths[0]), "qcow2") as node:
        assert info(node).virtual_size == GIB


@pytest.mark.parametrize("target", ["raw", "qcow2"])
@pytest.mark.parametrize("gigabytes", [1, 4])
def test_memory_of_a_copy(report: Report, folder: Path, gigabytes: int, target: str) -> None:
    source = folder / "source.raw"
    write_random(source, gigabytes * GIB, every=4)
    words = ("convert", "-f", "raw", "-O", target, str(source), str(folder / "output"))
    both(report, folder, f"convert raw to {target}, {gigabytes} GiB", *words, rounds=2)
    source.unlink()
    (folder / "output").unlink()
