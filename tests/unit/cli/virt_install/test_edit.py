"""``--xml``: changes to the finished document."""

from __future__ import annotations

import re

import pytest
from lxml import etree

from hostel.cli.virt_install import edit, registry
from hostel.errors import ModelError, UsageError

DOCUMENT = (
    "<domain><cpu mode='a'/><devices><disk><target dev='vda'/></disk><disk/></devices><pm><x y='1'/></pm></domain>"
)


def changed(*texts: str) -> str:
    root = etree.fromstring(DOCUMENT)
    edit.apply(root, [registry.read_xml(text) for text in texts])
    return re.sub(r">\s+<", "><", etree.tostring(root, encoding="unicode")).replace('"', "'")


@pytest.mark.parametrize(
    ("text", "before", "after"),
    [
        ("./cpu/@mode=b", "<cpu mode='a'/>", "<cpu mode='b'/>"),
        ("./cpu/@mode=", "<cpu mode='a'/>", ""),
        ("./cpu/model=x", "<cpu mode='a'/>", "<cpu mode='a'><model>x</model></cpu>"),
        ("./devices/disk[2]/serial=s", "<disk/>", "<disk><serial>s</serial></disk>"),
        ("xpath.set=./cpu,xpath.value=a=b,c", "<cpu mode='a'/>", "<cpu mode='a'>a=b,c</cpu>"),
        ("xpath.create=\"./a[@b='c']/d\"", "</domain>", "<a b='c'><d/></a></domain>"),
        ("xpath.delete=./cpu", "<cpu mode='a'/>", ""),
        ("xpath.delete=./devices/disk[2]", "<disk/>", ""),
        ("xpath.delete=./pm/x/@y", "<pm><x y='1'/></pm>", ""),
        ("xpath.delete=./nosuch", "", ""),
    ],
)
def test_an_edit_changes_what_it_names(text: str, before: str, after: str) -> None:
    assert changed(text) == DOCUMENT.replace(before, after, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("foo", "Setting xpath must be in the form of XPATH=VALUE"),
        ("xpath.nosuch=1", "Unknown --xml options"),
        ("xpath.delete=./a[", "--xml ./a"),
        ("xpath.delete=.", "the whole document cannot be deleted"),
        ("xpath.delete=count(./cpu)", "it names no element or attribute"),
        ("./a[b=1]/@c=d", "cannot be made; write a plain name"),
        ("./@\u00aa=1", "'\u00aa' is no name of an attribute"),
        ("./@{x}a=1", "'{x}a' is no name of an attribute"),
    ],
)
def test_what_is_no_edit_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("[", r"\[")):
        changed(text)


@pytest.mark.parametrize(
    "text", ["./title=a\0b", "./a\x01=1", "./@a\x01=1", "xpath.delete=./a\x01", "xpath.create=./\udcff"]
)
def test_a_character_that_no_document_can_have_is_refused(text: str) -> None:
    with pytest.raises(ModelError, match="cannot be in a document"):
        changed(text)


@pytest.mark.parametrize("xpath", ["/domain", "../..", "."])
def test_the_whole_document_cannot_be_deleted_from_inside(xpath: str) -> None:
    disk = etree.fromstring(DOCUMENT)[1][0]
    with pytest.raises(UsageError, match="the whole document cannot be deleted"):
        edit.apply(disk, [edit.Edit("delete", xpath)])


def test_a_document_emptied_from_inside_is_left_empty() -> None:
    root = etree.fromstring("<domain><devices><disk/></devices></domain>")
    edit.apply(root[0][0], [edit.Edit("set", "/domain")])
    assert etree.tostring(root) == b"<domain/>"
