"""What the host says for all screens (qemu.conf): TLS with real clients, passwords, where they listen."""

from __future__ import annotations

import datetime
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.drivers.base import DomainRef, DomainXmlFlag, StartFlag
from hostel.drivers.qemu import probe
from hostel.drivers.qemu.driver import QemuDriver
from hostel.drivers.qemu.status import Status
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode, VirtError
from hostel.model.domain.devices.graphics import Graphics
from hostel.model.domain.domain import Domain
from support import spice, vnc
from support.pki import Authority

pytestmark = [pytest.mark.qemu, pytest.mark.requires_tool("qemu-system-x86_64")]
_XML = """<domain type='qemu'><name>g</name><memory unit='MiB'>32</memory>
<os><type arch='x86_64' machine='q35'>hvm</type></os><devices>{devices}</devices></domain>"""


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[QemuDriver]:
    driver = QemuDriver(Directories.under(tmp_path))
    yield driver
    for ref in driver.connect_list_all_domains():
        if ref.id >= 0:
            driver.domain_destroy(ref)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    authority = Authority()
    authority.server(tmp_path / "server")
    authority.client(tmp_path / "client", "someone")
    return authority


def _configure(tmp_path: Path, *lines: str) -> None:
    (tmp_path / "config").mkdir(exist_ok=True)
    (tmp_path / "config/qemu.conf").write_text("".join(f"{line}\n" for line in lines))


def _start(driver: QemuDriver, devices: str) -> DomainRef:
    return driver.domain_create_xml(_XML.format(devices=devices), StartFlag.PAUSED)


def _screen(driver: QemuDriver, ref: DomainRef) -> Graphics:
    return Domain.parse(driver.domain_get_xml_desc(ref, DomainXmlFlag.SECURE)).devices.graphics[0]


def _connect(port: int | None) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port or 0), 10)


def _client(tmp_path: Path, *, certified: bool = False) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(tmp_path / "server/ca-cert.pem"))
    if certified:
        context.load_cert_chain(tmp_path / "client/clientcert.pem", tmp_path / "client/clientkey.pem")
    return context


def test_vnc_speaks_tls_with_the_certificates_that_are_set(
    driver: QemuDriver, tmp_path: Path, authority: Authority
) -> None:
    _configure(tmp_path, "vnc_tls = 1", f'vnc_tls_x509_cert_dir = "{tmp_path}/server"', 'vnc_password = "for all"')
    ref = _start(driver, "<graphics type='vnc' port='-1' websocket='-1'/>")
    screen = _screen(driver, ref)
    with _connect(screen.port) as plain:
        assert vnc.offered(plain) == ([vnc.VENCRYPT], [vnc.X509_PASSWORD])
        with vnc.encrypted(plain, vnc.X509_PASSWORD, _client(tmp_path)) as line:
            assert vnc.is_let_in(line, "for all")
    with _connect(screen.port) as plain:
        vnc.offered(plain)
        with pytest.raises(ssl.SSLCertVerificationError):
            vnc.encrypted(plain, vnc.X509_PASSWORD, ssl.create_default_context())
    assert screen.websocket is not None and screen.websocket >= 5700
    with _connect(screen.websocket) as plain, _client(tmp_path).wrap_socket(plain, server_hostname="localhost") as web:
        assert web.version() is not None
    log = (tmp_path / "cache/qemu/log/g.log").read_text()
    assert "for all" not in log and "vnc-tls-creds0" in log


def test_vnc_asks_clients_for_certificates_where_it_is_to(
    driver: QemuDriver, tmp_path: Path, authority: Authority
) -> None:
    _configure(
        tmp_path, "vnc_tls = 1", "default_tls_x509_verify = 1", f'default_tls_x509_cert_dir = "{tmp_path}/server"'
    )
    screen = _screen(driver, _start(driver, "<graphics type='vnc' port='-1'/>"))
    for certified in (True, False):
        with _connect(screen.port) as plain:
            assert vnc.offered(plain).subtypes == [vnc.X509_NONE]
            with vnc.encrypted(plain, vnc.X509_NONE, _client(tmp_path, certified=certified)) as line:
                if certified:
                    assert vnc.is_let_in(line)
                else:
                    with pytest.raises((ssl.SSLError, EOFError, ConnectionError)):
                        vnc.is_let_in(line)


def test_sasl_is_asked_for(driver: QemuDriver, tmp_path: Path) -> None:
    _configure(tmp_path, "vnc_sasl = 1", f'vnc_sasl_dir = "{tmp_path}/sasl"')
    ref = _start(driver, "<graphics type='vnc' port='-1'/>")
    with _connect(_screen(driver, ref).port) as plain:
        assert vnc.offered(plain) == ([vnc.SASL], [])
    pid = Status.parse((tmp_path / "run/qemu/g.xml").read_text()).pid
    assert f"SASL_CONF_PATH={tmp_path}/sasl".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")


