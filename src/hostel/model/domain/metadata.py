"""What people write on a domain: its title, its description, and elements of other programs' namespaces."""

from __future__ import annotations

import copy
import enum
import re
from typing import Any, Final

from lxml import etree

from hostel.codec import xmltext
from hostel.errors import ErrorCode, ModelError
from hostel.model.domain.domain import Domain

_PREFIX: Final = re.compile(r"[^\W\d][\w.\-]*")


class MetadataType(enum.IntEnum):
    """``virDomainMetadataType``."""

    DESCRIPTION = 0
    TITLE = 1
    ELEMENT = 2


def read_metadata(domain: Domain, kind: MetadataType, uri: str | None) -> str | None:
    """What is written there; of an element its text without the namespace's prefix. None: nothing."""
    if kind is MetadataType.DESCRIPTION:
        return domain.description
    if kind is MetadataType.TITLE:
        return domain.title
    found = None if domain.metadata is None else _of(xmltext.parse(domain.metadata, "metadata"), uri)
    if found is None:
        return None
    for node in found.iter(f"{{{uri}}}*"):
        node.tag = etree.QName(node).localname
    etree.cleanup_namespaces(found)
    return str(etree.tostring(found, encoding="unicode", pretty_print=True, with_tail=False)).rstrip("\n")


def write_metadata(domain: Domain, kind: MetadataType, text: str | None, key: str | None, uri: str | None) -> None:
    """Write, or with None or an empty title or description take away.

    Args:
        domain: changed.
        kind: what is written.
        text: of an element its XML.
        key: the prefix of an element's namespace.
        uri: an element's namespace; what there was of it is replaced.

    Raises:
        ModelError: the XML cannot be parsed, or ``key`` is no prefix.
    """
    if kind is MetadataType.DESCRIPTION:
        domain.description = text or None
    elif kind is MetadataType.TITLE:
        domain.title = text or None
    else:
        root = xmltext.parse(domain.metadata or "<metadata/>", "metadata")
        new = None if text is None else _within(xmltext.parse(text, "metadata_xml"), key or "", uri or "")
        while (old := _of(root, uri)) is not None:
            root.remove(old)
        if new is not None:
            root.append(new)
        domain.metadata = xmltext.fragment(root) if len(root) or domain.metadata is not None else None


def _of(root: Any, uri: str | None) -> Any:
    """The first element of a namespace."""
    return next((node for node in root.iterchildren(tag=etree.Element) if etree.QName(node).namespace == uri), None)


def _within(root: Any, key: str, uri: str) -> Any:
    """A copy whose elements are of a namespace where they were of none."""
    if not _PREFIX.fullmatch(key):
        reason = "failed to validate prefix for a new XML namespace"
        raise ModelError("/domain/metadata", reason, code=ErrorCode.INTERNAL_ERROR)
    return _renamed(root, uri, {**root.nsmap, key: uri})


def _renamed(node: Any, uri: str, prefixes: dict[Any, str]) -> Any:
    if not isinstance(node.tag, str):
        return copy.deepcopy(node)  # a comment
    tag = node.tag if etree.QName(node).namespace is not None else f"{{{uri}}}{node.tag}"
    new = etree.Element(tag, dict(node.attrib), nsmap=prefixes)
    new.text, new.tail = node.text, node.tail
    for child in node:
        new.append(_renamed(child, uri, {**prefixes, **child.nsmap}))
    return new
