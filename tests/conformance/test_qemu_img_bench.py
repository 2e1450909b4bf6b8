"""qemu-img bench beside the real one: what is printed but for the time, and exit codes."""

from __future__ import annotations

import re

import pytest

from support.twins import Result, Twins

pytestmark = pytest.mark.requires_tool("qemu-img")


@pytest.fixture
def images(twins: Twins) -> Twins:
    """``raw`` and ``q``, of 1 MiB."""
    twins.truncate("raw", 1 << 20)
    twins.prepare("qemu-img create -q -f qcow2 q 1M")
    return twins


def timeless(result: Result) -> Result:
    """Without the seconds."""
    return result._replace(out=re.sub(r"\d+\.\d{3} seconds", "N seconds", result.out))


@pytest.mark.parametrize(
    "command",
    [
        "-f raw -c 100 raw",
        "-f raw -c 0x10 -d 010 -s 512 raw",
        "-f raw -c 0 raw",
        "-f raw -c 100 -d 1 -o 4k -S 8k -s 1k raw",
        "-f raw -c 10 -s 0 raw",
        "-q -c 100 q",
        "-U -c 100 q",
        "-c 100 -t none -n -i native q",
        "-c 100 --image-opts driver=qcow2,file.filename=q",
        "-w -c 100 --pattern 7 -f raw raw",
        "-w -c 100 -d 4 --flush-interval=10 q",
        "-w -c 100 -d 4 --flush-interval=10 --no-drain --pattern=0xff q",
        "-w -c 10 raw",
    ],
)
def test_runs_are_told_and_done_as_by_qemu(images: Twins, command: str) -> None:
    words = ["bench", *command.split()]
    real, ours = timeless(images.run_real(words)), timeless(images.run_ours(words))
    assert (ours.code, ours) == (0, real)
    if "raw" in command:
        assert (images.ours / "raw").read_bytes() == (images.real / "raw").read_bytes()
    assert images.same("compare -f qcow2 -F qcow2 q q").code == 0


@pytest.mark.parametrize(
    "command",
    [
        "",
        "raw q",
        "-c x raw",
        "-c -1 raw",
        "-d x raw",
        "-s x raw",
        "-s 3G raw",
        "-S x raw",
        "-o x raw",
        "--pattern 256 raw",
        "--pattern x raw",
        "-w --flush-interval=x raw",
        "--flush-interval=100 raw",
        "-w --flush-interval=10 raw",
        "-t nonsense raw",
        "-i nonsense raw",
        "-f raw -n raw",
        "-f raw -i native raw",
        "-U -w q",
        "missing",
        "-f nonsense raw",
        "-f raw -c 10 -o 1M raw",
        "-f raw -c 10 -s 2M raw",
        "-f raw -c 1000 -s 100k raw",
    ],
)
def test_mistakes_are_refused_as_by_qemu(images: Twins, command: str) -> None:
    images.refused(f"bench {command}")