def test_spice_has_a_port_for_tls(driver: QemuDriver, tmp_path: Path, authority: Authority) -> None:
    if not probe.has_spice("qemu-system-x86_64", tmp_path / "asked"):
        pytest.skip("this QEMU has no SPICE")
    _configure(tmp_path, "spice_tls = 1", f"spice_tls_x509_cert_dir = '{tmp_path}/server'", "spice_password = 'known'")
    ref = _start(driver, "<graphics type='spice' autoport='yes'><channel name='main' mode='secure'/></graphics>")
    screen = _screen(driver, ref)
    assert screen.port and screen.tls_port and screen.port != screen.tls_port
    with _connect(screen.tls_port) as plain, _client(tmp_path).wrap_socket(plain, server_hostname="localhost") as line:
        assert spice.link(line, "known") == spice.OK
    with _connect(screen.port) as plain:
        assert spice.refusal(plain) == spice.NEED_SECURED
    driver.domain_destroy(ref)
    only = _screen(driver, _start(driver, "<graphics type='spice' autoport='yes' defaultMode='secure'/>"))
    assert only.port is None and only.tls_port
    with _connect(only.tls_port) as plain, _client(tmp_path).wrap_socket(plain, server_hostname="localhost") as line:
        assert spice.link(line, "wrong") == spice.DENIED


def test_a_password_holds_until_it_is_said_to(driver: QemuDriver) -> None:
    def written(seconds: int) -> str:
        moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
        return f"<graphics type='vnc' port='-1' passwd='open' passwdValidTo='{moment:%Y-%m-%dT%H:%M:%S}'/>"

    ref = _start(driver, written(3600))
    port = _screen(driver, ref).port
    with _connect(port) as connection:
        assert vnc.enter(connection, "open")
    driver.domain_update_device_flags(ref, written(-3600))
    with _connect(port) as connection:
        assert not vnc.enter(connection, "open")
    driver.domain_update_device_flags(ref, "<graphics type='vnc' port='-1' passwd='open' connected='keep'/>")
    with _connect(port) as connection:
        assert vnc.enter(connection, "open")
    assert _screen(driver, ref).connected == "keep"
    driver.domain_update_device_flags(ref, "<graphics type='vnc' port='-1' passwd=''/>")
    with _connect(port) as connection:
        assert not vnc.enter(connection, "")


@pytest.mark.parametrize(
    ("xml", "code", "message"),
    [
        ("<graphics type='vnc' port='5999' passwd='a'/>", ErrorCode.OPERATION_UNSUPPORTED, "port settings on vnc"),
        ("<graphics type='vnc' passwd='a' keymap='de'/>", ErrorCode.OPERATION_UNSUPPORTED, "keymap setting on vnc"),
        (
            "<graphics type='vnc' passwd='a'><listen type='socket'/></graphics>",
            ErrorCode.OPERATION_UNSUPPORTED,
            "type of listen address on 'vnc'",
        ),
        (
            "<graphics type='vnc' passwd='a' passwdValidTo='tomorrow'/>",
            ErrorCode.INTERNAL_ERROR,
            "cannot parse password validity time 'tomorrow', expect YYYY-MM-DDTHH:MM:SS",
        ),
        (
            "<graphics type='vnc' passwd='a' connected='fail'/>",
            ErrorCode.CONFIG_UNSUPPORTED,
            "VNC supports connected='keep' only",
        ),
    ],
)
def test_what_else_would_change_is_refused(driver: QemuDriver, xml: str, code: ErrorCode, message: str) -> None:
    ref = _start(driver, "<graphics type='vnc' port='-1' passwd='a'/>")
    with pytest.raises(VirtError, match=message) as caught:
        driver.domain_update_device_flags(ref, xml)
    assert caught.value.code == code


def test_screens_listen_where_the_host_says(driver: QemuDriver, tmp_path: Path) -> None:
    _configure(tmp_path, "vnc_listen = '127.0.0.2'")
    ref = _start(driver, "<graphics type='vnc' port='-1' keymap='de'/>")
    screen = _screen(driver, ref)
    assert screen.listens[0].address == "127.0.0.2"
    with socket.create_connection(("127.0.0.2", screen.port or 0), 10) as connection:
        assert vnc.offered(connection).types == [vnc.NONE]
    driver.domain_destroy(ref)
    _configure(tmp_path, "vnc_auto_unix_socket = 1")
    screen = _screen(driver, _start(driver, "<graphics type='vnc' port='-1'/>"))
    assert screen.listens[0].type == "socket" and screen.port is None
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(screen.socket or "")
        assert vnc.offered(connection).types == [vnc.NONE]
