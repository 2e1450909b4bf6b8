"""Screens over SPICE: who gets in, where they listen, and what the guest's devices have of them."""

from __future__ import annotations

import concurrent.futures
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.drivers.base import DomainRef, DomainXmlFlag, StartFlag
from hostel.drivers.base.domain import Affect
from hostel.drivers.qemu import probe
from hostel.drivers.qemu.driver import QemuDriver
from hostel.drivers.store import Directories
from hostel.errors import VirtError
from hostel.model.domain.devices.graphics import Graphics
from hostel.model.domain.domain import Domain
from support import spice

pytestmark = [pytest.mark.qemu, pytest.mark.requires_tool("qemu-system-x86_64")]
_XML = """<domain type='qemu'><name>{name}</name><memory unit='MiB'>32</memory>
<os><type arch='x86_64' machine='q35'>hvm</type></os><devices>{devices}</devices></domain>"""
_FULL = """<graphics type='spice' autoport='yes' passwd='let,me=in'><image compression='auto_glz'/>
<jpeg compression='auto'/><zlib compression='never'/><playback compression='on'/><streaming mode='filter'/>
<clipboard copypaste='no'/><filetransfer enable='no'/><mouse mode='client'/><gl enable='no'/>
<channel name='main' mode='insecure'/></graphics>
<video><model type='qxl' ram='65536' vram='65536' vgamem='16384' heads='1'/></video>
<sound model='ich9'/>
<channel type='spicevmc'><target type='virtio' name='com.redhat.spice.0'/></channel>
<channel type='spiceport'><source channel='org.example.own'/><target type='virtio' name='org.example.own'/></channel>
<controller type='usb' model='qemu-xhci'/><redirdev bus='usb' type='spicevmc'/>"""


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[QemuDriver]:
    if not probe.has_spice("qemu-system-x86_64", tmp_path / "asked"):
        pytest.skip("this QEMU has no SPICE")
    driver = QemuDriver(Directories.under(tmp_path))
    yield driver
    for ref in driver.connect_list_all_domains():
        if ref.id >= 0:
            driver.domain_destroy(ref)


def _start(driver: QemuDriver, devices: str, name: str = "g") -> DomainRef:
    return driver.domain_create_xml(_XML.format(name=name, devices=devices), StartFlag.PAUSED)


def _screen(driver: QemuDriver, ref: DomainRef) -> Graphics:
    return Domain.parse(driver.domain_get_xml_desc(ref, DomainXmlFlag.SECURE)).devices.graphics[0]


def _link(screen: Graphics, password: str = "") -> int:
    assert screen.port is not None and screen.listen is not None
    with socket.create_connection((screen.listen, screen.port), 10) as connection:
        return spice.link(connection, password)


def test_only_who_knows_the_password_gets_in(driver: QemuDriver, tmp_path: Path) -> None:
    ref = _start(driver, _FULL)
    screen = _screen(driver, ref)
    assert (screen.listen, screen.tls_port, screen.autoport) == ("127.0.0.1", None, True)
    assert _link(screen, "wrong") == spice.DENIED
    assert _link(screen, "let,me=in") == spice.OK
    assert "let,me=in" not in (tmp_path / "cache/qemu/log/g.log").read_text()
    driver.domain_update_device_flags(ref, screen.format().replace("let,me=in", "other"))
    assert _link(screen, "let,me=in") == spice.DENIED
    assert _link(_screen(driver, ref), "other") == spice.OK
    with pytest.raises(VirtError, match="attach of device 'graphics' is not supported"):
        driver.domain_attach_device_flags(ref, screen.format())
    with socket.socket(fileno=driver.domain_open_graphics_fd(ref, 0, skip_auth=True)) as client:
        client.settimeout(60)
        assert spice.link(client, "whatever") == spice.OK


def test_a_definition_gets_another_password(driver: QemuDriver) -> None:
    ref = driver.domain_define_xml(_XML.format(name="g", devices="<graphics type='spice' autoport='yes' passwd='a'/>"))
    changed = "<graphics type='spice' autoport='yes' passwd='b'/>"
    driver.domain_update_device_flags(ref, changed, Affect.CONFIG)
    assert _screen(driver, ref).passwd == "b"
    with pytest.raises(VirtError, match="cannot find existing graphics type 'vnc' device to modify"):
        driver.domain_update_device_flags(ref, "<graphics type='vnc'/>", Affect.CONFIG)


def test_machines_that_start_at_once_get_ports_of_their_own(driver: QemuDriver) -> None:
    names = [f"g{number}" for number in range(4)]
    screens = ["<graphics type='spice' autoport='yes'/>", "<graphics type='vnc' port='-1'/>"] * 2
    with concurrent.futures.ThreadPoolExecutor() as pool:
        refs = list(pool.map(lambda given: _start(driver, *given), zip(screens, names, strict=True)))
    found = [_screen(driver, ref) for ref in refs]
    assert len({screen.port for screen in found}) == len(names)
    assert [_link(screen) for screen in found[::2]] == [spice.OK, spice.OK]


def test_a_socket_and_nothing_at_all_are_listened_on(driver: QemuDriver) -> None:
    unix = _screen(driver, _start(driver, "<graphics type='spice'><listen type='socket'/></graphics>"))
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(unix.listens[0].socket or "")
        assert spice.link(connection) == spice.OK
    closed = _screen(driver, _start(driver, "<graphics type='spice'><listen type='none'/></graphics>", "h"))
    assert closed.port is None and closed.listens[0].type == "none"


def test_a_port_that_others_have_is_said(driver: QemuDriver) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        pytest.raises(VirtError, match="failed to initialize spice server"),
    ):
        _start(driver, f"<graphics type='spice' port='{other.getsockname()[1]}'/>")
    assert driver.connect_list_all_domains() == []
