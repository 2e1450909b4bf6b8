"""What a power cut leaves of images of all formats, judged by real ``qemu-img``: leaks at worst, and the same content.

``HOSTEL_SOAK=20`` judges twenty times as many.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Final

import pytest

from hostel.block.options import Value
from support import block_subjects, format_subjects
from support.crash import Recording, sample
from support.format_workload import FormatWorkload, Subject
from support.guest_io import SECTOR
from support.memory import LoggedDriver, MemoryDriver
from support.tally import tried

__all__ = ["tried"]
pytestmark = pytest.mark.requires_tool("qemu-img")

SOAK = int(os.environ.get("HOSTEL_SOAK", "1"))
CLEAN, LEAKS, UNCHECKED = 0, 3, 63
MIB: Final = 1 << 20
SUBJECTS: Final[dict[str, Subject]] = {**format_subjects.SUBJECTS, **block_subjects.SUBJECTS}


def recorded(name: str, rng: random.Random) -> Recording:
    """A random workload on an image that QEMU opens: its blocks of VDI have 1 MiB, its tables of QED two clusters."""
    subject = SUBJECTS[name]
    options: dict[str, Value] = subject.options(rng)
    if options.get("table_size") == 1:
        options["table_size"] = 2
    if name == "vdi":
        options["cluster_size"] = MIB
    size = MIB + rng.choice((0, SECTOR)) if name in ("vdi", "vhdx") else None
    workload = FormatWorkload(subject, rng, LoggedDriver, options=options, size=size, aligned=True)
    return Recording.of(workload, rng.randrange(4, 16))


def qemu_img(folder: Path, *words: str, codes: tuple[int, ...] = (CLEAN,)) -> None:
    """Run the real ``qemu-img``."""
    ended = subprocess.run(["qemu-img", *words], cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    said = ended.stdout + ended.stderr
    assert ended.returncode in codes or is_counted_ahead(said), f"{words}: {said}"


def is_counted_ahead(said: str) -> bool:
    """Whether the header of a VDI counts more blocks than the map has: QEMU puts the next one behind them, so no harm.

    With fewer it would write over a block that is in use.
    """
    found = re.fullmatch(r"ERROR: allocated blocks mismatch, is (\d+), should be (\d+)\s*", said)
    return found is not None and int(found[1]) < int(found[2])


@pytest.mark.parametrize("seed", range(SOAK))
@pytest.mark.parametrize("name", SUBJECTS)
def test_qemu_reads_what_we_read_after_a_power_cut_and_finds_leaks_at_worst(
    tmp_path: Path, name: str, seed: int, tried: Counter[str]
) -> None:
    rng, subject = random.Random(f"judged {name} {seed}"), SUBJECTS[name]
    recording = recorded(name, rng)
    backing = recording.workload.original_backing
    for below in ("base.raw", "b", "a/longer/path/to/base.raw") if backing is not None else ():
        (tmp_path / below).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / below).write_bytes(backing or b"")
    for state in sample(recording.states(rng, samples=3), rng, 4):
        tried["disks after power cuts judged by qemu-img"] += 1
        data = block_subjects.replayed(name, state.data)
        with subject.attach(MemoryDriver(data), read_only=True, backing=backing) as node:
            content = node.read(0, node.length)
        (tmp_path / "disk").write_bytes(state.data)
        try:
            if data != state.data or subject.marked(data):
                repair = ("check", "-q", "-f", subject.name, "-r", "all", "disk")
                qemu_img(tmp_path, *repair, codes=(CLEAN, LEAKS))  # QED's are only found
            qemu_img(tmp_path, "check", "-q", "-f", subject.name, "disk", codes=(CLEAN, LEAKS, UNCHECKED))
            qemu_img(tmp_path, "convert", "-f", subject.name, "-O", "raw", "disk", "disk.raw")
            assert (tmp_path / "disk.raw").read_bytes() == content
        except BaseException as error:
            error.add_note(f"{recording.workload.options} {recording.history}, after {state.reached} entries")
            raise
