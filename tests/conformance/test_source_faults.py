"""Sources that cannot be read, through ``blkdebug``: the same message, exit code and target as with real ``qemu-img``.

A target that the real tool leaves half full ours takes away, or leaves empty where it was there before.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.twins import Twins

pytestmark = [pytest.mark.requires_tool("qemu-img"), pytest.mark.requires_tool("qemu-io")]
READS = {"event": "none", "iotype": "read", "errno": 5}
# What fails; nothing of an image can be opened where all reads do.
FAULTS: dict[str, dict[str, Any]] = {
    "all reads": {**READS, "once": False},
    "a sector": {**READS, "once": False, "sector": 1300},
    "block status": {"event": "none", "iotype": "block-status", "errno": 5, "once": False},
    "L2 tables": {"event": "l2_load", "errno": 5, "once": False},
}
COMMANDS = {
    "convert": "convert {source} -O raw made",
    "convert, compressed": "convert -c -m 1 {source} -O qcow2 made",
    "convert, salvaged": "convert --salvage -m 1 {source} -O qcow2 made",
    "convert into": "convert -n {source} -O raw target",
    "compare": "compare {source} raw",
    "compare strictly": "compare -s raw {source}",
    "measure": "measure -O qcow2 {source}",
    "dd": "dd if={source} of=made -O raw bs=64k",
    "rebase": "rebase -b {source} -F {format} overlay",
}
CASES = [
    (command, format, fault)
    for command in COMMANDS
    for format in ("raw", "qcow2")
    for fault in FAULTS
    if format == "qcow2" or fault != "L2 tables"
    # There the real tool reads, and names, a cluster at a time, and ours up to 2 MiB.
    if (command, fault) != ("convert, compressed", "a sector")
]


@pytest.fixture
def sources(twins: Twins) -> Twins:
    """A raw and a qcow2 image with one piece of data, an overlay of another, and a target that is there."""
    for format in ("raw", "qcow2"):
        twins.prepare(f"qemu-img create -q -f {format} {format} 1M")
        twins.prepare(f"qemu-io -f {format} -c 'write -P 7 512k 192k' {format}")
    twins.prepare("qemu-img create -q -f qcow2 empty 1M")
    twins.prepare("qemu-img create -q -f qcow2 -b empty -F qcow2 overlay")
    twins.prepare("qemu-io -f qcow2 -c 'write -P 3 64k 64k' overlay")
    twins.truncate("target", 1 << 20)
    return twins


def options(format: str, fault: str) -> str:
    """The name of a source of which something cannot be read."""
    file = {"driver": "blkdebug", "image": {"driver": "file", "filename": format}, "inject-error": [FAULTS[fault]]}
    return "json:" + json.dumps({"driver": format, "file": file}, separators=(",", ":"))


@pytest.mark.parametrize("sector", [0, 1, 2, 127])
@pytest.mark.parametrize("size", ["512", "64k"])
@pytest.mark.parametrize("has_long_name", [False, True])
def test_a_bad_sector_of_the_first_cluster_keeps_nobody_from_the_rest(
    twins: Twins, has_long_name: bool, size: str, sector: int
) -> None:
    base = "below" * 100 if has_long_name and size == "64k" else "below"
    twins.prepare(f"qemu-img create -q -f qcow2 -u -o cluster_size={size} -b {base} -F qcow2 image 1M")
    fault = {**READS, "once": False, "sector": sector}
    file = {"driver": "blkdebug", "image": {"driver": "file", "filename": "image"}, "inject-error": [fault]}
    source = "json:" + json.dumps({"driver": "qcow2", "file": file}, separators=(",", ":"))
    expected, found = (run(["qemu-img", "info", source]) for run in (twins.run_real, twins.run_ours))
    assert (found.code, found.out, _unnamed(found.err)) == (expected.code, expected.out, _unnamed(expected.err))


@pytest.mark.parametrize(("command", "format", "fault"), CASES)
def test_what_cannot_be_read_is_told_as_by_qemu(sources: Twins, command: str, format: str, fault: str) -> None:
    source = options(format, fault)
    words = [word.format(source=source, format=format) for word in COMMANDS[command].split()]
    expected, found = (run(words) for run in (sources.run_real, sources.run_ours))
    # An image that is not one file is named by its options, which the two write in another order.
    lines = [_unnamed(each) for each in found.err.splitlines()]
    if command == "rebase":
        lines = [each for each in lines if each != "Input/output error"]  # the reason, which QEMU leaves out
    real_lines = _once(expected.err)
    if command == "convert, salvaged":  # several requests at once
        lines, real_lines = sorted(lines), sorted(real_lines)
    assert lines == real_lines
    assert (found.code, found.out) == (expected.code, expected.out)
    # What the overlay stands on now may not be readable.
    sources.prepare("qemu-img rebase -u -b empty -F qcow2 overlay")
    for name in ("made", "overlay"):
        ours, real = sources.ours / name, sources.real / name
        if found.code == 0 and real.exists():
            sources.prepare(f"qemu-img convert -O raw {name} read-{name}")
            assert (sources.ours / f"read-{name}").read_bytes() == (sources.real / f"read-{name}").read_bytes()
        elif name == "made":
            assert not ours.exists()
    for name in ("raw", "qcow2"):
        assert (sources.ours / name).read_bytes() == (sources.real / name).read_bytes()


def _unnamed(line: str) -> str:
    start, end = line.find("json:{"), line.rfind("}")
    return line if start < 0 else line[:start] + "NAME" + line[end + 1 :]


def _once(text: str) -> list[str]:
    """The lines of the real tool, which goes on with requests that it has begun: ours stops at the first."""
    lines = [_unnamed(line) for line in text.splitlines()]
    stopped = [each for each in lines if each.startswith("qemu-img: error while reading at byte")]
    return [each for each in lines if each not in stopped[1:]]
