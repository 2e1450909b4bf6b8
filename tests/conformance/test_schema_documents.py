"""A document for each element, attribute and value of libvirt's schemas: taken, refused and kept as libvirt does."""

from __future__ import annotations

import functools
import json
import re
import shutil
import subprocess
from typing import Any, NamedTuple

import pytest
from lxml import etree

import hostel.libvirt as libvirt
from support.relaxng import SCHEMAS, Schema, places

PYTHON = "/usr/bin/python3"  # which Debian's python3-libvirt is for
URI = "test:///default"
# A document at a time, in a process of its own: libvirt 9.0 ends at some of them.
_PEER = """
import json, os, sys
import libvirt
libvirt.registerErrorHandler(lambda *_: None, None)
define, documents = json.load(sys.stdin)
answers = []
while len(answers) < len(documents):
    reader, writer = os.pipe()
    if not os.fork():
        with os.fdopen(writer, "w") as out:
            connection = libvirt.open("test:///default")
            for xml in documents[len(answers):]:
                try:
                    found = getattr(connection, define)(xml)
                    answer = ["kept", found.XMLDesc(0)]
                    found.undefine()
                except libvirt.libvirtError as error:
                    answer = ["refused", str(error)]
                print(json.dumps(answer), file=out, flush=True)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as told:
        answers += map(json.loads, told)
    if os.wait()[1]:
        answers.append(["ended", ""])
print(json.dumps([libvirt.getVersion(), answers]))
"""


# Zeros that libvirt writes where an address is still to be chosen.
_UNCHOSEN = re.compile("/address/(@port|@cssid|@ssid|@devno|zpci/@uid|zpci/@fid)$")


class Kind(NamedTuple):
    """How documents of a kind are given to a driver, and what is otherwise than libvirt's on purpose.

    Attributes:
        define: the method's name.
        refused: what only we refuse.
        taken: what only libvirt refuses.
        lost: what libvirt writes and we do not.
    """

    define: str
    refused: set[str] = set()
    taken: set[str] = set()
    lost: set[str] = set()


KINDS = {
    "domain": Kind(
        "defineXML",
        refused={
            # Sets of processors that go down or name none, of which libvirt's test driver makes nothing.
            "XML error: Invalid value for attribute * in element *: *. Write at least one number",
            "XML error: Invalid value for attribute * in element *: *. Write ranges that go up, and numbers below *",
            # A socket's mode, on what is no socket; a slot that is not said, on a balloon that is none.
            "XML error: Invalid value for attribute * in element *: *. Write connect or bind",
            "XML error: Missing required attribute * in element *",
            # What only libvirt's QEMU driver refuses.
            "XML error: need at least one serial port to use BIOS serial output",
            "cannot use feature-based firmware autoselection when firmware autoselection is disabled",
            "unsupported configuration: CPU topology doesn't match maximum vcpu count",
            "unsupported configuration: Invalid firmware name",
            # libvirt looks for sounds of screens of other types than D-Bus alone.
            "XML error: no audio device with ID *",
        },
        taken={
            # Kept, and refused when QEMU is to act on it.
            "XML error: Cannot parse USB device version *a*",
            "XML error: Missing required attribute * in element *",
            "unsupported configuration: Cannot find * : *",
            "unsupported configuration: Setting startupPolicy is only allowed for USB devices",
            "unsupported configuration: driver does not support FD passing for disk *",
            "internal error: Number of CPUs in <numa> exceeds the <vcpu> count",
            "internal error: unsupported input bus xen",
            # libvirt takes no bound for less than any.
            "unsupported configuration: thread_pool_min must be smaller or equal to thread_pool_max",
        },
        lost={
            "/domain/devices/graphics/@autoport",
            "/domain/devices/graphics/@port",
            "/domain/devices/interface/source/address/@type",
            "/domain/devices/interface/target",
            "/domain/devices/interface/target/@dev",
            "/domain/seclabel/@relabel",
        },
    ),
    "network": Kind("networkDefineXML"),
    "storagepool": Kind("storagePoolDefineXML"),
    "interface": Kind("interfaceDefineXML"),
}


@functools.cache
def made(name: str) -> tuple[Schema, list[tuple[str, Any]]]:
    """A schema with its documents."""
    schema = Schema(name)
    return schema, list(schema.documents())


