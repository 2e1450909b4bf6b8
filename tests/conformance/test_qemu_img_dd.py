"""qemu-img dd beside the real one."""

from __future__ import annotations

import random
import subprocess

import pytest

from support.twins import Twins

pytestmark = pytest.mark.requires_tool("qemu-img")

DATA = random.Random(3).randbytes(300_000) + bytes(200_000) + b"end"


@pytest.fixture
def images(twins: Twins) -> Twins:
    """``raw`` and ``qcow2`` with one content."""
    twins.write("raw", DATA)
    twins.prepare("qemu-img convert -f raw -O qcow2 raw qcow2")
    return twins


@pytest.mark.parametrize("format", ["raw", "qcow2"])
@pytest.mark.parametrize(
    "operands",
    [
        "",
        "bs=1M",
        "bs=1M count=1",
        "bs=1k count=17 skip=3",
        "bs=1000 skip=7",
        "bs=1000 count=9 skip=2",
        "count=0",
        "bs=4k count=3 skip=3",
        "bs=4k count=3 skip=4",
        "bs=4k skip=1000",
        "bs=64k skip=1",
        "skip=1k",
        "count=1G bs=1G",
    ],
)
def test_part_is_copied_as_the_real_tool_copies_it(images: Twins, operands: str, format: str) -> None:
    for source in ("raw", "qcow2"):
        images.same(f"dd -f {source} -O {format} if={source} of=target {operands}")
        if format == "raw":
            assert (images.ours / "target").read_bytes() == (images.real / "target").read_bytes()
        else:
            pair = images.real / "target", images.ours / "target"
            done = subprocess.run(["qemu-img", "compare", "-s", *pair], capture_output=True, text=True, timeout=60)
            assert (done.returncode, done.stdout) == (0, "Images are identical.\n")


@pytest.mark.parametrize(
    "command",
    [
        "dd",
        "dd if=raw",
        "dd of=target",
        "dd if=nothing of=target",
        "dd -f nothing if=raw of=target",
        "dd -O nothing if=raw of=target",
        "dd -f qcow2 if=raw of=target",
        "dd if=raw of=missing/target",
        "dd if=raw of=target bs=0",
        "dd if=raw of=target bs=3G",
        "dd if=raw of=target bs=x",
        "dd if=raw of=target count=-1",
        "dd if=raw of=target skip=x",
        "dd if=raw of=target seek=1",
        "dd if=raw of=target nothing",
        "dd -z if=raw of=target",
        "dd --image-opts -f raw if=driver=raw,file.filename=raw of=target",
    ],
)
def test_mistakes_are_told_as_the_real_tool_does(images: Twins, command: str) -> None:
    images.refused(command)


def test_source_is_no_target(images: Twins) -> None:
    words = ["dd", "-f", "qcow2", "-O", "raw", "if=qcow2", "of=qcow2"]
    before = (images.ours / "qcow2").read_bytes()
    expected, found = images.run_real(words), images.run_ours(words)
    assert found.code == expected.code == 1
    assert found.err.startswith(expected.err)
    assert (images.ours / "qcow2").read_bytes() == before
