"""A document as QEMU's command line, which nobody starts."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from hostel.drivers.qemu.driver import QemuDriver
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode, VirtError
from support.arguments import spec, text

# What is asked before a document is taken: which guests it runs, on which machines.
QEMU = """#!/bin/sh
while read -r line; do
    case "$line" in
        *query-target*) echo '{"return": {"arch": "x86_64"}, "id": ""}' ;;
        *query-machines*) echo '{"return": [{"name": "pc", "cpu-max": 255}], "id": ""}' ;;
    esac
done
"""


@pytest.fixture
def driver(tmp_path: Path) -> QemuDriver:
    return QemuDriver(Directories.under(tmp_path))


@pytest.fixture
def emulator(tmp_path: Path) -> str:
    path = tmp_path / "qemu"
    path.write_text(QEMU)
    path.chmod(0o755)
    return f"<emulator>{path}</emulator>"


def test_a_document_is_a_line_for_a_shell(driver: QemuDriver, emulator: str, tmp_path: Path) -> None:
    disk = "<disk type='file'><driver type='raw'/><source file='/a b,c'/><target dev='vda'/></disk>"
    line = driver.connect_domain_xml_to_native("qemu-argv", text(emulator + disk))
    argv = shlex.split(line)
    assert argv[0] == str(tmp_path / "qemu")
    assert spec(argv, "-blockdev", driver="file")["filename"] == "/a b,c"


def test_what_only_a_command_line_has_is_on_it(driver: QemuDriver, emulator: str) -> None:
    source = "<source><address domain='0' bus='0x06' slot='0x12' function='0x5'/></source>"
    device = f"<hostdev mode='subsystem' type='pci' managed='yes'>{source}</hostdev>"
    argv = shlex.split(driver.connect_domain_xml_to_native("qemu-argv", text(emulator + device)))
    assert spec(argv, "-device", driver="vfio-pci")["host"] == "0000:06:12.5"


@pytest.mark.parametrize(
    "interface",
    [
        "<interface type='network'><source network='n'/></interface>",
        "<interface type='direct'><source dev='e'/></interface>",
    ],
)
def test_what_libvirt_opens_itself_is_a_tap(driver: QemuDriver, emulator: str, interface: str) -> None:
    argv = shlex.split(driver.connect_domain_xml_to_native("qemu-argv", text(emulator + interface)))
    found = spec(argv, "-netdev", id="hostnet0")
    assert (found["type"], found["script"]) == ("tap", "/etc/qemu-ifup")


def test_what_is_not_said_is_refused_by_its_path(driver: QemuDriver, emulator: str) -> None:
    head = "<keywrap><cipher name='aes' state='on'/></keywrap>"
    with pytest.raises(VirtError, match="/domain/keywrap") as caught:
        driver.connect_domain_xml_to_native("qemu-argv", text(emulator, head=head))
    assert caught.value.code == ErrorCode.CONFIG_UNSUPPORTED


def test_other_formats_are_those_of_every_connection(driver: QemuDriver) -> None:
    with pytest.raises(VirtError, match="unsupported config type frob"):
        driver.connect_domain_xml_to_native("frob", text(""))


def test_no_secret_is_on_the_line(driver: QemuDriver, emulator: str) -> None:
    cookies = "<cookies><cookie name='key'>value</cookie></cookies>"
    source = f"<source protocol='http' name='i'><host name='h'/>{cookies}</source>"
    disk = f"<disk type='network'><driver type='raw'/>{source}<target dev='vda'/></disk>"
    line = driver.connect_domain_xml_to_native("qemu-argv", text(emulator + disk))
    assert "value" not in line
    assert spec(shlex.split(line), "-object", format="raw")["file"].endswith(".secret")
