"""Guests that move between our daemon and libvirt's own, by libvirt's clients: both speak the same protocol."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from hostel import guest
from support import hosteld, image, libvirtd_system
from support.pki import Authority
from support.session import disk, domain_xml, reports, wait_for_report

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.requires_tool("virsh"),
    pytest.mark.requires_tool("libvirtd"),
    pytest.mark.requires_tool("qemu-img"),
    pytest.mark.skipif(os.getuid() != 0, reason="libvirtd of the system is root's"),
]
MIB = 1 << 20
LIVE = ("--live", "--unsafe")
TLS = ("--tls", "--tls-destination", "localhost")


class Peers(NamedTuple):
    """Our daemon and libvirt's, by their URIs."""

    home: Path
    ours: str
    theirs: str

    def moves(self, source: str, destination: str, *words: str) -> None:
        """Move the guest: it runs there and nowhere else, and has not lost count."""
        virsh(source, "migrate", "guest", destination, *words)
        assert "running" in virsh(destination, "list", "--all")
        assert "running" not in virsh(source, "list", "--all")
        wait_for_report(self.home, len(reports(self.home)) + 1)
        boots = [report.boot for report in reports(self.home) if report.complete]
        assert boots == list(range(1, len(boots) + 1))

    def to_another_disk(self, source: str, old: str, new: str) -> tuple[str, ...]:
        """What of a command copies the guest's disk into another file, which is there."""
        image.qemu_img("create", "-q", "-f", "qcow2", self.home / new, MIB)
        xml = virsh(source, "dumpxml", "guest", "--migratable").replace(old, new)
        (self.home / "there.xml").write_text(xml)
        return ("--live", "--copy-storage-all", "--xml", str(self.home / "there.xml"))


def virsh(uri: str, *words: str) -> str:
    environment = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(
        ["virsh", "-c", uri, *words], capture_output=True, text=True, timeout=90, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def peers(tmp_path: Path) -> Iterator[Peers]:
    path = tmp_path / "disk.qcow2"
    image.qemu_img("create", "-q", "-f", "qcow2", path, MIB)
    image.write(path, "qcow2", (0, guest.image(label="moving", mode=guest.Mode.REBOOT)))
    (tmp_path / "guest.xml").write_text(domain_xml(tmp_path, disk(path, "qcow2")))
    authority = Authority()
    authority.peer(authority.server(tmp_path / "pki"))
    conf = f'migrate_tls_x509_cert_dir = "{tmp_path}/pki"\n'
    place = tmp_path / "daemon"
    (place / "state/config").mkdir(parents=True)
    (place / "state/config/qemu.conf").write_text(conf)
    drivers = ("qemu", "storage", "secret")
    with (
        hosteld.process(directory=place) as daemon,
        libvirtd_system.running(drivers=drivers, qemu_conf=conf) as theirs,
    ):
        found = Peers(tmp_path, daemon.uri("qemu:///session"), theirs)
        virsh(found.ours, "create", str(tmp_path / "guest.xml"))
        try:
            wait_for_report(tmp_path, 1)
            yield found
        finally:
            for uri in (found.ours, theirs):
                subprocess.run(["virsh", "-c", uri, "destroy", "guest"], capture_output=True, timeout=60, check=False)


def test_guest_moves_to_libvirts_daemon_and_back_in_every_way(peers: Peers) -> None:
    ours, theirs = peers.ours, peers.theirs
    peers.moves(ours, theirs, *LIVE)
    peers.moves(theirs, ours, *LIVE)
    peers.moves(ours, theirs, *LIVE, "--p2p")
    peers.moves(theirs, ours, *LIVE, "--p2p", "--tunnelled", "--persistent")
    peers.moves(ours, theirs, *LIVE, *TLS)
    peers.moves(theirs, ours, *LIVE, *TLS, "--p2p", "--persistent")
    peers.moves(ours, theirs, *peers.to_another_disk(ours, "disk.qcow2", "there.qcow2"), *TLS, "--undefinesource")
    assert "guest" not in virsh(ours, "list", "--all")
    assert "Incoming migration" in virsh(theirs, "domjobinfo", "guest", "--completed")
    peers.moves(theirs, ours, *peers.to_another_disk(theirs, "there.qcow2", "back.qcow2"))
    virsh(ours, "destroy", "guest")
    content = image.content(peers.home / "back.qcow2", "qcow2")
    state = guest.read_state(content[guest.state_offset() :][: guest.SECTOR])
    assert state.intact
    told = reports(peers.home)[-1].boot
    assert told is not None and state.boot_count >= told
