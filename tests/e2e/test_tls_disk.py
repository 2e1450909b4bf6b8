"""Disks on a server that is spoken to by TLS."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel import guest
from hostel.drivers.base.domain import Affect
from hostel.drivers.qemu.driver import QemuDriver
from hostel.errors import VirtError
from hostel.objects import Connection
from support.nbd import Certificates
from support.pki import lock
from support.process import end
from support.session import disk, domain_xml, held, wait_for_report

pytestmark = [pytest.mark.qemu, pytest.mark.requires_tool("qemu-nbd"), pytest.mark.requires_tool("openssl")]
MIB = 1 << 20
_TLS = " tls='yes' tlsHostname='localhost'"


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """A real server, which lets in only those whose certificate is of its authority."""
    authority = Certificates(tmp_path, "authority")
    folder = authority.make("server", server=True)
    client = authority.make("client", server=False)
    (tmp_path / "config").mkdir(exist_ok=True)
    (tmp_path / "config/pki").mkdir()
    client.rename(tmp_path / "config/pki/qemu")
    (tmp_path / "disk.img").write_bytes(guest.image(label="tls", mode=guest.Mode.WAIT).ljust(MIB, b"\0"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number = int(probe.getsockname()[1])
    words = ["--object", f"tls-creds-x509,id=tls0,dir={folder},endpoint=server,verify-peer=yes", "--tls-creds", "tls0"]
    server = subprocess.Popen(
        ["qemu-nbd", "-t", "-e", "4", "-x", "disk", "-f", "raw", "-b", "127.0.0.1", "-p", str(number), *words,
         str(tmp_path / "disk.img")]
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while socket.socket().connect_ex(("127.0.0.1", number)):
            assert server.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        yield number
    finally:
        end(server)


def on_server(port: int, *, dev: str = "vda", bus: str = "virtio", tls: str = _TLS) -> str:
    return (
        f"<disk type='network' device='disk'><driver name='qemu' type='raw'/><source protocol='nbd' name='disk'{tls}>"
        f"<host name='127.0.0.1' port='{port}'/></source><target dev='{dev}' bus='{bus}'/></disk>"
    )


def objects(home: Path) -> set[str]:
    with held(home) as machine:
        return {str(item["name"]) for item in machine.ask("qom-list", path="/objects")}


def test_guest_boots_from_a_server_that_wants_a_certificate(tmp_path: Path, driver: QemuDriver, port: int) -> None:
    with pytest.raises(VirtError, match=r"TLS|Option 0x7"):
        driver.domain_create_xml(domain_xml(tmp_path, on_server(port, tls="")))
    driver.domain_create_xml(domain_xml(tmp_path, on_server(port)))
    assert wait_for_report(tmp_path, 1).ok


def test_credentials_come_and_go_with_the_disk(tmp_path: Path, driver: QemuDriver, port: int) -> None:
    (tmp_path / "boot.img").write_bytes(guest.image(label="boot", mode=guest.Mode.WAIT).ljust(MIB, b"\0"))
    scsi = "<controller type='scsi' index='0' model='virtio-scsi'/>"
    ref = driver.domain_create_xml(domain_xml(tmp_path, disk(tmp_path / "boot.img"), scsi))
    wait_for_report(tmp_path, 1)
    before = objects(tmp_path)
    xml = on_server(port, dev="sda", bus="scsi")
    for _ in range(2):
        driver.domain_attach_device_flags(ref, xml, Affect.LIVE)
        assert [name.endswith("-storage_tls0") for name in objects(tmp_path) - before] == [True]
        driver.domain_detach_device_flags(ref, xml, Affect.LIVE)
        assert objects(tmp_path) == before


SECRET = """<secret ephemeral='no' private='yes'><uuid>5f0c5c9e-97f9-4bd4-a9f5-2c1e2a0d5f11</uuid>
<usage type='tls'><name>keys</name></usage></secret>"""


def test_key_with_a_passphrase_is_opened_by_a_secret(
    tmp_path: Path, driver: QemuDriver, connection: Connection, port: int
) -> None:
    lock(tmp_path / "config/pki/qemu/client-key.pem", "open sesame")
    (tmp_path / "config/qemu.conf").write_text('nbd_tls_x509_secret_uuid = "5f0c5c9e-97f9-4bd4-a9f5-2c1e2a0d5f11"\n')
    with pytest.raises(VirtError, match="no secret with matching uuid"):
        driver.domain_create_xml(domain_xml(tmp_path, on_server(port)))
    secret = connection.secret.secret_define_xml(SECRET)
    connection.secret.secret_set_value(secret, b"close sesame")
    with pytest.raises(VirtError, match=r"key.pem|[Dd]ecryption"):
        driver.domain_create_xml(domain_xml(tmp_path, on_server(port)))
    connection.secret.secret_set_value(secret, b"open sesame")
    scsi = "<controller type='scsi' index='0' model='virtio-scsi'/>"
    ref = driver.domain_create_xml(domain_xml(tmp_path, on_server(port), scsi))
    assert wait_for_report(tmp_path, 1).ok
    before = objects(tmp_path)
    xml = on_server(port, dev="sda", bus="scsi").replace("<target", "<shareable/><target")
    driver.domain_attach_device_flags(ref, xml, Affect.LIVE)
    added = objects(tmp_path) - before
    assert sorted(name.partition("_tls0")[2] for name in added) == ["", "-secret0"]
    driver.domain_detach_device_flags(ref, xml, Affect.LIVE)
    assert objects(tmp_path) == before
    assert not [*tmp_path.rglob("*.secret")]
