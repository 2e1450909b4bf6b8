"""What the host and its QEMU can do, beside a real libvirtd, and by libvirt's schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from hostel.drivers.qemu.capabilities import capabilities
from support import libvirtd

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.requires_tool("virsh"),
    pytest.mark.requires_tool("libvirtd"),
]
SCHEMA = Path("/usr/share/libvirt/schemas/capability.rng")
# A session's host has another identity each time; models and features of processors are libvirt's own names; there is
# no migration here.
OTHERWISE = ("host/uuid", "host/cpu/model", "host/cpu/feature", "host/migration_features")


def without(xml: str, *paths: str) -> Any:
    root = etree.fromstring(xml, etree.XMLParser(remove_blank_text=True))
    for path in paths:
        for element in root.findall(path):
            element.getparent().remove(element)
    return root


def test_host_and_guests_are_what_libvirtd_says(tmp_path: Path) -> None:
    with libvirtd.running() as daemon:
        daemon.skip_unless_recorded()
        theirs = without(daemon.virsh("capabilities").stdout, *OTHERWISE)
    ours = without(capabilities(tmp_path).format(), *OTHERWISE)
    assert etree.tostring(ours, pretty_print=True) == etree.tostring(theirs, pretty_print=True)


def test_schema_takes_the_document(tmp_path: Path) -> None:
    document = etree.fromstring(capabilities(tmp_path).format())
    schema = etree.RelaxNG(etree.parse(str(SCHEMA)))
    schema.assertValid(document)
