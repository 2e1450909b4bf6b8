"""Titles, descriptions and elements of domains, for every driver: what is asked, held against libvirt's rules."""

from __future__ import annotations

from hostel.drivers.document import reading
from hostel.drivers.fault import fault
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.domain import Domain
from hostel.model.domain.metadata import MetadataType, read_metadata, write_metadata


def look(domain: Domain, kind: int, uri: str | None) -> str:
    """What is written.

    Raises:
        VirtError: ``NO_DOMAIN_METADATA``: nothing is; ``INVALID_ARG``: the namespace is missing, or too much.
    """
    text = read_metadata(domain, _kind(kind, "virDomainGetMetadata", uri), uri)
    if text is None:
        raise fault(ErrorCode.NO_DOMAIN_METADATA, "Requested metadata element is not present", ErrorDomain.DOMAIN)
    return text


def change(domain: Domain, kind: int, text: str | None, key: str | None, uri: str | None) -> None:
    """Write, or take away.

    Raises:
        VirtError: what is asked breaks a rule; nothing is changed.
    """
    function = "virDomainSetMetadata"
    if kind == MetadataType.TITLE and "\n" in (text or ""):
        said = (function, "metadata", None, 0, 0)
        what = "metadata title can't contain newlines"
        raise VirtError(ErrorCode.INVALID_ARG, what, domain=ErrorDomain.DOMAIN, details=said)
    found = _kind(kind, function, uri)
    if found is MetadataType.ELEMENT:
        if text is not None and key is None:
            raise _argument(f"key in {function} must not be NULL")
    elif key is not None:
        raise _argument(f"key in {function} must be NULL")
    with reading(ErrorDomain.DOMAIN):
        write_metadata(domain, found, text, key, uri)


def _kind(number: int, function: str, uri: str | None) -> MetadataType:
    try:
        kind = MetadataType(number)
    except ValueError:
        raise fault(ErrorCode.INVALID_ARG, f"unknown metadata type '{number}'", ErrorDomain.DOMAIN) from None
    if kind is MetadataType.ELEMENT and uri is None:
        raise _argument(f"uri in {function} must not be NULL")
    if kind is not MetadataType.ELEMENT and uri is not None:
        raise _argument(f"uri in {function} must be NULL")
    return kind


def _argument(detail: str) -> VirtError:
    return VirtError(ErrorCode.INVALID_ARG, detail, domain=ErrorDomain.DOMAIN)
