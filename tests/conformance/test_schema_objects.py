"""A document for each way through libvirt's schemas of what is no domain, network, pool or interface.

Those are in :mod:`test_schema_documents`. Here what is printed is compared too, to the letter.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from lxml import etree

from hostel.codec.xml import Element
from hostel.model.capabilities import Capabilities
from hostel.model.domain_capabilities import DomainCapabilities
from hostel.model.storage_capabilities import StoragePoolCapabilities
from support import given_documents, libvirtd, libvirtd_system
from support.given_documents import Answer
from support.relaxng import SCHEMAS, Schema, places

TEST = "test:///default"
Settle = Callable[[str, Any], None]
# What is made up, and differs: when something was made, which is also what it and its files are called, and UUIDs.
_TIME = re.compile(r"(?<=[>'.])1[0-9]{9}(?=[<'])")
_UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Kind(NamedTuple):
    """How documents of a kind are given to drivers.

    Attributes:
        schema: its name.
        call: a method of :class:`given_documents.Calls`.
        settle: puts in what every document needs and no schema asks for.
        differences: what is otherwise than libvirt's on purpose: a pattern of the document's path, and of what we do.
        daemon: whose driver it is, where that is not the test driver's: a session's, or the system's.
    """

    schema: str
    call: str
    settle: Settle
    differences: tuple[tuple[str, str], ...] = ()
    daemon: str = ""


def _nothing(path: str, document: Any) -> None:
    """Documents that need nothing more."""


def _settle_processor(path: str, document: Any) -> None:
    """Of a model and with features that there are."""
    arch, model = document.find("arch"), document.find("model")
    if arch is not None and "/arch" not in path:
        arch.text = "x86_64"
    if model is not None:
        model.text = "qemu64"
    for feature in document.iterfind("feature"):
        feature.set("name", "sse2")


def _settle_told(path: str, document: Any) -> None:
    """Sets of processors that go up, and kinds that there are."""
    for element in document.iter():
        for name, value in (("cpus", "0-1"), ("siblings", "0-1"), ("unit", "KiB")):
            if name in element.attrib:
                element.set(name, value)
        if element.tag in ("pages", "memory"):
            element.set("unit", "KiB")
        if document.tag == "storagepoolCapabilities" and element.tag == "pool":
            element.set("type", "dir")


def _put(document: Any, tag: str, text: str, at: int) -> None:
    if document.find(tag) is None:
        element = etree.Element(tag)
        element.text = text
        document.insert(at, element)


def _settle_filter(path: str, document: Any) -> None:
    """Variables as libvirt's parser has them, whatever its schema; another filter than itself."""
    for element in document.iter():
        for name, value in element.attrib.items():
            if value.startswith("$"):
                element.set(name, "$" + value[1:].strip())
        if element.tag == "filterref":
            element.set("filter", "other")
    if "uuid" not in path and document.find("uuid") is not None:
        document.remove(document.find("uuid"))


def _settle_device(path: str, document: Any) -> None:
    for element in document.iter("address"):
        if "function" in element.attrib and "function" not in path:
            element.set("function", "0x7")


def _settle_volume(path: str, document: Any) -> None:
    _put(document, "name", "v", 0)
    _put(document, "capacity", "4096", 1)


def _settle_moment(path: str, document: Any) -> None:
    """Of disks that the domain has; overlays that are somewhere."""
    for tag in ("domain", "inactiveDomain"):
        for element in document.findall(tag):
            document.remove(element)
    for disk in document.iterfind("disks/disk"):
        if not path.endswith("disk/@name~"):
            disk.set("name", "vda")
        source = disk.find("source")
        if source is None:
            continue
        for name in ("file", "dev"):
            if name in source.attrib and not path.endswith(f"@{name}~"):
                source.set(name, "/overlay")
        if source.get("protocol") in ("rbd", "gluster") and not path.endswith("source/@name"):
            source.set("name", "pool/image")
        if "@snapshot" not in path:
            disk.set("snapshot", "external")


def _settle_again(path: str, document: Any) -> None:
    _settle_moment(path, document)
    _put(document, "name", "s", 0)
    _put(document, "creationTime", "1", 1)
    if document.tag == "domainsnapshot":
        _put(document, "state", "shutoff", 2)
    document.append(etree.fromstring(given_documents.guest("FOLDER")))


