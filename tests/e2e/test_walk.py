"""Random walks through all that is done to a machine and its disks, the daemon and QEMU being killed now and then.

``make soak`` makes it twenty times as many.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.walk import Walk

pytestmark = [pytest.mark.qemu, pytest.mark.requires_tool("virsh"), pytest.mark.requires_tool("qemu-img")]
FACTOR = int(os.environ.get("HOSTEL_SOAK") or 1)
SEEDS = 2 if FACTOR == 1 else 3 * FACTOR  # QEMU is killed in each third
STEPS = 15


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory with a short name, for the sockets in it."""
    path = Path(tempfile.mkdtemp(prefix="wk-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_disks_hold_what_was_written_wherever_a_walk_leads(home: Path, seed: int) -> None:
    with Walk(home, seed, deadly=0.35 if seed % 2 else 0.0, lethal=0.2 if seed % 3 == 2 else 0.0) as walk:
        try:
            for _ in range(STEPS):
                walk.step()
        except AssertionError as error:
            said = "\n".join(walk.steps)
            raise AssertionError(f"seed {seed}: {error}\n{said}") from error
        finally:
            walk.destroy()
    assert walk.processes() == []
