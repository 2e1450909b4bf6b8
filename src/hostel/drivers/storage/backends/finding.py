"""Looking for storage on a server: what must be said of it."""

from __future__ import annotations

from hostel.drivers.fault import fault
from hostel.errors import ErrorCode, ErrorDomain
from hostel.model.storage import PoolSource


def one_host(source: PoolSource | None, type: str) -> tuple[str, int]:
    """The name of the server that is to be asked, and its port; 0 where that is not said.

    Raises:
        VirtError: it is not said which, or several are.
    """
    if source is None:
        raise fault(ErrorCode.INVALID_ARG, f"hostname must be specified for {type} sources", ErrorDomain.STORAGE)
    if len(source.hosts) != 1:
        detail = "Expected exactly 1 host for the storage pool"
        raise fault(ErrorCode.CONFIG_UNSUPPORTED, detail, ErrorDomain.STORAGE)
    host = source.hosts[0]
    name = host.name or ""
    if name.split() != [name] or name.startswith("-") or not name.isprintable():
        raise fault(ErrorCode.INVALID_ARG, f"'{name}' is no name of a host", ErrorDomain.STORAGE)
    return name, port_of(host.port)


def port_of(text: str | None) -> int:
    """A port as a document has it; 0 where it has none.

    Raises:
        VirtError: ``XML_ERROR``; it is none.
    """
    if not text:
        return 0
    if not text.isascii() or not text.isdecimal() or int(text) > 65535:
        detail = f"Invalid value for attribute 'port' in element 'host': '{text}'. Expected integer value"
        raise fault(ErrorCode.XML_ERROR, detail, ErrorDomain.STORAGE)
    return int(text)