def _settle_backup(path: str, document: Any) -> None:
    """Of a disk of the machine, to a file that is named; served where a server can be."""
    server, tag = document.find("server"), "scratch" if document.get("mode") == "pull" else "target"
    for disk in document.iterfind("disks/disk"):
        if not path.endswith("disk/@name~"):
            disk.set("name", "vda")
        store = disk.find(tag)
        if store is None and disk.get("backup") != "no":
            store = etree.Element(tag)
            disk.insert(0, store)
        if store is not None and not path.endswith(("@file~", "@dev~")):
            is_block = disk.get("type") == "block"
            store.set("dev" if is_block else "file", "/dev/nosuch" if is_block else "FOLDER/store")
    if server is not None and server.get("transport") == "unix":
        server.set("socket", "FOLDER/sock")
    elif server is not None:
        server.set("name", "127.0.0.1")
        server.set("port", str(_FREE_PORT))


# Sets of processors that go down or name none, of which libvirt makes nothing.
_SETS = (("/cpu/numa/cell/@cpus~", "Write ranges that go up"),)
_FREE_PORT = 10719  # which nobody else's tests use
KINDS = {
    "secret": Kind("secret", "secret", _nothing, daemon="session"),
    "filter": Kind(
        "nwfilter",
        "filter",
        _settle_filter,
        (
            # libvirt loses an ipset that has flags, of protocols beyond "all"; and flags of TCP in IPv6.
            ("/filter/rule/.*/@ipset(flags)?~", "ipset|^- *<[a-z]+/>$"),
            ("/filter/rule/tcp-ipv6/@flags~", "<tcp-ipv6"),
        ),
        daemon="system",
    ),
    "device": Kind(
        "nodedev",
        "device",
        _settle_device,
        (
            ("/device/capability/.*", "<(product|vendor) id='0x....' ?/>"),
            # libvirt writes these, and does not read them.
            ("/device/capability/(char|chardev~|@type=(vdpa|scsi_generic))", "unknown capability type"),
        ),
    ),
    "made device": Kind("nodedev", "made_device", _settle_device),
    "volume": Kind("storagevol", "volume", _settle_volume, (("/volume/target/nocow", "<nocow/>"),)),
    "snapshot": Kind("domainsnapshot", "snapshot", _settle_moment),
    "snapshot again": Kind(
        "domainsnapshot",
        "snapshot_again",
        _settle_again,
        # libvirt reads these of some protocols alone.
        (("/domainsnapshot/disks/disk/source/(readahead|timeout).*", "<(readahead|timeout) "),),
    ),
    "checkpoint": Kind("domaincheckpoint", "checkpoint", _settle_moment),
    "checkpoint again": Kind("domaincheckpoint", "checkpoint_again", _settle_again),
    "backup": Kind(
        "domainbackup",
        "backup",
        _settle_backup,
        (
            # Files that root may write and a session's user may not, and certificates that nobody has put there.
            ("/domainbackup/disks/disk/(target|scratch)/@file~", "."),
            ("/domainbackup/server/@tls=yes", "backup TLS directory not configured"),
            # Formats that libvirt has names for and nobody makes images of; one whose size QEMU rounds.
            ("/domainbackup/disks/disk/driver/@type=(vhd|ploop)", "Unknown file format"),
            ("/domainbackup/disks/disk/driver/@type=vpc", "different sizes"),
            # A word that the schema has and libvirt's reader has not; ours has neither.
            ("/domainbackup/disks/disk/driver/@type=luks", r"refused \(92\)"),
            # libvirt says of labels that they are put on even where the document does not.
            ("/domainbackup/disks/disk/scratch/seclabel/.*", "<seclabel"),
        ),
        daemon="session",
    ),
    "processor": Kind("cpu", "compared", _settle_processor, _SETS, "session"),
    "processor for the emulator": Kind("cpu", "compared_with_emulator", _settle_processor, _SETS, "session"),
    "processor in common": Kind("cpu", "baseline", _settle_processor, _SETS, "session"),
    "processor in common for the emulator": Kind("cpu", "baseline_of_emulator", _settle_processor, _SETS, "session"),
}


