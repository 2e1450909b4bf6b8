"""Formats that are only read, beside the real tool."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from support.old_images import bochs, cloop

pytestmark = pytest.mark.requires_tool("qemu-img")
RANDOM = random.Random(7)
IMAGES = {
    "bochs": bochs({number: RANDOM.randbytes(512) for number in RANDOM.sample(range(3000), 500)}, 3000 * 512),
    "cloop": cloop(RANDOM.randbytes(300_000) + bytes(65536 * 20 - 300_000), block_size=65536),
}
COMMANDS = [
    ["info", "{image}"],
    ["info", "--output=json", "{image}"],
    ["map", "--output=json", "{image}"],
    ["check", "{image}"],
    ["resize", "{image}", "1G"],
    ["create", "-f", "{format}", "new", "1M"],
    ["create", "-f", "{format}", "-o", "help"],
    ["amend", "-f", "{format}", "-o", "help"],
    ["convert", "-O", "{format}", "{image}", "new"],
    ["measure", "-O", "{format}", "--size", "1M"],
    ["snapshot", "-l", "{image}"],
]


def run(tool: list[str], folder: Path, *words: str) -> tuple[int, str, str]:
    done = subprocess.run([*tool, *words], cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout, done.stderr


OURS = [sys.executable, "-m", "hostel", "qemu-img"]


@pytest.mark.parametrize("format", IMAGES)
@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: "-".join(words[:2]).replace("{", "").replace("}", ""))
def test_commands_print_what_the_real_tool_prints(tmp_path: Path, format: str, command: list[str]) -> None:
    (tmp_path / "image").write_bytes(IMAGES[format])
    words = [word.format(image="image", format=format) for word in command]
    assert run(OURS, tmp_path, *words) == run(["qemu-img"], tmp_path, *words)


@pytest.mark.parametrize("format", IMAGES)
def test_the_real_tool_reads_the_same(tmp_path: Path, format: str) -> None:
    (tmp_path / "image").write_bytes(IMAGES[format])
    for tool, name in ((OURS, "ours"), (["qemu-img"], "theirs")):
        assert run(tool, tmp_path, "convert", "-O", "raw", "image", name)[0] == 0
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


@pytest.mark.requires_tool("qemu-io")
@pytest.mark.parametrize("format", IMAGES)
def test_qemu_io_agrees(tmp_path: Path, format: str) -> None:
    (tmp_path / "image").write_bytes(IMAGES[format])
    for words in (("-r", "-c", "info", "image"), ("-c", "read 0 512", "image"), ("-r", "-c", "map", "image")):
        assert run([*OURS[:-1], "qemu-io"], tmp_path, *words) == run(["qemu-io"], tmp_path, *words)
