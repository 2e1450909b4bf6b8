"""``--validate``: what libvirt's schemas refuse is refused by ours, and what they take is taken."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from hostel.drivers.registry import open_drivers
from hostel.drivers.schema import VALIDATED
from hostel.drivers.store import Directories
from hostel.objects import Connection
from hostel.wire.rpc.programs import REMOTE
from support import hosteld
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
