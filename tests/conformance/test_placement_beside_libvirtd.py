"""Where threads and memory go when that is left to numad: root's libvirtd and ours."""

from __future__ import annotations

import os
import re
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
    pytest.mark.requires_tool("numad"),
    pytest.mark.skipif(os.geteuid() != 0, reason="numad is root's"),
]
_DOMAIN: Final = (
    "<domain type='qemu'><name>w</name><maxMemory slots='4' unit='MiB'>512</maxMemory><memory unit='MiB'>64</memory>"
    "VCPU<iothreads>1</iothreads><os><type arch='x86_64' machine='pc'>hvm</type></os><features><acpi/></features>"
    "<cpu><numa><cell id='0' cpus='0-1' memory='64' unit='MiB'/></numa></cpu>"
    "<devices><emulator>/usr/bin/qemu-system-x86_64</emulator><controller type='usb' model='none'/></devices></domain>"
)
_MEMORY: Final = "<numatune><memory mode='strict' placement='auto'/></numatune>"
_FILES: Final = {
    "both.xml": _DOMAIN.replace("VCPU", "<vcpu placement='auto' current='1'>2</vcpu>" + _MEMORY),
    "memory.xml": _DOMAIN.replace("VCPU", "<vcpu cpuset='0'>2</vcpu>" + _MEMORY),
    "module.xml": "<memory model='dimm'><target><size unit='MiB'>128</size><node>0</node></target></memory>",
}
_SEEN: Final = "dumpxml w --xpath '//vcpu|//numatune'; vcpupin w; emulatorpin w; iothreadinfo w; numatune w"
_NODES: Final = "qemu-monitor-command w --hmp 'info memdev'"
_LINES: Final = f"""
define HOME/both.xml; {_SEEN}; start w; {_SEEN}; {_NODES}; setvcpus w 2; vcpupin w; vcpupin w 1 0; {_SEEN}
attach-device w HOME/module.xml --live; {_NODES}; iothreadadd w 2; iothreadinfo w; dumpxml w --inactive --xpath //vcpu
destroy w; {_SEEN}; undefine w
create HOME/memory.xml; {_SEEN}; {_NODES}; destroy w
"""


def _answers(uri: str, folder: Path) -> list[tuple[str, ...]]:
    lines = [line.strip() for row in _LINES.strip().splitlines() for line in row.split(";")]
    found = real_lines(uri, [line.replace("HOME", str(folder)) for line in lines])
    assert len(found) == len(lines)
    return list(zip(lines, *zip(*found, strict=True), strict=True))


def test_numad_is_asked_and_heeded_as_by_libvirt(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for name, text in _FILES.items():
        (tmp_path / name).write_text(text)
    with hosteld.process() as ours, libvirtd_system.running(drivers=("qemu",)) as theirs, ThreadPoolExecutor(2) as pool:
        mine, real = pool.map(lambda uri: _answers(uri, tmp_path), (ours.uri("qemu:///session"), theirs))
    assert mine == real
    assert any(re.search("host nodes: 0", text) for _, text, _ in mine)
