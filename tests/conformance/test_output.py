"""What guests and QEMU write into files: bounded by real virtlogd for libvirt and for ours, and by ours alone."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from hostel import guest
from support import hosteld, libvirtd_system
from support.locks import state, virsh

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.requires_tool("virsh"),
    pytest.mark.requires_tool("libvirtd"),
    pytest.mark.requires_tool("virtlogd"),
    pytest.mark.skipif(os.getuid() != 0, reason="libvirtd of the system is root's"),
]
SIZE = 60  # bytes of a file
BACKUPS = 2


class Peer(NamedTuple):
    """A daemon.

    Attributes:
        uri: of it.
        logs: where it has what its machines' processes say.
    """

    uri: str
    logs: Path


@pytest.fixture(scope="module")
def peers() -> Iterator[dict[str, Peer]]:
    """Libvirt's daemon and ours under virtlogd, and ours without."""
    with tempfile.TemporaryDirectory(prefix="lo-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        conf = 'stdio_handler = "logd"\n'
        with libvirtd_system.apart(drivers=("qemu",), qemu_conf=conf) as theirs:
            for kind in ("logd", "own"):
                (folder / kind / "state/config").mkdir(parents=True)
            bounds = f"max_size = {SIZE}\nmax_backups = {BACKUPS}\n"
            (folder / "logd/state/config/qemu.conf").write_text(conf)
            (folder / "own/state/config/virtlogd.conf").write_text(bounds)
            (folder / "conf").write_text(bounds)
            daemon = subprocess.Popen(
                [*theirs.inside, "virtlogd", "--config", f"{folder}/conf", "--pid-file", f"{folder}/pid"],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            try:
                with (
                    hosteld.process(directory=folder / "logd", wrapper=theirs.inside) as ours,
                    hosteld.process(directory=folder / "own", wrapper=theirs.inside) as alone,
                ):
                    yield {
                        "theirs": Peer(theirs.uri, theirs.directory / "log/libvirt/qemu"),
                        "ours": Peer(ours.uri("qemu:///session"), folder / "logd/state/cache/qemu/log"),
                        "alone": Peer(alone.uri("qemu:///session"), folder / "own/state/cache/qemu/log"),
                    }
            finally:
                daemon.kill()
                daemon.wait(20)


def document(folder: Path, name: str, devices: str) -> str:
    return (
        f"<domain type='qemu'><name>{name}</name><memory unit='MiB'>32</memory>"
        "<os><type arch='x86_64' machine='pc'>hvm</type></os><features><acpi/></features><devices>"
        f"<emulator>/usr/bin/qemu-system-x86_64</emulator>{devices}"
        f"<serial type='file'><source path='{folder}/said'/><log file='{folder}/log' append='on'/></serial>"
        "</devices></domain>"
    )


def files_of(path: Path) -> list[bytes]:
    """What is in a file, after what is in the older ones."""
    return [item.read_bytes() for item in [*sorted(path.parent.glob(f"{path.name}.*"), reverse=True), path]]


def wait_for(path: Path, end: bytes) -> None:
    deadline = time.monotonic() + 60
    while not path.exists() or not b"".join(files_of(path)).endswith(end):
        assert time.monotonic() < deadline, files_of(path)
        time.sleep(0.05)


@pytest.mark.parametrize("kind", ["theirs", "ours", "alone"])
def test_files_do_not_grow_beyond_the_limit(peers: dict[str, Peer], kind: str, tmp_path: Path) -> None:
    peer, disk = peers[kind], f"<disk type='file'><driver type='raw'/><source file='{tmp_path}/disk'/>"
    (tmp_path / "xml").write_text(document(tmp_path, "full", f"{disk}<target dev='vda'/></disk>"))
    (tmp_path / "disk").write_bytes(guest.image(size=1 << 20))
    assert virsh(peer.uri, "create", str(tmp_path / "xml")) == ""
    for name in ("said", "log"):
        wait_for(tmp_path / name, b"HOSTEL-GUEST done failures=0 mode=poweroff\r\n")
        found = files_of(tmp_path / name)
        assert len(found) == 1 + BACKUPS
        assert max(map(len, found)) <= SIZE
    deadline = time.monotonic() + 60
    while state(peer.uri, "full"):
        assert time.monotonic() < deadline, "the guest does not end"
        time.sleep(0.05)


@pytest.mark.parametrize("kind", ["theirs", "ours", "alone"])
def test_files_of_ports_that_are_plugged_in_are_bounded(peers: dict[str, Peer], kind: str, tmp_path: Path) -> None:
    peer, port = peers[kind], tmp_path / "port"
    (tmp_path / "xml").write_text(document(tmp_path, "port", ""))
    for name in ("said", "log"):
        (tmp_path / name).write_bytes(b"before;")
    assert virsh(peer.uri, "create", str(tmp_path / "xml"), "--paused") == ""

    def out(*writes: tuple[str, int, int]) -> None:
        words = "qemu-monitor-command port --hmp 'o /{} {:#x} {:#x}'"
        assert virsh(peer.uri, "; ".join(words.format(*write) for write in writes)) == ""

    out(("b", 0x3F8, ord("x")))
    wait_for(tmp_path / "said", b"x")
    wait_for(tmp_path / "log", b"before;x")
    assert files_of(tmp_path / "said") == [b"x"]
    place = "<address type='pci' domain='0' bus='0' slot='0x10' function='0'/>"
    element = f"<serial type='file'><source path='{port}'/><target type='pci-serial'/>{place}</serial>"
    (tmp_path / "device").write_text(element)
    assert virsh(peer.uri, "attach-device", "port", str(tmp_path / "device")) == ""
    # Nobody has set the card up: its first range of ports is to be C100h, and open.
    registers = [(0xCF8, 0x80008010), (0xCFC, 0xC101), (0xCF8, 0x80008004), (0xCFC, 1)]
    out(*(("w", address, value) for address, value in registers))
    out(*(("b", 0xC100, letter) for letter in b"abcd" * (SIZE // 4) + b"end"))
    wait_for(port, b"end")
    assert files_of(port) == [b"abcd" * (SIZE // 4), b"end"]
    assert virsh(peer.uri, "destroy", "port") == ""
    deadline = time.monotonic() + 60
    while b"terminating on signal 15" not in b"".join(files_of(peer.logs / "port.log")):
        assert time.monotonic() < deadline, files_of(peer.logs / "port.log")
        time.sleep(0.05)
    assert len(files_of(peer.logs / "port.log")) == 1 + BACKUPS


def test_machine_that_virtlogd_is_to_serve_is_refused_without_it(peers: dict[str, Peer], tmp_path: Path) -> None:
    (tmp_path / "xml").write_text(document(tmp_path, "alone", ""))
    said = []
    with libvirtd_system.apart(drivers=("qemu",), qemu_conf='stdio_handler = "logd"\n') as theirs:
        said.append(virsh(theirs.uri, "create", str(tmp_path / "xml")))
        home = tmp_path / "home"
        (home / "state/config").mkdir(parents=True)
        (home / "state/config/qemu.conf").write_text('stdio_handler = "logd"\n')
        with hosteld.process(directory=home, wrapper=theirs.inside) as ours:
            said.append(virsh(ours.uri("qemu:///session"), "create", str(tmp_path / "xml")))
    assert said[0] == "Failed to connect socket to '/run/libvirt/virtlogd-sock': No such file or directory"
    assert said[1] == f"{said[0]}; virtlogd does not run: systemctl start virtlogd.socket"
