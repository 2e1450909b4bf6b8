"""What the host and its QEMU can do, beside a real libvirtd, and by libvirt's schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from hostel.drivers.qemu.capabilities import capabilities
from hostel.drivers.qemu.cpu.known import known
from support import libvirtd

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.requires_tool("virsh"),
    pytest.mark.requires_tool("libvirtd"),
]
SCHEMA = Path("/usr/share/libvirt/schemas/capability.rng")
# A session's host has another identity each time; libvirt's guests migrate over RDMA too. What a model is made of is
# QEMU's here and libvirt's there, so that the name may be another.
OTHERWISE = ("host/uuid", "host/cpu/model", "host/cpu/feature", "host/migration_features/*/uri_transport[2]")


def without(xml: str, *paths: str) -> Any:
    root = etree.fromstring(xml, etree.XMLParser(remove_blank_text=True))
    for path in paths:
        for element in root.findall(path):
            remove(element)
    return root


def remove(element: etree._Element) -> None:
    parent = element.getparent()
    assert parent is not None
    parent.remove(element)


def test_host_and_guests_are_what_libvirtd_says(tmp_path: Path) -> None:
    with libvirtd.running() as daemon:
        daemon.skip_unless_recorded()
        before = ""
        for _ in range(10):  # a virtual host may be given memory meanwhile, or have to give some back
            told, after = daemon.virsh("capabilities").stdout, capabilities(tmp_path).format()
            if before == after:
                break
            before = after
    theirs = without(told, *OTHERWISE)
    ours = without(after, *OTHERWISE)
    assert etree.tostring(ours, pretty_print=True) == etree.tostring(theirs, pretty_print=True)

    host = capabilities(tmp_path).host
    assert host is not None and host.cpu is not None and host.cpu.model is not None
    models = known("/usr/bin/qemu-system-x86_64", tmp_path, kvm=False).models
    has = {item.name for item in host.cpu.features} | models[host.cpu.model].features
    assert {item.get("name") for item in etree.fromstring(told).findall("host/cpu/feature")} <= has


def test_schema_takes_the_document(tmp_path: Path) -> None:
    document = etree.fromstring(capabilities(tmp_path).format())
    for element in document.findall("host/cpu/feature"):
        if "." in element.get("name", ""):  # which libxml2 does not find in the schema's pattern for such names
            remove(element)
    schema = etree.RelaxNG(etree.parse(str(SCHEMA)))
    schema.assertValid(document)