@functools.cache
def made(name: str) -> tuple[tuple[str, str], ...]:
    """The documents of a kind, each with its path."""
    kind = KINDS[name]
    documents = []
    for path, document in Schema(kind.schema).documents(every_route=True):
        if not re.match("/domain(snapshot|checkpoint)/(domain|inactiveDomain)/.", path):
            kind.settle(path, document)
            documents.append((path, etree.tostring(document, encoding="unicode")))
    return tuple(documents)


@pytest.fixture(scope="module")
def daemons() -> Iterator[Callable[[str], str]]:
    """Gives the URI of a daemon, which is started when it is first asked for."""
    with contextlib.ExitStack() as stack:

        @functools.cache
        def find(kind: str) -> str:
            if kind == "session":
                return stack.enter_context(libvirtd.running()).uri
            if os.geteuid():
                pytest.skip("filters are root's")
            return stack.enter_context(libvirtd_system.running(drivers=("nwfilter",)))

        yield find


def _need_libvirt() -> None:
    python = given_documents.PYTHON
    if shutil.which(python) is None or subprocess.run([python, "-c", "import libvirt"], capture_output=True).returncode:
        pytest.skip("needs python3-libvirt")


@pytest.mark.requires_tool("virsh")
@pytest.mark.requires_tool("libvirtd")
@pytest.mark.skipif(not SCHEMAS.is_dir(), reason="needs libvirt's schemas (package libvirt0)")
@pytest.mark.parametrize("name", KINDS)
def test_what_the_schema_allows_is_taken_refused_and_printed_as_by_libvirt(
    name: str, daemons: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _need_libvirt()
    monkeypatch.setenv("HOSTEL_HOME", str(tmp_path))
    kind = KINDS[name]
    documents = [xml for _, xml in made(name)]
    asked = given_documents.theirs(kind.call, daemons(kind.daemon) if kind.daemon else TEST, documents)
    if asked is None:
        pytest.skip("compares with libvirt 9.0")
    mine = given_documents.ours(kind.call, "qemu:///session" if kind.daemon == "session" else TEST, documents)
    found = [
        f"{path}: {what}"
        for (path, xml), own, other in zip(made(name), mine, asked, strict=True)
        for what in _differences(xml, own, other)
        if not any(re.fullmatch(place, path) and re.search(known, what) for place, known in kind.differences)
    ]
    assert found == []


def _differences(xml: str, mine: Answer, other: Answer) -> list[str]:
    """What is otherwise; of errors only the number is compared, as ours have more to say."""
    if (mine[0], mine[2]) != (other[0], other[2]):
        return [f"{_said(mine)}, where libvirt has {_said(other)}, of {xml}"]
    if mine[0] == "refused":
        return []
    own, whole = (_plain(answer[1], xml).splitlines() for answer in (mine, other))
    return [line for line in difflib.ndiff(whole, own) if line[0] in "+-"]


def _said(answer: Answer) -> str:
    return "it kept" if answer[0] == "kept" else f"{answer[0]} ({answer[2]}): {answer[1]}"


def _plain(text: str, xml: str) -> str:
    known = xml.lower()
    text = re.sub("(?s)\n  <domain type=.*</domain>", "", text)
    text = _UUID.sub(lambda found: found[0] if found[0] in known else "UUID", text)
    return _TIME.sub("TIME", text)


@pytest.mark.skipif(not SCHEMAS.is_dir(), reason="needs libvirt's schemas (package libvirt0)")
@pytest.mark.parametrize(
    ("name", "cls"),
    [("capability", Capabilities), ("domaincaps", DomainCapabilities), ("storagepoolcaps", StoragePoolCapabilities)],
)
def test_nothing_is_lost_of_what_hosts_tell_of_themselves(name: str, cls: type[Element]) -> None:
    schema = Schema(name)
    for path, document in schema.documents(every_route=True):
        _settle_told(path, document)
        assert schema.rules.validate(document), path
        xml = etree.tostring(document, encoding="unicode")
        found = cls.parse(xml)
        assert list(found.unknown_paths()) == []
        written = found.format()
        assert schema.rules.validate(etree.fromstring(written)), (path, schema.rules.error_log.last_error)
        assert not places(xml) - places(written), path
