"""Read-only connections: a driver that lets only the looking calls through."""

from __future__ import annotations

import functools
import re
from typing import Any, Final, TypeVar, cast

from hostel.drivers.base import DomainXmlFlag
from hostel.drivers.base.address import AddressSource
from hostel.drivers.fault import fault
from hostel.drivers.proxy import Proxy
from hostel.errors import ErrorCode, ErrorDomain

Driver = TypeVar("Driver")

# Asking a guest is more than looking at it.
_ASKING: Final = "domain_get_(?:hostname|fsinfo|guest_info|guest_vcpus|time)$|domain_authorized_ssh_keys_get$"
_LOOKING: Final = re.compile(
    r"(?!connect_get_domain_capabilities)connect_(get|list|compare_cpu|baseline_cpu)(_|$)"
    rf"|(?!secret_get_value|domain_save_image_|connect_|{_ASKING})\w+_(get|is|has|lookup|list|list_all|list_caps)(_|$)"
    r"|domain_(block|memory|interface)_stats|domain_snapshot_(current|num)$|close$"
)

# Documents that have passwords in them where their first flag asks for these.
_DOCUMENTS: Final = {
    "domain_get_xml_desc": "virDomainGetXMLDesc",
    "domain_managed_save_get_xml_desc": "virDomainManagedSaveGetXMLDesc",
    "domain_snapshot_get_xml_desc": "virDomainSnapshotGetXMLDesc",
    "domain_checkpoint_get_xml_desc": "virDomainCheckpointGetXMLDesc",
}


def read_only(driver: Driver) -> Driver:
    """Wrap a driver so that every call that changes something raises ``OPERATION_DENIED``."""
    return cast(Driver, _ReadOnly(driver))


class _ReadOnly(Proxy):
    def __init__(self, driver: object) -> None:
        self._driver = driver

    def _behind(self) -> object:
        return self._driver

    def __getattr__(self, name: str) -> Any:
        method = super().__getattr__(name)
        if name in _DOCUMENTS:
            return functools.partial(self._document, name)
        if name == "domain_interface_addresses":
            return self._addresses
        # Setting matches "get" nowhere: storage_pool_set_autostart, domain_create, storage_vol_download are refused.
        if name.startswith("_") or not callable(method) or _LOOKING.match(name):
            return method

        def refuse(*_arguments: object, **_options: object) -> None:
            raise fault(ErrorCode.OPERATION_DENIED, f"read only access prevents {_api_name(name)}", ErrorDomain.NONE)

        return refuse

    def _addresses(self, domain: object, source: int) -> Any:
        if source == AddressSource.AGENT:  # who listens to a guest's agent may be kept from what it does
            raise fault(ErrorCode.OPERATION_DENIED, "read only access prevents virDomainInterfaceAddresses")
        return self._driver.domain_interface_addresses(domain, source)  # type: ignore[attr-defined]

    def _document(self, name: str, moment: object, flags: int = 0) -> Any:
        if flags & (DomainXmlFlag.SECURE | DomainXmlFlag.MIGRATABLE):
            raise fault(ErrorCode.OPERATION_DENIED, f"{_DOCUMENTS[name]} with secure flag", ErrorDomain.DOM)
        return getattr(self._driver, name)(moment, flags)


def _api_name(procedure: str) -> str:
    """The C name that libvirt has for a procedure: ``storage_vol_create_xml`` is ``virStorageVolCreateXML``."""
    words = "".join(word.capitalize() for word in procedure.split("_"))
    return "vir" + words.replace("Xml", "XML")
