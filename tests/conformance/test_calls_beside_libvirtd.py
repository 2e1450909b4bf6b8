"""Calls on machines that run, that are off and that have no definition, with each combination of flags.

Answers, errors, what changes in both documents, and events are held against libvirtd's.
"""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest

from support import hosteld, libvirtd
from support.beside import twin_homes

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.requires_tool("virt-install"),
    pytest.mark.requires_tool("libvirtd"),
    pytest.mark.requires_tool("qemu-system-x86_64"),
]
PROGRAM: Final = Path(__file__).with_name("calls_program.py")
MEMORY: Final = """
each(lambda d, f: d.setMaxMemory(50000), [0])
each(lambda d, f: d.setMemoryFlags(50000, f | 4))
each(lambda d, f: d.setMemoryFlags(500000, f | 4), [0, 2], [whole])
each(lambda d, f: d.setMemoryFlags(50000, f | 4), [0, 2], [whole])
each(lambda d, f: d.setMemoryFlags(40000, f))
each(lambda d, f: d.setMemoryFlags(90000, f))
each(lambda d, f: d.attachDeviceFlags(MODULE, f), [2], [run, off])
each(lambda d, f: d.detachDeviceAlias('ua-m', f), [2], [run, off])
each(lambda d, f: d.updateDeviceFlags(on_demand(d, 48), f))
each(lambda d, f: d.updateDeviceFlags(on_demand(d, 256), f))
each(lambda d, f: d.updateDeviceFlags(on_demand(d, 5), f))
"""
PROCESSORS: Final = """
each(lambda d, f: d.setVcpusFlags(6, f | 4), [1, 3])
each(lambda d, f: d.setVcpu('0', 0, f))
each(lambda d, f: d.setVcpu('3', 1, f))
each(lambda d, f: d.setVcpusFlags(1, f), [1])
each(lambda d, f: d.vcpusFlags(f))
each(lambda d, f: d.pinIOThread(9, (True,), f))
each(lambda d, f: d.pinIOThread(1, (True, False), f))
each(lambda d, f: d.setIOThreadParams(1, {'poll_max_ns': 100}, f))
each(lambda d, f: d.addIOThread(5, f))
each(lambda d, f: d.delIOThread(5, f))
each(lambda d, f: d.pinEmulator((True, False), f))
each(lambda d, f: d.pinVcpuFlags(1, (True, False), f))
each(lambda d, f: d.vcpuPinInfo(f))
each(lambda d, f: d.setGuestVcpus('1', 1, f), [0], [run])
"""
DISKS: Final = """
each(lambda d, f: d.setBlockIoTune('vda', {'total_bytes_sec': 100000, 'total_bytes_sec_max': 100000}, f))
each(lambda d, f: sorted(d.blockIoTune('vda', f).items(), key=str)[1:])
each(lambda d, f: d.setBlockIoTune('vda', {'total_bytes_sec_max': 1000}, f), [1])
each(lambda d, f: d.setBlockIoTune('vda', {'total_bytes_sec': 0}, f), [1])
each(lambda d, f: d.setBlockIoTune('vda', {'read_iops_sec_max': 10}, f), [1])
each(lambda d, f: d.setBlockIoTune('vda', {'total_iops_sec': 1 << 60}, f))
each(lambda d, f: d.blockResize('vda', 1 << 54, f), [0])
each(lambda d, f: d.blockResize('vda', 4096, f), [0])
each(lambda d, f: d.blockPeek('vda', 0, 4, f), [0])
"""
REST: Final = """
each(lambda d, f: d.screenshot(c.newStream(), f), [0])
each(lambda d, f: d.hostname(f), [0, 2, 3])
each(lambda d, f: d.setMetadata(2, '<a>x', 'k', 'http://u', f))
each(lambda d, f: d.setMetadata(2, '<a>x</a>', 'k', 'http://u', f))
each(lambda d, f: d.setMetadata(2, None, None, 'http://u', f))
each(lambda d, f: d.setLifecycleAction(0, 1, f))
each(lambda d, f: d.rename('off', f), [0])
each(lambda d, f: d.rename('whole', f), [0], [off])
"""
# Documents are not compared here: sockets, terminals and the processor that QEMU made come and go with the machine.
LIVES: Final = """
each(lambda d, f: d.save(f'{folder}/saved'), [0], [run])
each(lambda d, f: c.restore(f'{folder}/saved'), [0], [run])
each(lambda d, f: d.undefine(), [0], [run])
each(lambda d, f: bool(c.defineXML(document('run', 1))), [0], [run])
"""
LINES: Final = f"{MEMORY}{PROCESSORS}{DISKS}{REST}{LIVES}".replace("\n\n", "\n").strip()


def told(uri: str, home: Path) -> list[Any]:
    done = subprocess.run(
        [hosteld.PYTHON, str(PROGRAM), uri, str(home)],
        input=LINES, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout.replace(str(home), "HOME")))


def fill(home: Path) -> None:
    for name in ("run", "off", "tran"):
        (home / f"{name}.raw").write_bytes(bytes(1 << 20))


@pytest.fixture
def homes() -> Iterator[tuple[Path, Path]]:
    with twin_homes("ca-", fill) as found:
        yield found


def unlike(mine: list[Any], real: list[Any]) -> list[str]:
    """What is otherwise of one call: answers, though our errors may say more; then events, and changes of documents."""
    found = []
    for who, answer in real[1].items():
        error = answer.partition("\n")[0] if answer.startswith("error") else None  # below it is where XML ends
        if mine[1][who] != answer and not (error and mine[1][who].startswith(error)):
            found.append(f"{who}: {mine[1][who]} | {answer}")
    compared = 3 if real[0] in LIVES else 4
    for ours, theirs in zip(mine[2:compared], real[2:compared], strict=True):
        found += [f"only here: {line}" for line in (Counter(ours) - Counter(theirs)).elements()]
        found += [f"only there: {line}" for line in (Counter(theirs) - Counter(ours)).elements()]
    return [f"{real[0]}: {line}" for line in found]


def test_calls_answer_and_change_what_libvirts_do(homes: tuple[Path, Path]) -> None:
    with libvirtd.running() as theirs, hosteld.process() as ours, ThreadPoolExecutor(2) as pool:
        theirs.skip_unless_recorded()
        found, expected = pool.map(told, (ours.uri("qemu:///session"), theirs.uri), homes)
    assert len(found) == len(expected) == len(LINES.splitlines()) + 1
    differing = [line for mine, real in zip(found, expected, strict=True) for line in unlike(mine, real)]
    assert not differing, "\n".join(differing)
