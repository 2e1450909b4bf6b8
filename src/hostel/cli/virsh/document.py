"""Documents on the command line: showing parts of one, and writing one from options."""

from __future__ import annotations

from typing import Any, Final
from xml.etree import ElementTree

from hostel.cli.options import Args, flag, value
from hostel.cli.virsh.session import CommandError, Session

# Not xml.sax.saxutils, which brings urllib and email with it.
_TEXT: Final = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_ATTRIBUTE: Final = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", "'": "&apos;", '"': "&quot;", "\n": "&#10;", "\t": "&#9;", "\r": "&#13;"}
)
# What every command that shows a document takes.
PARTS = (
    value("xpath", "show only what this XPath expression finds", positional=False),
    flag("wrap", "put what --xpath finds under one root element"),
)


def show(session: Session, xml: str, args: Args) -> None:
    """Print a document, or what ``--xpath`` finds in it."""
    expression = args.get("xpath")
    if expression is None:
        session.output.text(xml)
        return
    found = _find(xml, expression)
    if args.has("wrap"):
        session.output.line(_text(_wrapped(found)))
    else:
        for node in found:
            session.output.line(_text(node))


def _find(xml: str, expression: str) -> list[Any]:
    from lxml import etree

    root = etree.fromstring(xml.encode(), etree.XMLParser(remove_blank_text=True, resolve_entities=False))
    try:
        found = root.getroottree().xpath(expression)
    except etree.XPathError:
        found = None
    if not isinstance(found, list):
        raise CommandError(f"internal error: Incorrect xpath '{expression}'")
    return found


def _wrapped(found: list[Any]) -> Any:
    import copy

    from lxml import etree

    root = etree.Element("nodes")
    for node in found:
        if not isinstance(node, str):
            root.append(copy.deepcopy(node))
        elif getattr(node, "is_attribute", False):
            root.set(str(getattr(node, "attrname", "")), node)
        elif len(root):
            root[-1].tail = (root[-1].tail or "") + node
        else:
            root.text = (root.text or "") + node
    return root


def _text(node: Any) -> str:
    """A node as libxml2 dumps it."""
    from lxml import etree

    if isinstance(node, str):
        if getattr(node, "is_attribute", False):
            return f' {getattr(node, "attrname", "")}="{str(node).translate(_ATTRIBUTE)}"'
        return str(node).translate(_TEXT)
    return etree.tostring(node, encoding="unicode", pretty_print=True, with_tail=False).rstrip("\n")


def with_name(xml: str, name: str) -> str:
    """A document with another name, for what is cloned from it."""
    root = parse(xml)
    found = root.find("name")
    if found is not None:
        found.text = name
    return written(root)


def parse(xml: str) -> Any:
    """A document as a tree that :func:`written` writes as it was, but for what was changed in it."""
    from lxml import etree

    return etree.fromstring(xml.encode(), etree.XMLParser(resolve_entities=False))


def written(node: Any) -> str:
    """A part of what :func:`parse` has read, or all of it."""
    from lxml import etree

    return etree.tostring(node, encoding="unicode", with_tail=False)


def element(tag: str, text: str) -> str:
    """An element with text."""
    return f"<{tag}>{text.translate(_TEXT)}</{tag}>"


def empty(tag: str, **attributes: str | None) -> str:
    """An element without content, and with those attributes that have a value."""
    given = "".join(f" {name}='{text.translate(_ATTRIBUTE)}'" for name, text in attributes.items() if text is not None)
    return f"<{tag}{given}/>"


def nested(tag: str, *children: str, **attributes: str | None) -> str:
    """An element around others, which are indented; its text has lines."""
    opened = empty(tag, **attributes).removesuffix("/>") + ">"
    inner = "\n".join(f"  {line}" for child in children for line in child.split("\n"))
    return f"{opened}\n{inner}\n</{tag}>"


def tree(xml: str) -> ElementTree.Element:
    """A document from our own drivers, as a tree."""
    return ElementTree.fromstring(xml)
