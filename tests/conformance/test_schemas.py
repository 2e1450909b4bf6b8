"""What the model declares is in libvirt's own schemas, under the same names and in the same places."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from hostel.codec.xml import Element
from hostel.codec.xmlfield import Attribute, Child, Field, Setting, Settings
from hostel.model.domain.domain import Domain
from hostel.model.network import Network
from hostel.model.storage import Pool, Volume

# A class serves several places, and some of them have less.
SHARED = {
    *(f"/domain/devices/{name}/acpi" for name in ("channel", "hub", "nvram", "panic", "redirdev", "tpm")),
    *(f"/domain/devices/{name}/alias" for name in ("nvram", "smartcard")),
    "/domain/devices/disk/auth/@type",
    "/domain/devices/hostdev/source/address/@type",
    "/domain/devices/hostdev/source/auth/@type",
    "/domain/devices/hostdev/source/host/@socket",
    "/domain/devices/hostdev/source/host/@transport",
    "/domain/os/nvram/source/auth/@type",
    *(f"/domain/sysinfo/{name}/entry/@file" for name in ("baseBoard", "bios", "chassis", "oemStrings", "system")),
    "/domain/sysinfo/oemStrings/entry/@name",
    "/pool/source/auth/secret/@type",
    "/pool/source/host/@socket",
    "/pool/source/host/@transport",
}
# libvirt reads or writes these, whatever its schemas say: while a domain runs, or when it moves.
UNWRITTEN = {
    "/domain/devices/filesystem/source/@pool",
    "/domain/devices/filesystem/source/@volume",
    "/domain/devices/hostdev/source/@autoAddress",
    "/domain/devices/hostdev/source/@missing",
    "/domain/devices/hostdev/source/origstates",
    "/domain/devices/interface/actual",
}
# Later than libvirt 9.0.
LATER = {
    "/domain/devices/disk/blockio/@discard_granularity",
    "/domain/devices/sound/@multichannel",
    "/domain/devices/video/model/@blob",
    "/domain/os/loader/@format",
    "/domain/os/nvram/@format",
    "/network/domain/@register",
}
# In libvirt's schemas and not in the model: other hypervisors', what a daemon keeps for itself, and slips.
LEFT = {
    "/domain/datacenterpath",
    "/domain/devices/console/target/model",
    "/domain/devices/disk/backingStore/source/address/@multifunction",
    "/domain/devices/disk/backingStore/source/privateData",
    "/domain/devices/disk/backingStore/source/reservations/source/reconnect",
    "/domain/devices/disk/privateData",
    "/domain/devices/hostdev/source/address/@multifunction",
    "/domain/devices/interface/source/@macTableManager",
    "/domain/devices/interface/source/@missing",
    "/domain/devices/interface/source/address/@device",
    "/domain/devices/interface/source/address/@multifunction",
    "/domain/devices/interface/source/product",
    "/domain/devices/interface/source/vendor",
    "/domain/devices/parallel/@tty",
    "/domain/devices/parallel/target/@type",
    "/domain/devices/parallel/target/model",
    "/domain/devices/rng/backend/log",
    "/domain/devices/serial/@tty",
    "/domain/devices/smartcard/target",
    "/domain/launchSecurity/handle",
    "/domain/namespace",
    "/domain/os/nvram/source/address/@multifunction",
    "/domain/os/nvram/source/privateData",
    "/domain/os/nvram/source/reservations/source/reconnect",
    "/network/forward/address/@multifunction",
    "/pool/source/adapter/parentaddr/address/@multifunction",
}
ROOTS = pytest.mark.parametrize(
    ("root", "name"),
    [(Domain, "domain.rng"), (Network, "network.rng"), (Pool, "storagepool.rng"), (Volume, "storagevol.rng")],
)
SCHEMAS = Path("/usr/share/libvirt/schemas")
RNG = "{http://relaxng.org/ns/structure/1.0}"

pytestmark = pytest.mark.skipif(not SCHEMAS.is_dir(), reason="needs libvirt's schemas (package libvirt0)")


class Schema:
    """A schema's elements by what may be in them; alternatives are joined."""

    def __init__(self, name: str) -> None:
        self.defined: dict[str, list[Any]] = {}
        self.starts: list[Any] = []
        self.alive: list[Any] = []
        self._load(name, set())

    def _load(self, name: str, loaded: set[str]) -> None:
        if name in loaded:
            return
        loaded.add(name)
        root = etree.parse(SCHEMAS / name).getroot()
        self.alive += root.iter()  # an id is only a node's own while something refers to it
        for node in root.iter(f"{RNG}define"):
            self.defined.setdefault(node.get("name"), []).append(node)
        self.starts += [*root.iter(f"{RNG}start")] if not self.starts else []
        for node in root.iter(f"{RNG}include"):
            self._load(node.get("href"), loaded)

    def inside(self, nodes: list[Any]) -> tuple[dict[str, list[Any]], set[str]]:
        """The elements and the attributes that may be directly in some elements."""
        elements: dict[str, list[Any]] = {}
        attributes: set[str] = set()
        for node in self._parts(nodes, set()):
            if node.tag == f"{RNG}attribute":
                attributes.add(node.get("name") or "*")
            else:
                for name in names_of(node):
                    elements.setdefault(name, []).append(node)
        return elements, attributes

    def _parts(self, nodes: list[Any], seen: set[str]) -> Iterator[Any]:
        for node in nodes:
            for below in node:
                if below.tag in (f"{RNG}element", f"{RNG}attribute"):
                    yield below
                elif below.tag == f"{RNG}ref":
                    name = below.get("name")
                    if name not in seen:
                        seen.add(name)
                        yield from self._parts(self.defined[name], seen)
                elif isinstance(below.tag, str):
                    yield from self._parts([below], seen)


