"""Documents held against their schema, for those who ask: what it does not have is refused by its path.

The declarations in :mod:`hostel.model` have every element and attribute of libvirt's schemas; a document that is not to
be validated keeps what they do not have. What the schemas ask for beyond that is in
:mod:`hostel.drivers.schema_rules`.
"""

from __future__ import annotations

import importlib
from typing import Any, Final

from hostel.codec.xml import Element
from hostel.codec.xmltext import parse
from hostel.drivers.fault import fault
from hostel.drivers.schema_rules import check_rules
from hostel.errors import ErrorCode, ErrorDomain, ModelError

_CLASSES: Final = {
    "backup": "backup:Backup",
    "checkpoint": "checkpoint:Checkpoint",
    "domain": "domain.domain:Domain",
    "interface": "interface:HostInterface",
    "network": "network:Network",
    "network filter": "nwfilter.filter:Filter",
    "network filter binding": "nwfilter.binding:FilterBinding",
    "network port": "network_port:NetworkPort",
    "node device": "node_device:NodeDevice",
    "pool": "pool:Pool",
    "processor": "domain.cpu:Cpu",
    "secret": "secret:Secret",
    "snapshot": "snapshot:Snapshot",
    "volume": "volume:Volume",
}
_HOST: Final = "capabilities:HostCpu"
_DUMPED: Final = "/domaincheckpoint/domain/"  # a domain as it was: what we do not know of it is kept
_OTHERS: Final = "{http://libvirt.org/schemas/"  # what is another hypervisor's
# By procedure: the flag that asks for it, and what kind the document is of.
VALIDATED: Final[dict[str, tuple[int, str]]] = {
    "domain_define_xml_flags": (1, "domain"),
    "domain_create_xml": (16, "domain"),
    "network_define_xml_flags": (1, "network"),
    "network_create_xml_flags": (1, "network"),
    "network_port_create_xml": (2, "network port"),
    "storage_pool_define_xml": (1, "pool"),
    "storage_vol_create_xml": (4, "volume"),
    "storage_vol_create_xml_from": (4, "volume"),
    "interface_define_xml": (1, "interface"),
    "nwfilter_define_xml_flags": (1, "network filter"),
    "nwfilter_binding_create_xml": (1, "network filter binding"),
    "secret_define_xml": (1, "secret"),
    "domain_snapshot_create_xml": (512, "snapshot"),
    "node_device_create_xml": (1, "node device"),
    "node_device_define_xml": (1, "node device"),
    "connect_compare_cpu": (2, "processor"),
    "connect_compare_hypervisor_cpu": (2, "processor"),
}


def check_schema(xml: str, kind: str) -> None:
    """Refuse a document that is not of its schema; what is no XML, or another document, is for its driver to refuse.

    Raises:
        VirtError: ``XML_INVALID_SCHEMA``, with the first place and what is wrong there.
    """
    try:
        root = parse(xml, kind)
        element = _class_of(root, kind)
        if root.tag != element.qualified_name():
            return
        check_rules(root, kind)
        found = element.from_node(root)
    except ModelError as error:
        if error.path:
            raise fault(ErrorCode.XML_INVALID_SCHEMA, str(error), ErrorDomain.XML) from None
        return
    for path in found.unknown_paths():
        if _OTHERS not in path and not path.startswith(_DUMPED):
            what = f"{path} is not in the schema of a {kind}"
            raise fault(ErrorCode.XML_INVALID_SCHEMA, what, ErrorDomain.XML)


def _class_of(root: Any, kind: str) -> type[Element]:
    """What declares a document; a processor is a host's where it says of what architecture."""
    place = _HOST if kind == "processor" and root.find("arch") is not None else _CLASSES[kind]
    module, _, name = place.partition(":")
    found: type[Element] = getattr(importlib.import_module(f"hostel.model.{module}"), name)
    return found
