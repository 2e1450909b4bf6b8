"""XML text <-> an lxml tree, hardened: what :mod:`hostel.codec.xml` reads elements from, and how it writes them.

No document type, so no entities; no network; bounded size and depth. The text written is libvirt's: two spaces a level,
attributes in single quotes, an element without content as ``<name/>`` (``src/util/virbuffer.c``).
"""

from __future__ import annotations

import copy
import re
from typing import Any, Final

from lxml import etree

from hostel.errors import ErrorCode, ModelError

MAX_LENGTH: Final = 4 * 1024 * 1024  # characters: libvirt's REMOTE_STRING_MAX
MAX_DEPTH: Final = 256  # elements: libxml2's own limit where it is not told otherwise

# XML 1.0, section 2.2: no reference can write these either.
_ILLEGAL: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ESCAPES: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "'": "&apos;", '"': "&quot;", "\r": "&#13;"}
_TEXT: Final = str.maketrans(_ESCAPES)
_ATTRIBUTE: Final = str.maketrans({**_ESCAPES, "\n": "&#10;", "\t": "&#9;"})  # a parser would make them blanks


def parse(xml: str, what: str) -> Any:
    """Parse a document and return its root; ``what`` names it in errors, such as ``domain_definition``.

    Raises:
        ModelError: it is not XML (code ``XML_DETAIL``), has a document type, or is too large or too deep.
    """
    if len(xml) > MAX_LENGTH:
        raise ModelError("", f"({what}) has {len(xml)} characters; the limit is {MAX_LENGTH}")
    if _has_document_type(xml):
        raise ModelError("", f"({what}): a document type is not allowed here; remove <!DOCTYPE …>")
    try:
        root: Any = etree.fromstring(xml.encode(), _parser())
    except etree.XMLSyntaxError as error:
        line = error.lineno or 1
        message = (error.msg or "it is not XML").partition(", line ")[0].strip()
        raise ModelError("", f"({what}):{line}: {message}", code=ErrorCode.XML_DETAIL) from None
    except ValueError as error:
        raise ModelError("", f"({what}):1: {error}", code=ErrorCode.XML_DETAIL) from None
    _check_depth(root, what)
    return root


def _parser() -> Any:
    # Comments and CDATA stay, for the sake of what is kept verbatim. The text is ours to decode, whatever it declares.
    return etree.XMLParser(
        encoding="utf-8", resolve_entities=False, no_network=True, load_dtd=False, strip_cdata=False, remove_pis=True
    )


def _has_document_type(xml: str) -> bool:
    """Look through the prolog alone: further in, ``<!DOCTYPE`` can only be character data."""
    position = 0
    while True:
        while position < len(xml) and (xml[position].isspace() or xml[position] == "\ufeff"):
            position += 1
        if xml.startswith("<?", position):
            end = xml.find("?>", position)
        elif xml.startswith("<!--", position):
            end = xml.find("-->", position + 4)
        else:
            return xml.startswith("<!DOCTYPE", position)
        if end < 0:
            return False
        position = end + 2 if xml.startswith("?>", end) else end + 3


def _check_depth(root: Any, what: str) -> None:
    level = [root]
    for _ in range(MAX_DEPTH):
        level = [child for node in level for child in node]
        if not level:
            return
    raise ModelError("", f"({what}): elements are nested more than {MAX_DEPTH} deep")


def text_of(node: Any) -> str:
    """The character data of an element itself, comments left out."""
    return "".join([node.text or "", *(child.tail or "" for child in node)])


def path_of(node: Any) -> str:
    """Where an element is in its document, such as ``/domain/devices/disk[2]``."""
    path: str = node.getroottree().getpath(node)
    return path


def fragment(node: Any) -> str:
    """An element as text that needs nothing around it: only its own namespaces, no indentation."""
    alone = copy.deepcopy(node)
    alone.tail = None
    for element in alone.iter():
        if len(element) and not text_of(element).strip():
            element.text = None
            for child in element:
                child.tail = None
    etree.cleanup_namespaces(alone)
    text: str = etree.tostring(alone, encoding="unicode")
    return text


def _indent(element: Any, level: int) -> None:
    """Put children on lines of their own where there is no text beside them."""
    if not len(element) or text_of(element).strip():
        return
    inner = "\n" + "  " * (level + 1)
    element.text = inner
    for child in element:
        _indent(child, level + 1)
        child.tail = inner
    element[-1].tail = inner[:-2]


def checked(value: str, path: str) -> str:
    """Refuse characters that no XML document can have.

    Raises:
        ModelError: there is one.
    """
    if found := _ILLEGAL.search(value):
        raise ModelError(path, f"the character U+{ord(found[0]):04X} cannot be in a document")
    return value


class Writer:
    """Builds a document line by line."""

    def __init__(self) -> None:
        self.namespaces: dict[str, str] = {}
        self._lines: list[str] = []
        self._open: list[str] = []

    def start(self, tag: str, attributes: list[tuple[str, str]]) -> None:
        """Open an element that has children."""
        self._line(f"<{tag}{self._attributes(tag, attributes)}>")
        self._open.append(tag)

    def end(self) -> None:
        """Close the element opened last."""
        tag = self._open.pop()
        self._line(f"</{tag}>")

    def leaf(self, tag: str, attributes: list[tuple[str, str]], content: str | None = None) -> None:
        """Add an element with text, or an empty one."""
        opening = f"<{tag}{self._attributes(tag, attributes)}"
        if content is None:
            self._line(f"{opening}/>")
        else:
            self._line(f"{opening}>{checked(content, self._path(tag)).translate(_TEXT)}</{tag}>")

    def characters(self, content: str) -> None:
        """Add text on a line of its own."""
        self._line(checked(content, self._path("text()")).translate(_TEXT))

    def fragment(self, xml: str) -> None:
        """Add what :func:`fragment` made, indented where that does not change its text."""
        node: Any = etree.fromstring(xml.encode(), _parser())
        _indent(node, len(self._open))
        self._line(etree.tostring(node, encoding="unicode"))

    def text(self) -> str:
        """The document; the root declares the namespaces that were used below it."""
        lines = self._lines
        if self.namespaces:
            declared = "".join(f" xmlns:{prefix}='{uri}'" for prefix, uri in self.namespaces.items())
            end = len(lines[0]) - (2 if lines[0].endswith("/>") else 1)
            lines = [lines[0][:end] + declared + lines[0][end:], *lines[1:]]
        return "".join(f"{line}\n" for line in lines)

    def _path(self, tag: str) -> str:
        return "/" + "/".join([*self._open, tag])

    def _attributes(self, tag: str, attributes: list[tuple[str, str]]) -> str:
        path = self._path(tag)
        return "".join(f" {name}='{checked(value, path).translate(_ATTRIBUTE)}'" for name, value in attributes)

    def _line(self, line: str) -> None:
        self._lines.append("  " * len(self._open) + line)
