"""Character devices over TCP with TLS: who has a certificate of the same authority gets to the guest's port."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel import guest
from hostel.drivers.base.domain import Affect
from hostel.drivers.qemu.driver import QemuDriver
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode, VirtError
from hostel.objects import Connection
from support.pki import Authority, lock
from support.session import held

pytestmark = [pytest.mark.qemu, pytest.mark.requires_tool("qemu-system-x86_64")]
_XML = """<domain type='qemu'><name>g</name><memory unit='MiB'>32</memory><os><type arch='x86_64'>hvm</type></os>
<devices><disk type='file' device='disk'><driver type='raw'/><source file='{disk}'/><target dev='vda' bus='virtio'/>
</disk><serial type='tcp'><source mode='bind' host='127.0.0.1' service='{port}' tls='yes'/></serial></devices>
</domain>"""


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def document(tmp_path: Path, port: int) -> str:
    disk = tmp_path / "disk.img"
    disk.write_bytes(guest.image(label="tls", mode=guest.Mode.WAIT).ljust(1 << 20, b"\0"))
    return _XML.format(disk=disk, port=port)


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[QemuDriver]:
    driver = QemuDriver(Directories.under(tmp_path))
    yield driver
    for ref in driver.connect_list_all_domains():
        driver.domain_destroy(ref)


def _said(port: int, context: ssl.SSLContext) -> bytes:
    """What comes first out of the guest's port; nothing for who is not let in."""
    with (
        contextlib.suppress(ssl.SSLError, ConnectionError),
        socket.create_connection(("127.0.0.1", port), 20) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as line,
    ):
        line.sendall(b"\n")
        return line.recv(1)
    return b""


def _client(folder: Path, authority: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority / "ca-cert.pem"))
    context.load_cert_chain(folder / "clientcert.pem", folder / "clientkey.pem")
    return context


def test_who_has_a_certificate_reads_the_guest(driver: QemuDriver, document: str, port: int, tmp_path: Path) -> None:
    authority, stranger = Authority(), Authority("stranger")
    ours = authority.server(tmp_path / "config/pki/qemu")
    known = _client(authority.client(tmp_path / "known", "known"), ours)
    unknown = _client(stranger.client(tmp_path / "unknown", "unknown"), ours)
    driver.domain_create_xml(document)
    assert _said(port, unknown) == b""
    assert _said(port, known) != b""


def test_a_machine_without_certificates_is_refused(driver: QemuDriver, document: str, tmp_path: Path) -> None:
    if any(Path(name).is_dir() for name in ("/etc/pki/libvirt-chardev", "/etc/pki/qemu")):
        pytest.skip("this host has certificates")
    with pytest.raises(VirtError, match="tls='yes', and there are no certificates") as caught:
        driver.domain_create_xml(document)
    assert caught.value.code == ErrorCode.CONFIG_UNSUPPORTED
    (tmp_path / "config/pki/qemu").mkdir(parents=True)
    with pytest.raises(VirtError, match=r"Unable to access credentials .*/pki/qemu/ca-cert.pem"):
        driver.domain_create_xml(document)
    assert driver.connect_list_all_domains() == []


SECRET = """<secret ephemeral='no' private='yes'><uuid>5f0c5c9e-97f9-4bd4-a9f5-2c1e2a0d5f11</uuid>
<usage type='tls'><name>keys</name></usage></secret>"""
CHANNEL = """<channel type='tcp'><source mode='bind' host='127.0.0.1' service='{}' tls='yes'/>
<target type='virtio' name='org.example'/></channel>"""


def test_key_with_a_passphrase_is_opened_by_a_secret(
    connection: Connection, document: str, port: int, tmp_path: Path
) -> None:
    authority = Authority()
    ours = authority.server(tmp_path / "config/pki/qemu")
    known = _client(authority.client(tmp_path / "known", "known"), ours)
    lock(ours / "server-key.pem", "open sesame")
    uuid = connection.secret.secret_define_xml(SECRET).uuid
    connection.secret.secret_set_value(connection.secret.secret_lookup_by_uuid(uuid), b"open sesame")
    (tmp_path / "config/qemu.conf").write_text(f'default_tls_x509_secret_uuid = "{uuid}"\n')
    driver = connection.hypervisor
    assert isinstance(driver, QemuDriver)
    ref = driver.domain_create_xml(document.replace("<serial", "<controller type='virtio-serial'/><serial"))
    assert _said(port, known) != b""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        channel = CHANNEL.format(probe.getsockname()[1])
    with held(tmp_path, "g") as machine:
        before = {str(item["name"]) for item in machine.ask("qom-list", path="/objects")}
    driver.domain_attach_device_flags(ref, channel, Affect.LIVE)
    driver.domain_detach_device_flags(ref, channel, Affect.LIVE)
    with held(tmp_path, "g") as machine:
        assert {str(item["name"]) for item in machine.ask("qom-list", path="/objects")} == before
    assert not [*tmp_path.rglob("*.secret")]
