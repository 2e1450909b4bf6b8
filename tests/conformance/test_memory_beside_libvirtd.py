"""How much memory a guest has that does not answer its balloon: what libvirt's daemon says of it, and ours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from support.beside import differences, twin_homes

pytestmark = [pytest.mark.qemu, pytest.mark.requires_tool("libvirtd"), pytest.mark.requires_tool("virsh")]
_ON_DEMAND: Final = (
    "<memory model='virtio-mem'><target><size unit='MiB'>64</size><node>0</node><block unit='MiB'>2</block>"
    "<requested unit='MiB'>16</requested></target></memory>"
)
_DOMAIN: Final = (
    "<domain type='qemu'><name>w</name><maxMemory slots='4' unit='MiB'>512</maxMemory><memory unit='MiB'>64</memory>"
    "<currentMemory unit='MiB'>48</currentMemory>"
    "<os><type arch='x86_64' machine='pc'>hvm</type></os><features><acpi/></features>"
    "<cpu><numa><cell id='0' cpus='0' memory='64' unit='MiB'/></numa></cpu>"
    "<devices><controller type='usb' model='none'/>MEMORY</devices></domain>"
)
_BALLOON: Final = "<memballoon model='virtio'><stats period='3'/></memballoon>"
FILES: Final = {
    "domain.xml": _DOMAIN.replace("MEMORY", _BALLOON + _ON_DEMAND),
    "none.xml": _DOMAIN.replace("MEMORY", "<memballoon model='none'/>"),
    "module.xml": "<memory model='dimm'><target><size unit='MiB'>128</size><node>0</node></target></memory>",
}
_SEEN: Final = "dumpxml w --xpath '//memory|//currentMemory|//memballoon'; domstats w --balloon"
_ASK: Final = '{"execute":"qom-get","arguments":{"path":"/machine/peripheral/balloon0","property":"POLLING"}}'
_POLLING: Final = f"qemu-monitor-command w '{_ASK.replace('POLLING', 'guest-stats-polling-interval')}'"
LINES: Final = f"""
define HOME/domain.xml; start w; {_SEEN}; {_POLLING}
setmem w 40M --live; {_SEEN}; setmem w 80M --live; setmem w 30M --config; dumpxml w --xpath '//currentMemory' --inactive
attach-device w HOME/module.xml --live; {_SEEN}; dommemstat w --period 5 --live; {_POLLING}
managedsave w; managedsave-dumpxml w --xpath //currentMemory; start w; {_SEEN}; destroy w; undefine w
create HOME/none.xml; {_SEEN}; setmem w 40M --live
"""
_PASSING: Final = re.compile(r'(balloon\.rss=)\d+|,"id":"libvirt-\d+"')


def fill(home: Path) -> None:
    for name, text in FILES.items():
        (home / name).write_text(text)


@pytest.fixture
def homes() -> Iterator[tuple[Path, Path]]:
    with twin_homes("mb-", fill) as found:
        yield found


def test_memory_is_what_the_guest_has_and_not_what_was_asked(homes: tuple[Path, Path]) -> None:
    found = differences(LINES, homes, _PASSING)
    assert not found, "\n".join(found)