def settled(path: str, document: Any) -> str:
    """The document with what every one needs and no schema asks for: a name, for domains memory and a system."""
    name = document.find("name")
    if name is not None and "name" not in path:
        name.text = "d"
    if document.tag != "domain":
        return etree.tostring(document, encoding="unicode")
    if not path.startswith("/domain/@type"):
        document.set("type", "test")
    if document.find("memory") is None:
        etree.SubElement(document, "memory").text = "1048576"
    system = document.find("os")
    if system is None:
        system = etree.SubElement(document, "os")
    if not path.startswith("/domain/os/type"):
        for type in system.findall("type"):
            system.remove(type)
        etree.SubElement(system, "type").text = "hvm"
    for target in document.iterfind("devices/disk/target"):
        if not path.endswith("/target/@dev~"):
            target.set("dev", {"scsi": "sda", "ide": "hda", "fdc": "fda"}.get(target.get("bus"), "vda"))
    return etree.tostring(document, encoding="unicode")


def ours(define: str, documents: list[str]) -> list[tuple[str, str]]:
    """What our driver makes of documents."""
    answers: list[tuple[str, str]] = []
    connection = libvirt.open(URI)
    for xml in documents:
        try:
            found = getattr(connection, define)(xml)
            answers.append(("kept", found.XMLDesc(0)))
            found.undefine()
        except libvirt.libvirtError as error:
            answers.append(("refused", str(error)))
    connection.close()
    return answers


def theirs(define: str, documents: list[str]) -> list[tuple[str, str]]:
    """What libvirt's makes of them."""
    asked = subprocess.run(
        [PYTHON, "-c", _PEER], input=json.dumps([define, documents]), capture_output=True, text=True, timeout=120,
        check=True,
    )  # fmt: skip
    version, answers = json.loads(asked.stdout)
    if version // 1000 != 9000:
        pytest.skip(f"compares with libvirt 9.0; here is {version}")
    return [tuple(answer) for answer in answers]


def plain(message: str) -> str:
    """A message without what it quotes."""
    return re.sub(r"'[^']*'|\d+", "*", message)


def _need_libvirt() -> None:
    if shutil.which(PYTHON) is None or subprocess.run([PYTHON, "-c", "import libvirt"], capture_output=True).returncode:
        pytest.skip("needs python3-libvirt")


@pytest.mark.requires_tool("virsh")
@pytest.mark.skipif(not SCHEMAS.is_dir(), reason="needs libvirt's schemas (package libvirt0)")
@pytest.mark.parametrize("name", KINDS)
def test_what_the_schema_allows_is_taken_refused_and_kept_as_by_libvirt(name: str) -> None:
    _need_libvirt()
    kind = KINDS[name]
    documents = [settled(path, document) for path, document in made(name)[1]]
    refused, taken, lost = set(), set(), set()
    for xml, mine, other in zip(documents, ours(kind.define, documents), theirs(kind.define, documents), strict=True):
        match mine, other:
            case ("refused", why), ("kept", _):
                refused.add((plain(why), xml))
            case ("kept", _), ("refused", why):
                taken.add((plain(why), xml))
            case ("kept", kept), ("kept", whole):
                missing = places(whole) - places(kept)
                lost |= {(place, xml) for place in missing if not _UNCHOSEN.search(place)}
    _compare(refused, kind.refused)
    _compare(taken, kind.taken)
    _compare(lost, kind.lost)


def spoilt(path: str, document: Any) -> str | None:
    """The document with a value of an attribute that is none; None where the path is not of such an attribute."""
    place, is_value, _ = path.partition("=")
    *above, last = place.split("/")[2:]
    if not is_value or not last.startswith("@"):
        return None
    element = etree.fromstring(settled(path, document))
    whole = element
    for name in above:
        element = next(below for below in element.iterchildren("*") if etree.QName(below).localname == name)
    element.set(last[1:], "frob")
    return etree.tostring(whole, encoding="unicode")


# Kept as it is, since no class declares it, or since it is a name to us.
_LEFT = re.compile("/@multifunction$|/hostdev/(@model|source/@startupPolicy)$|/os/type/@arch$")


@pytest.mark.requires_tool("virsh")
@pytest.mark.skipif(not SCHEMAS.is_dir(), reason="needs libvirt's schemas (package libvirt0)")
@pytest.mark.parametrize("name", KINDS)
def test_a_value_that_the_schema_does_not_have_is_refused_wherever_libvirt_refuses_it(name: str) -> None:
    _need_libvirt()
    (schema, found), define = made(name), KINDS[name].define
    wrong = {path.partition("=")[0]: xml for path, document in found if (xml := spoilt(path, document))}
    wrong = {path: xml for path, xml in wrong.items() if not schema.rules.validate(etree.fromstring(xml))}
    assert wrong
    documents = list(wrong.values())
    answers = zip(wrong, ours(define, documents), theirs(define, documents), strict=True)
    kept = [path for path, mine, other in answers if mine[0] == "kept" and other[0] == "refused"]
    assert [path for path in kept if not _LEFT.search(path)] == []


def _compare(found: set[tuple[str, str]], known: set[str]) -> None:
    assert [(what, xml) for what, xml in sorted(found) if what not in known] == []
