"""Reading and writing libvirt's documents where a driver needs a few of their elements: the hardened way in.

No entities, no document types, no network; depth and size are lxml's limits. Errors are libvirt's.
"""

from __future__ import annotations

import uuid as uuids
from typing import Final
from xml.sax.saxutils import escape, quoteattr

from lxml import etree

from hostel.drivers.fault import fault
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.units import scale_libvirt

Node = etree._Element

_MAX_DOCUMENT: Final = 4 * 1024 * 1024  # characters: libvirt's REMOTE_STRING_MAX


def parse(xml: str, tag: str, what: str) -> Node:
    """Parse a document whose root must be ``tag``; ``what`` names it in errors, such as ``storage_pool_definition``.

    Raises:
        VirtError: ``XML_DETAIL`` when it is not XML, ``XML_ERROR`` for another root or a document type.
    """
    if len(xml) > _MAX_DOCUMENT:
        raise fault(ErrorCode.XML_ERROR, f"({what}) has {len(xml)} characters; the limit is {_MAX_DOCUMENT}")
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, remove_comments=True, remove_pis=True
    )
    try:
        root = etree.fromstring(xml.encode(), parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 1
        message = str(error).partition(", line ")[0]
        raise VirtError(ErrorCode.XML_DETAIL, f"({what}):{line}: {message}", domain=ErrorDomain.XML) from None
    if root.getroottree().docinfo.internalDTD is not None:
        raise fault(ErrorCode.XML_ERROR, f"({what}): a document type is not allowed here", ErrorDomain.XML)
    if root.tag != tag:
        raise fault(ErrorCode.XML_ERROR, f"expecting root element of '{tag}', not '{root.tag!s}'", ErrorDomain.XML)
    return root


def text(root: Node, path: str) -> str | None:
    """The text at a path of element names, or of the attribute when it ends in ``/@name``; None where there is none."""
    elements, _, attribute = path.partition("/@")
    found = root.find(elements) if elements != "." else root
    if found is None:
        return None
    if attribute:
        return found.get(attribute)
    return found.text or ""


def size(root: Node, path: str, domain: ErrorDomain) -> int | None:
    """The bytes that a scaled integer with a ``unit`` attribute says; None where there is no such element.

    Raises:
        VirtError: ``XML_ERROR`` for what is no number, ``INVALID_ARG`` for an unknown unit, ``OVERFLOW``.
    """
    written = text(root, path)
    if written is None:
        return None
    digits = written.strip()
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 20):
        raise fault(ErrorCode.XML_ERROR, f"malformed {path} element", domain)
    try:
        return scale_libvirt(int(digits), text(root, f"{path}/@unit") or "bytes")
    except OverflowError as error:
        raise VirtError(ErrorCode.OVERFLOW, f"numerical overflow: {error}", domain=domain) from None
    except ValueError as error:
        raise fault(ErrorCode.INVALID_ARG, str(error), domain) from None


def uuid(root: Node, domain: ErrorDomain) -> str:
    """The document's UUID in its canonical form, or a new one.

    Raises:
        VirtError: ``XML_ERROR``.
    """
    written = text(root, "uuid")
    if written is None:
        return str(uuids.uuid4())
    canonical = canonical_uuid(written)
    if canonical is None:
        raise fault(ErrorCode.XML_ERROR, "malformed uuid element", domain)
    return canonical


def canonical_uuid(written: str) -> str | None:
    """The canonical form of a UUID that may be without dashes or in capitals; None when it is none."""
    digits = written.strip().replace("-", "")
    if len(digits) != 32 or not all(digit in "0123456789abcdefABCDEF" for digit in digits):
        return None
    return str(uuids.UUID(digits))


class Writer:
    """Builds a document line by line, two spaces a level, attributes in single quotes: as libvirt writes them."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._open: list[str] = []

    def start(self, tag: str, **attributes: object) -> None:
        """Open an element that has children."""
        self._line(f"<{tag}{_format(attributes)}>")
        self._open.append(tag)

    def end(self) -> None:
        """Close the element opened last."""
        tag = self._open.pop()
        self._line(f"</{tag}>")

    def leaf(self, tag: str, content: object | None = None, **attributes: object) -> None:
        """Add an element with text, or an empty one."""
        if content is None:
            self._line(f"<{tag}{_format(attributes)}/>")
        else:
            self._line(f"<{tag}{_format(attributes)}>{escape(str(content))}</{tag}>")

    def copy(self, node: Node, *, open_tags: tuple[str, ...] = ()) -> None:
        """Add an element as it is; ``open_tags`` are written with an end tag even where they are empty."""
        tag = str(node.tag)
        if tag.startswith("{") or any(str(key).startswith("{") for key in node.attrib):
            # Another program's element: its namespace declarations belong to it.
            for line in etree.tostring(node, encoding="unicode", with_tail=False).splitlines():
                self._line(line)
            return
        attributes = {str(key): value for key, value in node.attrib.items()}
        if len(node) or tag in open_tags:
            self.start(tag, **attributes)
            for child in node:
                self.copy(child, open_tags=open_tags)
            self.end()
        else:
            self.leaf(tag, (node.text or "").strip() or None, **attributes)

    def text(self) -> str:
        """The document."""
        return "".join(f"{line}\n" for line in self._lines)

    def _line(self, line: str) -> None:
        self._lines.append("  " * len(self._open) + line)


def _format(attributes: dict[str, object]) -> str:
    return "".join(f" {name}={_quote(str(value))}" for name, value in attributes.items() if value is not None)


def _quote(value: str) -> str:
    quoted = quoteattr(value, {"'": "&apos;"})
    return f"'{quoted[1:-1]}'".replace("&quot;", '"')
