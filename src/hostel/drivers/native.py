"""Other hypervisors' configuration, as every connection converts it: nothing of the host is asked."""

from __future__ import annotations

from hostel.drivers.fault import fault
from hostel.errors import ErrorDomain, ModelError
from hostel.model.native.registry import read_native, write_native


class NativeCalls:
    """Configurations become documents, and documents configurations."""

    def connect_domain_xml_from_native(self, native_format: str, native_config: str) -> str:
        """A document of a configuration.

        Raises:
            VirtError: in libvirt's words, with what in the configuration is wrong.
        """
        try:
            return read_native(native_format, native_config).format()
        except ModelError as error:
            raise fault(error.code, str(error), ErrorDomain.DOMAIN) from error

    def connect_domain_xml_to_native(self, native_format: str, domain_xml: str) -> str:
        """A configuration of a document.

        Raises:
            VirtError: in libvirt's words, with what in the document is wrong.
        """
        try:
            return write_native(native_format, domain_xml)
        except ModelError as error:
            raise fault(error.code, str(error), ErrorDomain.DOMAIN) from error
