"""qemu-img commit beside the real one: messages, and where the data is afterwards."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from support.twins import Twins

pytestmark = [pytest.mark.requires_tool("qemu-img"), pytest.mark.requires_tool("qemu-io")]


def real(folder: Path, *words: object) -> str:
    done = subprocess.run(["qemu-img", *map(str, words)], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def chain(twins: Twins, *, base: str = "qcow2", options: str = "") -> None:
    """``top`` (6M) on ``middle`` (5M) on ``base`` (4M); ``flat`` is what top reads as."""
    twins.prepare(f"qemu-img create -q -f {base} base 4M")
    twins.prepare(f"qemu-io -f {base} -c 'write -q -P 1 0 3M' base")
    twins.prepare(f"qemu-img create -q -f qcow2 -b base -F {base} middle 5M")
    twins.prepare("qemu-io -f qcow2 -c 'write -q -P 2 300k 100k' -c 'write -q -P 3 4608k 64k' middle")
    twins.prepare(f"qemu-img create -q -f qcow2 {options} -b middle -F qcow2 top 6M")
    twins.prepare(
        "qemu-io -f qcow2 -c 'write -q -P 4 2500k 90k' -c 'write -q -z 64k 200k' -c 'write -q -P 5 6143k 1k' top"
    )
    twins.prepare("qemu-img convert -O raw top flat")


def same_as(folder: Path, image: str, format: str = "qcow2") -> None:
    real(folder, "compare", "-f", format, "-F", "raw", image, "flat")
    if format == "qcow2":
        assert "No errors were found" in real(folder, "check", "-f", "qcow2", image)


def allocated(folder: Path, image: str) -> int:
    """Bytes that the top layer of an image holds."""
    extents = json.loads(real(folder, "map", "--output=json", image))
    return sum(extent["length"] for extent in extents if extent["depth"] == 0 and extent["present"])


@pytest.mark.parametrize("options", ["", "-o cluster_size=4k", "-o compat=0.10", "-o extended_l2=on"])
def test_backing_file_gets_the_data_and_the_overlay_is_emptied(twins: Twins, options: str) -> None:
    chain(twins, options=options)
    assert twins.same("commit top").out == "Image committed.\n"
    for folder in (twins.real, twins.ours):
        same_as(folder, "middle")
        same_as(folder, "top")
        assert allocated(folder, "top") == 0
    sizes = [(folder / "top").stat().st_size for folder in (twins.real, twins.ours)]
    assert sizes[1] <= sizes[0]


@pytest.mark.parametrize("flags", ["-d", "-b middle", "-d -q", "-t none", "-t unsafe -f qcow2", "-r 100M"])
def test_overlay_keeps_its_data_where_that_is_asked_for(twins: Twins, flags: str) -> None:
    chain(twins)
    twins.same(f"commit {flags} top")
    same_as(twins.ours, "middle")
    same_as(twins.ours, "top")
    assert allocated(twins.ours, "top") == allocated(twins.real, "top")


@pytest.mark.parametrize("base", ["qcow2", "raw"])
def test_all_above_a_base_further_down_is_written_into_it(twins: Twins, base: str) -> None:
    chain(twins, base=base)
    twins.same("commit -b base top")
    for folder in (twins.real, twins.ours):
        same_as(folder, "base", base)
    assert twins.virtual_sizes("base", base) == (6 << 20, 6 << 20)


def test_progress_begins_and_ends_as_the_real_one(twins: Twins) -> None:
    chain(twins)
    expected, found = twins.run_real(["commit", "-p", "top"]), twins.run_ours(["commit", "-p", "top"])
    for result in (expected, found):
        assert result.out.startswith("    (0.00/100%)\r")
        assert result.out.endswith("    (100.00/100%)\r\nImage committed.\n")


@pytest.mark.parametrize(
    "command",
    [
        "commit",
        "commit top top",
        "commit nothing",
        "commit base",
        "commit -f raw flat",
        "commit flat",
        "commit -b nothing top",
        "commit -b top top",
        "commit -b top --image-opts driver=qcow2,file.filename=top",
        "commit -t nothing top",
        "commit -r x top",
        "commit -f nothing top",
        "commit --image-opts -f qcow2 driver=qcow2,file.filename=top",
        "commit -z top",
        "commit -p -f raw flat",
    ],
)
def test_mistakes_are_told_as_the_real_tool_does(twins: Twins, command: str) -> None:
    chain(twins)
    twins.refused(command)


def test_image_in_use_is_refused(twins: Twins) -> None:
    chain(twins)
    with subprocess.Popen(
        ["qemu-io", "-f", "qcow2", str(twins.ours / "top")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdin.write(b"length\n")
        holder.stdin.flush()
        holder.stdout.readline()
        found = twins.run_ours(["commit", "top"])
        holder.stdin.close()
        holder.wait(10)
    assert found.code == 1
    assert found.err.startswith("qemu-img: Could not open 'top': Failed to get \"write\" lock\n")
