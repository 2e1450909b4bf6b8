"""The document that another host takes (``dumpxml --migratable``): libvirt's daemon and ours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from support.beside import differences, twin_homes

pytestmark = [pytest.mark.qemu, pytest.mark.requires_tool("libvirtd"), pytest.mark.requires_tool("virsh")]
_START: Final = (
    "<domain type='qemu'><name>NAME</name><memory unit='MiB'>32</memory>"
    "<os><type arch='x86_64' machine='MACHINE'>hvm</type></os>CPU<devices>"
    "<emulator>/usr/bin/qemu-system-x86_64</emulator>"
)
_COMMON: Final = (
    "<interface type='user'><mac address='52:54:00:01:02:03'/></interface><serial type='pty'/><console type='pty'/>"
    "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"
    "<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>"
)


def _document(name: str, machine: str, devices: str, cpu: str = "") -> str:
    start = _START.replace("NAME", name).replace("MACHINE", machine).replace("CPU", cpu)
    return f"{start}{_COMMON}{devices}</devices></domain>"


_ICELAKE: Final = "<cpu mode='custom'><model>Icelake-Server</model></cpu>"
_SOCKET: Final = "<graphics type='vnc' socket='HOME/vnc'/>"
DOCUMENTS: Final = {
    "conventional": _document("conventional", "pc", "<graphics type='vnc' passwd='p' websocket='-1'/><video/>"),
    "express": _document("express", "q35", "<graphics type='vnc'><listen type='socket'/></graphics>", _ICELAKE),
    "told": _document(
        "told", "pc",
        f"<controller type='usb' model='ich9-ehci1'/><controller type='pci' model='pci-root'><alias name='ua-root'/>"
        f"</controller><input type='keyboard' bus='usb'/>{_SOCKET}<video><model type='qxl'/></video>"
        "<audio id='1' type='file' path='HOME/sound'/>",
    ),
    "spice": _document(
        "spice", "pc",
        "<controller type='usb'><alias name='ua-usb'/></controller><graphics type='spice'>"
        "<listen type='address' address='127.0.0.1'/></graphics>",
    ),
    "unheard": _document("unheard", "q35", "<graphics type='spice'><listen type='none'/></graphics>"),
    "bare": _document("bare", "pc", "<controller type='usb' model='none'/><controller type='pci' model='pci-bridge'/>"),
}  # fmt: skip
_RUNNING: Final = ("conventional", "told", "spice", "bare")
LINES: Final = "\n".join(
    [f"define HOME/{name}.xml; dumpxml {name} --migratable" for name in DOCUMENTS]
    + [f"start {name} --paused; dumpxml {name} --migratable --xpath /domain/devices" for name in _RUNNING]
    + [f"dumpxml {name} --migratable --inactive" for name in _RUNNING]
)
# What is random, where sockets are, and what of QEMU's or of this run's is told.
_PASSING: Final = re.compile(r"(<uuid>|path='|socket='|port='|tty=')[^<']*|/>|>\n *</graphics>")


@pytest.fixture
def homes() -> Iterator[tuple[Path, Path]]:
    def fill(home: Path) -> None:
        for name, text in DOCUMENTS.items():
            (home / f"{name}.xml").write_text(text.replace("HOME", str(home)))

    with twin_homes("mi-", fill) as found:
        yield found


def test_a_document_for_another_host_is_libvirts(homes: tuple[Path, Path]) -> None:
    found = differences(LINES, homes, _PASSING)
    assert not found, "\n".join(found)
