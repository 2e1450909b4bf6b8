"""``test:///FILE``: an invented host that a file describes, as libvirt's test driver reads it (``testOpenParse``)."""

from __future__ import annotations

import os
from typing import Any, Final

from lxml import etree

from hostel.codec import xmltext
from hostel.drivers.base import DomainState, StateInfo
from hostel.drivers.base.host import NodeInfo
from hostel.drivers.document import reading
from hostel.drivers.fault import fault, system_fault
from hostel.drivers.network.document import parse_network
from hostel.drivers.storage.document import parse_pool
from hostel.drivers.test.document import complete_snapshot, parse_domain
from hostel.drivers.test.host import Host, InterfaceEntry, TestDomain, TestNetwork, TestPool
from hostel.drivers.test.nodeinfo import INFO
from hostel.drivers.test.storage import add_volume
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.interface import read_interface
from hostel.model.node_device import read_node_device
from hostel.model.snapshot import read_snapshot

_MAX: Final = 10 * 1024 * 1024  # bytes of a file
_MODEL_LENGTH: Final = 31  # bytes of a processor's model
_NAMESPACE: Final = "{http://libvirt.org/schemas/domain/test/1.0}"


def read_host(path: str) -> tuple[Host, NodeInfo]:
    """Read a file, and those that it names.

    Raises:
        VirtError: one cannot be read, or is not what it is to be.
    """
    root = _read(path, "node")
    host = Host(furnished=False)
    info = _node_info(root)
    for node in root.iterfind("auth/user"):
        name = (node.text or "").strip()
        if not name:
            raise fault(ErrorCode.XML_ERROR, "missing username in /node/auth/user field", ErrorDomain.TEST)
        host.users[name] = node.get("password")
    for node in root.iterfind("domain"):
        _add_domain(host, _resolved(node, path), path)
    for node in root.iterfind("network"):
        network = TestNetwork(parse_network(_written(_resolved(node, path))), persistent=True)
        network.live = network.definition
        network.active = True
        host.networks[network.definition.name] = network
    for node in root.iterfind("pool"):
        _add_pool(host, _resolved(node, path), path)
    for node in root.iterfind("interface"):
        with reading(ErrorDomain.INTERFACE):
            interface = read_interface(_written(_resolved(node, path)))
        host.interfaces[interface.name] = InterfaceEntry(interface, active=True)
    host.node_devices = {}
    for node in root.iterfind("device"):
        with reading(ErrorDomain.NODEDEV):
            device = read_node_device(_written(_resolved(node, path)))
        host.node_devices[device.name or ""] = device
    return host, info


def _add_domain(host: Host, node: Any, path: str) -> None:
    """Add a domain, which runs unless the file says otherwise, with its snapshots."""
    extras = [child for child in node if str(child.tag).startswith(_NAMESPACE)]
    for child in extras:
        node.remove(child)
        child.tag = child.tag.removeprefix(_NAMESPACE)
    said = {child.tag: child for child in extras}
    snapshots = [child for child in extras if child.tag == "domainsnapshot"]
    domain = TestDomain(parse_domain(_written(node)), persistent="transient" not in said)
    domain.saved = "hasmanagedsave" in said
    state = _run_state(domain, said.get("runstate"))
    if domain.definition.name in host.domains:
        raise fault(ErrorCode.OPERATION_FAILED, f"domain '{domain.definition.name}' is there twice", ErrorDomain.TEST)
    host.domains[domain.definition.name] = domain
    _add_snapshots(domain, [_resolved(child, path) for child in snapshots])
    if state is not DomainState.SHUTOFF:
        host.boot(domain)
        domain.state = StateInfo(state, 0)


def _run_state(domain: TestDomain, node: Any) -> DomainState:
    """The state that a file says, which has to fit what else it says of a domain."""
    number = int(DomainState.RUNNING) if node is None else _number(node, "invalid runstate")
    if number > DomainState.PMSUSPENDED:
        raise _wrong(f"runstate '{number}' out of range'")  # with the quote that libvirt has there, too
    state = DomainState(number)
    if not domain.persistent and state is DomainState.SHUTOFF:
        raise _wrong("transient domain cannot have runstate 'shutoff'")
    if domain.saved and state is not DomainState.SHUTOFF:
        raise _wrong("domain with managedsave data can only have runstate 'shutoff'")
    return state


