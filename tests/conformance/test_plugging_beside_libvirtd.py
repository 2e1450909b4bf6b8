"""Devices of every kind, attached, updated and detached in running machines and definitions, beside libvirtd."""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from support import hosteld, libvirtd
from support.plugging import lines
from support.virsh import real_lines

pytestmark = [pytest.mark.qemu, pytest.mark.requires_tool("libvirtd"), pytest.mark.requires_tool("virsh")]

_OLD: Final = "ivshmem device is not supported with this QEMU binary"
# Where we refuse as libvirt does, and for another reason of those that there are; by the line, how libvirt's begins.
OTHER: Final = {
    "attach-device serial-as-the-first --live": "internal error: unable to execute QEMU command 'device_add'",
    "update-device memory --live": "unsupported configuration: memory '(null)' not found",
    "attach-device old-shmem --live": f"unsupported configuration: {_OLD}",
    "update-device old-shmem --config": f"unsupported configuration: {_OLD}",
    "update-device old-shmem --live": f"unsupported configuration: {_OLD}",
    "attach-device cdrom-on-USB --live": "internal error: argument key 'filename' must not have null value",
    "update-device update-boot-order-of-an-interface --live": "unsupported configuration: per-device boot elements",
    "update-device update-MTU --live": "unsupported configuration: setting MTU on interface type user",
}


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A directory that libvirtd's user may read and write as well."""
    path = Path(tempfile.mkdtemp(prefix="pl-"))
    path.chmod(0o777)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def port() -> Iterator[int]:
    """A port that nobody has; also shared memory is named for it, which nobody else removes."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        number = int(held.getsockname()[1])
    yield number
    Path(f"/dev/shm/hd-{number}").unlink(missing_ok=True)


def complaint(text: str) -> str:
    """The last line that virsh complains in; empty where it does not."""
    return (text.strip().splitlines() or [""])[-1].removeprefix("error: ")


def test_devices_come_go_and_change_as_with_libvirt(home: Path, port: int) -> None:
    said = lines(home, port)
    with libvirtd.running() as theirs:
        theirs.skip_unless_recorded()
        expected = [complaint(text) for _, text in real_lines(theirs.uri, said)]
        theirs.virsh("destroy", "guest")
    with hosteld.process() as ours:
        uri = ours.uri("qemu:///session")
        found = [complaint(text) for _, text in real_lines(uri, said)]
        real_lines(uri, ["destroy guest", "undefine guest"])
    assert len(found) == len(expected) == len(said)
    differing = []
    for line, mine, real in zip(said, found, expected, strict=True):
        short = line.replace(f"guest {home}/", "").replace(".xml", "")
        agrees = mine.startswith(real) and bool(mine) == bool(real)
        if short in OTHER:
            agrees = bool(mine) and real.startswith(OTHER[short]) and not mine.startswith(real)
        if not agrees:
            differing.append((short, real, mine))
    assert not differing, "\n".join(f"{short}\n    {real}\n    {mine}" for short, real, mine in differing)
