"""What a document says that only another kind of device has is left out, as libvirt leaves it out."""

from __future__ import annotations

import pytest

from support.domain import defined
from support.refused import disk, document

ELSEWHERE = "<address domain='0' bus='1' slot='2' function='3'/>"
HOST = "<host name='h' port='1'/>"
TARGET = "<target type='virtio' name='c'/>"


def source(of: str, more: str) -> str:
    """A disk whose source has more in it."""
    plain = disk() if of == "file" else disk(type="block").replace("file='/d'", "dev='/d'")
    return plain.replace("'/d'/>", f"'/d'>{more}</source>")


@pytest.mark.parametrize(
    ("given", "kept", "gone"),
    [
        ("<controller type='ide' ports='4' vectors='5'/>", "", "ports='4' vectors='5'"),
        ("<controller type='usb' ports='4' vectors='5'/>", "ports='4'", "vectors='5'"),
        ("<controller type='virtio-serial' ports='4' vectors='5'/>", "ports='4' vectors='5'", ""),
        ("<controller type='usb'><target chassis='3'/><model name='pxb'/></controller>", "", "chassis= 'pxb'"),
        ("<controller type='usb' model='none'><address type='pci' slot='7'/></controller>", "model='none'/>", "'0x07'"),
        ("<memballoon model='none'><address type='ccw'/></memballoon>", "<memballoon model='none'/>", ""),
        (source("file", HOST + ELSEWHERE + "<reconnect enabled='yes' timeout='1'/>"), "<source file='/d'/>", ""),
        (source("block", "<identity user='u' group='g'/>"), "<source dev='/d'/>", ""),
        (f"<channel type='unix'><protocol type='telnet'/>{TARGET}</channel>", TARGET, "<protocol"),
    ],
)
def test_what_another_device_has_is_left_out(given: str, kept: str, gone: str) -> None:
    text = defined(document(given)).format()
    assert kept in text
    assert [word for word in gone.split() if word in text] == []


@pytest.mark.parametrize(
    ("offset", "kept"),
    [
        ("utc", ""),
        ("localtime", ""),
        ("variable", " adjustment='0' basis='localtime'"),
        ("timezone", " timezone='Europe/Paris'"),
        ("absolute", " start='5'"),
    ],
)
def test_what_another_clock_has_is_left_out(offset: str, kept: str) -> None:
    clock = f"<clock offset='{offset}' basis='localtime' timezone='Europe/Paris' start='5'/>"
    assert f"<clock offset='{offset}'{kept}/>" in defined(document(body=clock)).format()


@pytest.mark.parametrize("name", ["utc", "localtime"])
def test_an_adjustment_of_a_clock_that_is_empty_is_none(name: str) -> None:
    assert f"<clock offset='{name}'/>" in defined(document(body=f"<clock offset='{name}' adjustment=''/>")).format()


def test_a_kind_of_device_to_boot_from_that_has_an_order_is_kept_without_another() -> None:
    text = defined(document(os="<boot dev='network' order='1'/>")).format()
    assert text.count("<boot ") == 1 and "dev='network' order='1'" in text.replace('"', "'")


@pytest.mark.parametrize("kind", ["spicevmc", "qemu-vdagent"])
def test_the_name_of_a_channel_of_spice_is_not_written_into_the_document(kind: str) -> None:
    channel = f"<channel type='{kind}'><target type='virtio'/></channel>"
    assert "<target type='virtio'/>" in defined(document(channel)).format()