def _add_snapshots(domain: TestDomain, nodes: list[Any]) -> None:
    """Add a domain's snapshots, in any order; one of them may be the current one."""
    known = domain.snapshots
    for node in nodes:
        with reading(ErrorDomain.DOMAIN_SNAPSHOT):
            snapshot = read_snapshot(_written(node), now=None, redefine=True)
            complete_snapshot(snapshot)
        name = snapshot.name or ""
        if name in known.documents:
            raise fault(ErrorCode.OPERATION_FAILED, f"domain moment {name} already exists", ErrorDomain.DOMAIN)
        known.documents[name] = snapshot
        if snapshot.active:
            if known.current is not None:
                detail = "more than one snapshot claims to be active"
                raise fault(ErrorCode.INTERNAL_ERROR, detail, ErrorDomain.TEST)
            known.current = name
        snapshot.active = None
    if not known.is_consistent():
        detail = f"Snapshots have inconsistent relations for domain {domain.definition.name}"
        raise fault(ErrorCode.INTERNAL_ERROR, detail, ErrorDomain.TEST)


def _add_pool(host: Host, node: Any, path: str) -> None:
    """Add a pool, which is active, with its volumes."""
    volumes = [_resolved(child, path) for child in node.iterfind("volume")]
    for child in node.findall("volume"):
        node.remove(child)
    pool = TestPool(parse_pool(_written(node)), persistent=True)
    pool.active = True
    host.pools[pool.definition.name] = pool
    for volume in volumes:
        add_volume(pool, _written(volume), place=volume.findtext("target/path"))


def _node_info(root: Any) -> NodeInfo:
    """The processors and the memory that a file tells of; what it does not is the default host's."""
    values: dict[str, Any] = {}
    for name in ("nodes", "sockets", "cores", "threads", "mhz"):
        node = root.find(f"cpu/{name}")
        if node is not None:
            values[name] = _number(node, f"invalid node cpu {name} value")
    info = INFO._replace(**values)
    cpus = info.cores * info.threads * info.sockets * info.nodes
    active, memory = root.find("cpu/active"), root.find("memory")
    if active is not None:
        cpus = min(cpus, _number(active, "invalid node cpu active value"))
    model = root.findtext("cpu/model") or info.model
    if len(model.encode()) > _MODEL_LENGTH:
        detail = f"Model {model} too big for destination"
        raise fault(ErrorCode.INTERNAL_ERROR, detail, ErrorDomain.TEST)
    size = info.memory if memory is None else _number(memory, "invalid node memory value")
    return info._replace(cpus=cpus, model=model, memory=size)


def _resolved(node: Any, path: str) -> Any:
    """An element, or the file's that it names; relative names are from the file that names it."""
    name = node.get("file")
    return node if name is None else _read(os.path.join(os.path.dirname(path), name), node.tag)


def _read(path: str, tag: str) -> Any:
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX + 1)
        if len(data) > _MAX:
            raise _wrong(f"'{path}' has more than {_MAX} bytes")
        text = data.decode()
    except OSError as error:
        raise system_fault(error, f"failed to open file '{path}'", ErrorDomain.TEST) from error
    except UnicodeDecodeError as error:
        raise _wrong(f"'{path}': byte {error.start} is not UTF-8") from None
    with reading(ErrorDomain.TEST):
        root = xmltext.parse(text, os.path.basename(path))
    if root.tag != tag:
        raise _wrong(f"expecting root element of '{tag}', not '{root.tag}'")
    return root


def _written(node: Any) -> str:
    """An element as a document of its own."""
    tail, node.tail = node.tail, None
    try:
        return str(etree.tostring(node, encoding="unicode"))
    finally:
        node.tail = tail


def _number(node: Any, message: str) -> int:
    text = (node.text or "").strip()
    if not text.isascii() or not text.isdecimal() or len(text) > 18:
        raise _wrong(message)
    return int(text)


def _wrong(detail: str) -> VirtError:
    return fault(ErrorCode.XML_ERROR, detail, ErrorDomain.TEST)