def names_of(node: Any) -> list[str]:
    if name := node.get("name"):
        return [name.rpartition(":")[2]]
    return [below.text for below in node.iter(f"{RNG}name")] or ["*"]


@functools.cache
def schema(name: str) -> Schema:
    return Schema(name)


def strangers(rules: Schema, cls: type[Element], nodes: list[Any], path: str, seen: set[Any]) -> Iterator[str]:
    """What a class declares, and the classes in it, that the schema does not have there."""
    key = (cls, frozenset(map(id, nodes)))
    if key in seen:
        return
    seen.add(key)
    elements, attributes = rules.inside(nodes)
    if "*" in elements:
        return
    for field in cls.FIELDS:
        yield from _strangers(rules, field, elements, attributes, path, seen)


def _strangers(
    rules: Schema, field: Field, elements: dict[str, list[Any]], attributes: set[str], path: str, seen: set[Any]
) -> Iterator[str]:
    if isinstance(field, Attribute):
        if field.tag not in attributes:
            yield f"{path}/@{field.tag}"
    elif isinstance(field, Child):
        for cls in field.classes:
            if cls.TAG in elements:
                yield from strangers(rules, cls, elements[cls.TAG], f"{path}/{cls.TAG}", seen)
            else:
                yield f"{path}/{cls.TAG}"
    elif field.tag and field.tags():
        if field.tag not in elements:
            yield f"{path}/{field.tag}"
        elif isinstance(field, Setting | Settings):
            below = rules.inside(elements[field.tag])[1]
            if field.attribute.tag not in below:
                yield f"{path}/{field.tag}/@{field.attribute.tag}"


def left(
    rules: Schema, classes: tuple[type[Element], ...], nodes: list[Any], path: str, seen: set[Any]
) -> Iterator[str]:
    """What the schema has and no class that may be there declares."""
    key = (classes, frozenset(map(id, nodes)))
    if key in seen:
        return
    seen.add(key)
    elements, attributes = rules.inside(nodes)
    fields = [field for cls in classes for field in cls.FIELDS]
    known = {field.tag for field in fields if isinstance(field, Attribute)} | {
        name for cls in classes for name in cls.WHEN
    }
    below: dict[str, set[type[Element]]] = {field.tag: set() for field in fields if field.tag and field.tags()}
    for field in fields:
        for cls in field.classes if isinstance(field, Child) else ():
            below.setdefault(cls.TAG, set()).add(cls)
    yield from (f"{path}/@{name}" for name in attributes - known)
    for name, found in sorted(elements.items()):
        if name not in below:
            yield f"{path}/{name}"
        elif below[name]:
            yield from left(rules, tuple(sorted(below[name], key=str)), found, f"{path}/{name}", seen)


@ROOTS
def test_every_declaration_is_in_libvirts_schema(root: type[Element], name: str) -> None:
    rules = schema(name)
    elements, _ = rules.inside(rules.starts)
    found = set(strangers(rules, root, elements[root.TAG], f"/{root.TAG}", set()))
    assert sorted(found - SHARED - UNWRITTEN - LATER) == []


@ROOTS
def test_everything_in_libvirts_schema_is_declared(root: type[Element], name: str) -> None:
    rules = schema(name)
    elements, _ = rules.inside(rules.starts)
    found = set(left(rules, (root,), elements[root.TAG], f"/{root.TAG}", set()))
    assert sorted(found - LEFT) == []
