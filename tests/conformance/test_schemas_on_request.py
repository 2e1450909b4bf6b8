"""``--validate``: what libvirt's schemas refuse is refused by ours, and what they take is taken."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from hostel.drivers.registry import open_drivers
from hostel.drivers.schema import VALIDATED, check_schema
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode, VirtError
from hostel.objects import Connection
from hostel.wire.rpc.programs import REMOTE
from support import hosteld
from support.relaxng import SCHEMAS, Schema
from support.virsh import run_lines

DOMAIN = (
    "<domain type='test'><name>{name}</name><memory>1024</memory><os><type>hvm</type></os>{more}"
    "<devices><disk type='file'{attribute}><source file='/x'/><target dev='vda'/></disk></devices></domain>"
)
DOCUMENTS = {
    "taken.xml": DOMAIN.format(name="taken", more="<metadata><a xmlns='urn:x'/></metadata>", attribute=""),
    "element.xml": DOMAIN.format(name="refused", more="<unheard/>", attribute=""),
    "attribute.xml": DOMAIN.format(name="refused", more="", attribute=" unheard='1'"),
    "network.xml": "<network><name>refused</name><ip address='10.9.8.1' netmask='255.255.255.0'/><unheard/></network>",
    "pool.xml": "<pool type='dir'><name>refused</name><target><path unheard='1'>/x</path></target></pool>",
    "interface.xml": "<interface type='ethernet' name='eth7'><unheard/></interface>",
}
LINES = {
    "define {home}/taken.xml --validate": "",
    "define {home}/element.xml --validate": "/domain/unheard",
    "create {home}/element.xml --validate": "/domain/unheard",
    "define {home}/attribute.xml --validate": "/domain/devices/disk/@unheard",
    "net-define {home}/network.xml --validate": "/network/unheard",
    "net-create {home}/network.xml --validate": "/network/unheard",
    "pool-define {home}/pool.xml --validate": "/pool/target/path",
    "iface-define {home}/interface.xml --validate": "/interface/unheard",
    "define {home}/element.xml": "",
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name, text in DOCUMENTS.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def _lines(home: Path) -> list[str]:
    return [line.format(home=home) for line in LINES]


def test_our_virsh_refuses_what_no_declaration_covers_by_its_path(home: Path) -> None:
    def opener(uri: str, *, read_only: bool) -> Connection:
        return Connection(open_drivers(uri, Directories.under(home)), read_only=read_only)

    answers = run_lines("test:///default", opener, map(shlex.split, _lines(home)))
    for line, (code, _, complaint), path in zip(LINES, answers, LINES.values(), strict=True):
        _check(line, code, complaint, path)


@pytest.mark.requires_tool("virsh")
def test_clients_of_the_daemon_are_refused_alike(home: Path) -> None:
    with hosteld.process() as daemon:
        for line, path in zip(_lines(home), LINES.values(), strict=True):
            uri = f"test+unix:///default?socket={daemon.socket}"
            done = subprocess.run(
                ["virsh", "-c", uri, *line.split()], capture_output=True, text=True, timeout=30, check=False
            )
            _check(line, done.returncode, done.stderr, path)


@pytest.mark.requires_tool("virsh")
def test_libvirt_refuses_the_same_documents(home: Path) -> None:
    for line, path in zip(_lines(home), LINES.values(), strict=True):
        if line.startswith(("net", "iface")):
            continue  # its test driver does not validate these
        done = subprocess.run(
            ["virsh", "-c", "test:///default", *line.split()], capture_output=True, text=True, timeout=30, check=False
        )
        assert (done.returncode != 0, "failed to validate" in done.stderr) == (bool(path), bool(path)), line


def _check(line: str, code: int, complaint: str, path: str) -> None:
    assert (code != 0) == bool(path), (line, complaint)
    if path:
        assert "XML document failed to validate against schema: " + path in complaint, line


@pytest.mark.parametrize("name", VALIDATED)
def test_every_procedure_that_validates_has_a_document_and_flags(name: str) -> None:
    fields = REMOTE.by_name[name].arguments.fields
    assert any("xml" in field.name for field in fields)
    assert fields[-1].name == "flags"


# By kind: its schema, and what of it we refuse: of which libvirt makes nothing, or refuses beyond its schema.
SCHEMAS_OF = {
    "backup": ("domainbackup", ("in element 'driver': 'luks'",)),
    "checkpoint": ("domaincheckpoint", ()),
    "secret": ("secret", ()),
    "network filter": ("nwfilter", ("Write an IPv4 address", "The bits of a mask", "Write a variable")),
    "network filter binding": ("nwfilterbinding", ()),
    "node device": (
        "nodedev",
        ("element 'address'", "The most is 7", "Write 2.5, 5, 8, 16", "attribute 'name' in element 'feature'"),
    ),
    "volume": ("storagevol", ()),
    "snapshot": ("domainsnapshot", ("/domainsnapshot/cookie/anything",)),
    "network port": ("networkport", ("/@multifunction",)),
    "processor": ("cpu", ("Write ranges that go up",)),
}
# What a schema refuses and we complete: that a disk goes to a file.
COMPLETED = ("/domainbackup/disks/disk/@backup is missing", "/domainbackup/disks/disk/@type is missing")
OTHERS = (
    "/domainsnapshot/domain/",
    "/domainsnapshot/inactiveDomain/",
    "/domaincheckpoint/domain/",
)  # documents of other kinds


def _spoilt(root: Any) -> Iterator[tuple[str, str]]:
    """The document with something too much, too little or wrong, in each place; each with what that is."""

    def text() -> str:
        return etree.tostring(root, encoding="unicode")

    for element in list(root.iter()):
        path = root.getroottree().getpath(element).removeprefix("/parent")
        for name, value in list(element.attrib.items()):
            element.set(name, "fr ob:x")
            yield f"{path}/@{name} is wrong", text()
            del element.attrib[name]
            yield f"{path}/@{name} is missing", text()
            element.set(name, value)
        element.set("frob", "x")
        yield f"{path}/@frob is too much", text()
        del element.attrib["frob"]
        if not len(element) and (value := (element.text or "").strip()):
            for wrong in ("fr /ob:x", ""):
                element.text = wrong
                yield f"{path} is '{wrong}'", text()
            element.text = value
        if element is not root:
            above, place = element.getparent(), element.getparent().index(element)
            above.remove(element)
            yield f"{path} is missing", text()
            above.insert(place, element)


@pytest.mark.skipif(not SCHEMAS.is_dir(), reason="needs libvirt's schemas (package libvirt0)")
@pytest.mark.parametrize("kind", SCHEMAS_OF)
def test_what_a_schema_refuses_is_refused_by_its_place_and_nothing_else(kind: str) -> None:
    name, known = SCHEMAS_OF[kind]
    schema = Schema(name)
    refused, taken = [], []
    seen: set[str] = set()
    for path, document in schema.documents():
        if path.startswith(OTHERS):
            continue
        if (complaint := _complaint(etree.tostring(document, encoding="unicode"), kind)) is not None:
            refused.append(complaint)
        for what, xml in _spoilt(document):
            if what in seen or schema.rules.validate(etree.fromstring(xml)):
                continue
            seen.add(what)
            if what in COMPLETED:
                continue
            if (complaint := _complaint(xml, kind)) is None:
                taken.append(f"{what}: {xml}")
            else:
                assert complaint.startswith("/"), complaint
    assert taken == []
    assert [complaint for complaint in refused if not any(each in complaint for each in known)] == []
    assert len(seen) > 15


def _complaint(xml: str, kind: str) -> str | None:
    try:
        check_schema(xml, kind)
    except VirtError as error:
        assert error.code is ErrorCode.XML_INVALID_SCHEMA
        return str(error).removeprefix("XML document failed to validate against schema: ")
    return None
