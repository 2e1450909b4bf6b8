"""Power cuts, judged by real ``qemu-img check``: leaks at worst."""

from __future__ import annotations

import os
import random
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from hostel.block.formats.qcow2.layout import Incompatible
from support import qcow2
from support.crash import Recording, sample
from support.qcow2_workload import BACKING_NAMES
from support.tally import tried

__all__ = ["tried"]
pytestmark = pytest.mark.requires_tool("qemu-img")
SOAK = int(os.environ.get("HOSTEL_SOAK", "1"))
CLEAN, LEAKS = 0, 3


def qemu_img(*arguments: str) -> tuple[int, str]:
    done = subprocess.run(["qemu-img", *arguments], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("seed", range(16 * SOAK))
def test_qemu_img_finds_leaks_at_worst_after_a_power_cut(tmp_path: Path, seed: int, tried: Counter[str]) -> None:
    path = tmp_path / "disk.qcow2"
    rng = random.Random(f"judged {seed}")
    recording = Recording.random(rng, rng.randrange(5, 30))
    below = recording.workload.original_backing
    if below is not None:
        for name in BACKING_NAMES:
            backing = tmp_path / name
            backing.parent.mkdir(parents=True, exist_ok=True)
            backing.write_bytes(below)
    for state in sample(recording.states(rng), rng, 10):
        tried["disks after power cuts judged by qemu-img check"] += 1
        path.write_bytes(state.data)
        if qcow2.header(state.data).incompatible_features & Incompatible.DIRTY:
            code, said = qemu_img("check", "-q", "-f", "qcow2", "-r", "all", str(path))
            assert code == CLEAN, said
        code, said = qemu_img("check", "-q", "-f", "qcow2", str(path))
        assert code in (CLEAN, LEAKS), f"{recording.workload.options} {recording.history}: {said}"
