"""Images in tests: our own ``qemu-img`` in process, the real one as the judge, whole disks through our layer."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from hostel.block import graph
from hostel.cli.main import run_tool


def qemu_img(*words: str | int | Path) -> None:
    """Run our own ``qemu-img``, which must succeed."""
    code = run_tool("qemu-img", [str(word) for word in words])
    assert code == 0, f"qemu-img {' '.join(map(str, words))} ended with exit code {code}"


def real_qemu_img(*words: str | int | Path) -> str:
    """Run the real ``qemu-img``, which must succeed; returns what it printed."""
    ended = subprocess.run(["qemu-img", *map(str, words)], capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, f"qemu-img {' '.join(map(str, words))}: {ended.returncode}\n{ended.stderr}"
    return ended.stdout


def content(path: Path, fmt: str) -> bytes:
    """Everything on a disk, as our block layer reads it."""
    with graph.open(str(path), fmt) as node:
        return bytes(node.read(0, node.length))


def write(path: Path, fmt: str, *pieces: tuple[int, bytes]) -> None:
    """Write pieces, each at its offset, through our block layer."""
    with graph.open(str(path), fmt, read_only=False) as node:
        for offset, data in pieces:
            node.pwrite(offset, data)
        node.flush()


def assert_clean(path: Path, fmt: str) -> None:
    """Both ``qemu-img check`` find nothing: no corruption, and no leak."""
    if fmt == "raw":
        return  # nothing to check, as both of them say
    found = json.loads(real_qemu_img("check", "--output=json", "-f", fmt, path))
    assert found["check-errors"] == 0
    assert not {"corruptions", "leaks"} & set(found), found
    qemu_img("check", "-q", "-f", fmt, path)
