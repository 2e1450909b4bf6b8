"""Damaged qcow2 images beside real ``qemu-io``: what it does not open, we do not open either."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path

import pytest

from hostel.block import graph
from support.qcow2_hostile import KINDS, mutations

pytestmark = pytest.mark.requires_tool("qemu-io")
# Where we are stricter: QEMU reads what a truncated file lacks as zeroes.
STRICTER = ("beyond the end of the file",)


def refusal_of_qemu(path: Path) -> str | None:
    """Why QEMU does not open an image for reading; None where it does."""
    options = {"driver": "qcow2", "backing": None, "file": {"driver": "file", "filename": str(path)}}
    done = subprocess.run(
        ["qemu-io", "-r", "-c", "quit", "json:" + json.dumps(options)], capture_output=True, text=True, timeout=60
    )
    return done.stderr if done.returncode else None


def our_refusal(path: Path) -> str | None:
    try:
        graph.open(str(path), "qcow2", no_backing=True).close()
    except OSError as error:
        return str(error)
    return None


@pytest.mark.parametrize("kind", KINDS)
def test_what_qemu_refuses_to_open_we_refuse_and_little_more(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "disk.qcow2"
    both = 0
    for history, data in mutations(kind, random.Random(f"beside QEMU {kind}"), 60):
        path.write_bytes(data)
        theirs, ours = refusal_of_qemu(path), our_refusal(path)
        if theirs is not None:
            assert ours is not None, f"{history}: {theirs}"
            both += 1
        elif ours is not None:
            assert any(words in ours for words in STRICTER), f"{history}: {ours}"
    assert both > 10
