"""Events that are counted of a running machine, and those that cannot be: root's libvirtd and ours."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from support import hosteld, libvirtd_system
from support.virsh import real_lines

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.requires_tool("libvirtd"),
    pytest.mark.requires_tool("virsh"),
    pytest.mark.skipif(os.geteuid() != 0, reason="what the kernel counts is root's to know"),
]
DOMAIN: Final = (
    "<domain type='qemu'><name>NAME</name><memory unit='MiB'>16</memory><os><type machine='pc'>hvm</type></os><perf>"
    "<event name='EVENT' enabled='yes'/><event name='cpu_clock' enabled='no'/></perf>"
    "<devices><emulator>/usr/bin/qemu-system-x86_64</emulator></devices></domain>"
)
LINES: Final = """
perf w; start w --paused; perf w; domstats w --perf; perf w --enable page_faults,context_switches; domstats w --perf
perf w --live; perf w --config; dumpxml w --xpath /domain/perf; dumpxml w --inactive --xpath /domain/perf
perf w --disable page_faults,emulation_faults; domstats w --perf; dumpxml w --xpath /domain/perf
perf w --enable cmt; perf w --enable nosuch; perf w --enable cpu_clock --disable cpu_clock; perf w --live --config
perf w --enable page_faults_min --live --config; dumpxml w --inactive --xpath /domain/perf; domstats w --perf
perf w --enable page_faults_min,mbml; dumpxml w --xpath /domain/perf; domstats w --perf --enforce; destroy w
domstats w --perf; perf w --enable task_clock --live; start uncounted; domstate uncounted; perf uncounted
"""


@pytest.fixture(scope="module")
def uris() -> Iterator[tuple[str, str]]:
    with hosteld.process() as ours, libvirtd_system.running(drivers=("qemu",)) as theirs:
        yield ours.uri("qemu:///session"), theirs


def _answers(uri: str, folder: Path) -> list[tuple[str, ...]]:
    lines = [f"define {folder}/{name}.xml" for name in ("w", "uncounted")]
    lines += [line.strip() for row in LINES.strip().splitlines() for line in row.split(";")]
    found = real_lines(uri, lines)
    assert len(found) == len(lines)
    neutral = [tuple(re.sub(r"(perf\.\w+)=\d+", r"\1", text) for text in said) for said in found]
    return list(zip(lines, *zip(*neutral, strict=True), strict=True))


def test_events_are_counted_and_refused_as_by_libvirt(uris: tuple[str, str], tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for name, event in (("w", "task_clock"), ("uncounted", "mbmt")):
        (tmp_path / f"{name}.xml").write_text(DOMAIN.replace("NAME", name).replace("EVENT", event))
    with ThreadPoolExecutor(2) as pool:
        ours, theirs = pool.map(lambda uri: _answers(uri, tmp_path), uris)
    assert ours == theirs
    assert any("perf.task_clock" in text for _, text, _ in ours)
