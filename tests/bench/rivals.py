"""Running our tool and the real one in turns, and saying how they compare."""

from __future__ import annotations

import errno
import functools
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from mmap import mmap
from pathlib import Path
from typing import NamedTuple

OURS = [sys.executable, "-m", "hostel", "qemu-img"]
THEIRS = ["qemu-img"]
ROUNDS = 4  # each tool is the first in half of them
MIB = 1 << 20
LENGTH = int(os.environ.get("HOSTEL_BENCH_MIB", "2048")) * MIB  # of the images that are copied
NEED = 8 * LENGTH  # bytes: images of all kinds, dense and sparse, and what is made of them


class Row(NamedTuple):
    """One comparison: the best time of each in seconds, and the size in bytes of what each wrote."""

    name: str
    ours: float
    theirs: float
    our_size: int
    their_size: int

    @property
    def ratio(self) -> float:
        """Our time by theirs: below 1 we are faster."""
        return self.ours / self.theirs


class Bench:
    """Collects rows, prints them, and writes them as JSON where ``HOSTEL_BENCH_JSON`` says."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def measure(
        self,
        name: str,
        command: Callable[[str], Sequence[str]],
        folder: Path,
        *,
        between: Callable[[], object] | None = None,
        ends: tuple[int, ...] = (0,),
    ) -> Row:
        """Run ``command(output)`` with both tools in turns.

        ``between`` restores what a run changes; ``ends`` are the exit codes of a run that did its work.
        """
        best = {"ours": float("inf"), "theirs": float("inf")}
        # As installed: with the modules compiled.
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        size = {"ours": 0, "theirs": 0}
        rivals = [("ours", OURS), ("theirs", THEIRS)]
        for _ in range(ROUNDS):
            for who, tool in rivals:
                if between is not None:
                    between()
                output = folder / f"output-{who}"
                output.unlink(missing_ok=True)
                start = time.perf_counter()
                words = [*tool, *command(str(output))]
                done = subprocess.run(words, check=False, capture_output=True, timeout=300, env=environment)
                if done.returncode not in ends:
                    done.check_returncode()
                best[who] = min(best[who], time.perf_counter() - start)
                size[who] = output.stat().st_blocks * 512 if output.exists() else 0
                output.unlink(missing_ok=True)
            rivals.reverse()
        row = Row(name, best["ours"], best["theirs"], size["ours"], size["theirs"])
        self.rows.append(row)
        return row

    def report(self) -> str:
        """A table of all rows."""
        lines = [f"{'':<44}{'ours':>9}{'qemu-img':>10}{'ratio':>7}{'size':>7}"]
        for row in self.rows:
            size = f"{row.our_size / row.their_size:7.2f}" if row.their_size else ""
            lines.append(f"{row.name:<44}{row.ours:8.3f}s{row.theirs:9.3f}s{row.ratio:7.2f}{size}")
        return "\n".join(lines)

    def save(self) -> None:
        """Write the rows where the environment says."""
        if path := os.environ.get("HOSTEL_BENCH_JSON"):
            rows = [{**row._asdict(), "ratio": round(row.ratio, 3)} for row in self.rows]
            with open(path, "a", encoding="utf-8") as stream:
                stream.writelines(json.dumps(row) + "\n" for row in rows)


def fast_folder(fallback: Path) -> Path:
    """A folder in memory where there is room, so that tools are compared and not disks."""
    memory = Path("/dev/shm")
    if memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > NEED:
        return memory
    return fallback


def direct_folder() -> Path | None:
    """A folder on a disk, where files may be read and written past the page cache; None where there is none."""
    for name in (os.environ.get("HOSTEL_BENCH_DISK"), "/var/tmp", os.path.expanduser("~")):
        if name and os.access(name, os.W_OK) and _is_disk(name) and shutil.disk_usage(name).free > NEED // 2:
            return Path(name)
    return None


def _is_disk(folder: str) -> bool:
    """Whether a byte alone cannot be read directly, as it can from a file system in memory."""
    with tempfile.NamedTemporaryFile(dir=folder) as stream, mmap(-1, 4096) as memory, memoryview(memory) as view:
        try:
            fd = os.open(stream.name, os.O_RDWR | os.O_DIRECT)
        except OSError:
            return False
        try:
            os.pwrite(fd, memory, 0)
            os.preadv(fd, [view[:1]], 0)
        except OSError as error:
            return error.errno == errno.EINVAL
        else:
            return False
        finally:
            os.close(fd)


def write_random(path: Path, length: int, *, every: int = 1) -> None:
    """Random bytes, a MiB in ``every``; holes between."""
    rng = random.Random(7)
    with path.open("wb") as stream:
        stream.truncate(length)
        for offset in range(0, length, every * MIB):
            stream.seek(offset)
            stream.write(rng.randbytes(MIB))


def write_text(path: Path, length: int) -> None:
    """Something that compresses as logs and sources do."""
    rng = random.Random(8)
    words = [rng.randbytes(rng.randrange(2, 10)).hex().encode() for _ in range(4000)]
    with path.open("wb") as stream:
        for _ in range(0, length, MIB):
            stream.write(b" ".join(rng.choices(words, k=MIB // 8))[:MIB].ljust(MIB, b"\n"))


@functools.cache
def asynchronous(path: Path) -> tuple[str, ...]:
    """The ways in which QEMU reads and writes a file through the page cache on this host; the better one counts."""
    options = f"driver=file,aio=io_uring,filename={path}"
    tried = subprocess.run(["qemu-io", "--image-opts", "-c", "length", options], capture_output=True, timeout=60)
    return ("threads",) if tried.returncode else ("threads", "io_uring")
