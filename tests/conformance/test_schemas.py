"""What the model declares is in libvirt's own schemas, under the same names and in the same places."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from hostel.codec.xml import Element
from hostel.codec.xmlfield import Attribute, Child, Field, Setting, Settings
from hostel.drivers.topology import host_bandwidth, host_cache, host_topology
from hostel.model.backup import Backup
from hostel.model.capabilities import Capabilities, Host, HostCpu
from hostel.model.checkpoint import Checkpoint
from hostel.model.domain.domain import Domain
from hostel.model.domain_capabilities import DomainCapabilities
from hostel.model.interface import HostInterface
from hostel.model.network import Network
from hostel.model.network_port import NetworkPort
from hostel.model.node_device import NodeDevice
from hostel.model.nwfilter.binding import FilterBinding
from hostel.model.nwfilter.filter import Filter
from hostel.model.secret import Secret
from hostel.model.snapshot import Snapshot
from hostel.model.storage import Pool, PoolType, Volume
from hostel.model.storage_capabilities import StoragePoolCapabilities, storage_capabilities

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
# A class serves whole subtrees: the domain in a snapshot is the domain's, and so are sources of disks.
ELSEWHERE = re.compile(
    "/(domainsnapshot/(domain|inactiveDomain)|domaincheckpoint/domain"
    "|domainsnapshot/disks/disk/source/|domainbackup/disks/disk/(target|scratch)/)"
)
# The schema of snapshots takes that of domains in, so that what a disk may have there seems to be here too.
MERGED = re.compile(r"/domainsnapshot/disks/disk/(?!name|snapshot|type|source|driver/(@type|metadata_cache))")
# libvirt reads or writes these, whatever its schemas say: while a domain runs, or when it moves.
UNWRITTEN = {
    "/domain/cputune/memorytune/@id",
    "/capabilities/guest/arch/domain/loader",
    "/capabilities/host/cpu/feature/@policy",
    "/capabilities/host/netprefix",
    "/capabilities/pool",
    *(f"/device/capability/type/{name}" for name in ("availableInstances", "deviceAPI", "name")),
    "/domainCapabilities/cpu/mode/maxphysaddr",
    "/domainCapabilities/features/sev/cpu0Id",
    "/domainbackup/disks/disk/@index",
    "/domainbackup/disks/disk/@state",
    "/domainbackup/privateData",
    "/domainsnapshot/disks/disk/snapshotDeleteInProgress",
    *(
        f"/filter/rule/{protocol}/@{name}"
        for protocol in (f"{name}-ipv6" for name in ("ah", "all", "esp", "sctp", "tcp", "udp", "udplite"))
        for name in ("connlimit-above", "ipset", "ipsetflags", "state")
    ),
    *(f"/filter/rule/icmpv6/@{name}" for name in ("connlimit-above", "ipset", "ipsetflags", "state")),
    *(f"/filter/rule/{name}/@{mask}" for name in ("arp", "rarp") for mask in ("arpdstipmask", "arpsrcipmask")),
    *(f"/filter/rule/{name}/@option" for name in ("tcp", "tcp-ipv6")),
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
    "/domain/devices/interface/source/address/@multifunction",
    "/domain/devices/parallel/@tty",
    "/domain/devices/parallel/target/@type",
    "/domain/devices/parallel/target/model",
    "/domain/devices/serial/@tty",
    "/domain/devices/smartcard/target",
    "/domain/launchSecurity/handle",
    "/domain/namespace",
    "/domain/os/nvram/source/address/@multifunction",
    "/domain/os/nvram/source/privateData",
    "/domain/os/nvram/source/reservations/source/reconnect",
    "/domainsnapshot/cookie/*",
    "/network/forward/address/@multifunction",
    "/networkport/plug/address/@multifunction",
    "/pool/source/adapter/parentaddr/address/@multifunction",
}
SCHEMAS_OF: dict[type[Element], str] = {
    Domain: "domain.rng",
    Network: "network.rng",
    NetworkPort: "networkport.rng",
    Pool: "storagepool.rng",
    Volume: "storagevol.rng",
    StoragePoolCapabilities: "storagepoolcaps.rng",
    NodeDevice: "nodedev.rng",
    HostInterface: "interface.rng",
    Secret: "secret.rng",
    Snapshot: "domainsnapshot.rng",
    Checkpoint: "domaincheckpoint.rng",
    Backup: "domainbackup.rng",
    Filter: "nwfilter.rng",
    FilterBinding: "nwfilterbinding.rng",
    Capabilities: "capability.rng",
    DomainCapabilities: "domaincaps.rng",
}
ROOTS = pytest.mark.parametrize(
    ("root", "name"), SCHEMAS_OF.items(), ids=lambda value: getattr(value, "__name__", value)
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
            self.defined.setdefault(str(node.get("name")), []).append(node)
        self.starts += [*root.iter(f"{RNG}start")] if not self.starts else []
        for node in root.iter(f"{RNG}include"):
            self._load(str(node.get("href")), loaded)

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
    assert [path for path in sorted(found - SHARED - UNWRITTEN - LATER) if not ELSEWHERE.match(path)] == []


@ROOTS
def test_everything_in_libvirts_schema_is_declared(root: type[Element], name: str) -> None:
    rules = schema(name)
    elements, _ = rules.inside(rules.starts)
    found = set(left(rules, (root,), elements[root.TAG], f"/{root.TAG}", set()))
    assert [path for path in sorted(found - LEFT) if not ELSEWHERE.match(path) and not MERGED.match(path)] == []


GOLDEN = Path(__file__).parents[1] / "golden"
# The root of a kind of golden documents.
KINDS: dict[str, type[Element]] = {
    "domain": Domain,
    "network": Network,
    "pool": Pool,
    "volume": Volume,
    "interface": HostInterface,
    "node_device": NodeDevice,
    "secret": Secret,
    "nwfilter": Filter,
    "snapshot": Snapshot,
    "checkpoint": Checkpoint,
}
# libvirt writes two matches of one protocol where one of them is negated; its schema has room for one.
TOO_MUCH = {"nwfilter/negated.out.xml"}
WRITTEN = sorted(f"{kind}/{path.name}" for kind in KINDS for path in (GOLDEN / kind).glob("*.out.xml"))


@functools.cache
def relax_ng(name: str) -> Any:
    return etree.RelaxNG(etree.parse(SCHEMAS / name))


@pytest.mark.parametrize("case", [case for case in WRITTEN if case not in TOO_MUCH])
def test_libvirts_schema_accepts_what_we_write(case: str) -> None:
    cls = KINDS[case.partition("/")[0]]
    rules = relax_ng(SCHEMAS_OF[cls])
    written = etree.fromstring(cls.parse((GOLDEN / case).read_text()).format())
    assert rules.validate(written), rules.error_log.last_error


def test_libvirts_schema_accepts_what_storage_can_do() -> None:
    rules = relax_ng(SCHEMAS_OF[StoragePoolCapabilities])
    assert rules.validate(etree.fromstring(storage_capabilities([PoolType.DIR]).format())), rules.error_log.last_error


def test_libvirts_schema_accepts_what_this_host_has() -> None:
    cache = host_cache()
    host = Host(cpu=HostCpu(arch="x86_64"), topology=host_topology(), cache=cache, bandwidth=host_bandwidth(cache))
    rules = relax_ng(SCHEMAS_OF[Capabilities])
    assert rules.validate(etree.fromstring(Capabilities(host=host).format())), rules.error_log.last_error
