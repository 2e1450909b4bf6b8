"""Elements of a document, found and made by path, so that what is around them keeps its shape.

A path is the steps from one element to another: each a name, with an attribute that must match or a sibling's index.
"""

from __future__ import annotations

import re
from typing import Final

from lxml import etree

Node = etree._Element

NAMESPACES: Final = {
    "libosinfo": "http://libosinfo.org/xmlns/libvirt/domain/1.0",
    "qemu": "http://libvirt.org/schemas/domain/qemu/1.0",
}
_INDENT: Final = "  "
_STEP: Final = re.compile(
    r"(?P<name>[\w:.-]+)(?:\[@(?P<key>[\w.-]+)=['\"](?P<value>[^'\"]*)['\"]\]|\[(?P<index>\d+)\])?"
)


def find(node: Node, steps: list[str]) -> Node | None:
    """The element at the end of a path; None where there is none."""
    for step in steps:
        match = _STEP.fullmatch(step)
        assert match is not None, step
        found = _matching(node, match)
        index = int(match["index"] or 0)
        if index >= len(found):
            return None
        node = found[index]
    return node


def make(node: Node, steps: list[str], fillers: list[Node] | None = None) -> Node:
    """The element at the end of a path; what is missing on the way is made.

    Args:
        node: where the path begins.
        steps: the path.
        fillers: gets the elements that only stand before one with a higher index.
    """
    for step in steps:
        match = _STEP.fullmatch(step)
        assert match is not None, step
        found = _matching(node, match)
        while len(found) <= int(match["index"] or 0):
            found.append(new(node, match["name"]))
            if match["key"]:
                found[-1].set(match["key"], match["value"])
            elif fillers is not None and len(found) <= int(match["index"] or 0):
                fillers.append(found[-1])
        node = found[int(match["index"] or 0)]
    return node


def _matching(node: Node, match: re.Match[str]) -> list[Node]:
    tag = _qualified(match["name"])
    found = [child for child in node if child.tag == tag]
    if match["key"]:
        found = [child for child in found if child.get(match["key"]) == match["value"]]
    return found


def new(node: Node, name: str) -> Node:
    """Make an element last in another."""
    prefix, colon, _ = name.partition(":")
    made = etree.Element(_qualified(name), nsmap={prefix: NAMESPACES[prefix]} if colon else None)
    append(node, made)
    return made


def _qualified(name: str) -> str:
    prefix, colon, local = name.partition(":")
    return f"{{{NAMESPACES[prefix]}}}{local}" if colon else name


def append(parent: Node, node: Node) -> None:
    """Put an element last into another, on a line of its own where the document has lines."""
    end = (parent[-1].tail if len(parent) else parent.text) or _before(parent)
    if len(parent):
        parent[-1].tail = end + _INDENT
    elif not (parent.text or "").strip():
        parent.text = end + _INDENT
    node.tail = end
    parent.append(node)


def _before(node: Node) -> str:
    """The white space that stands before an element."""
    previous, parent = node.getprevious(), node.getparent()
    text = previous.tail if previous is not None else parent.text if parent is not None else None
    return text if text and not text.strip() else "\n"


def indent(node: Node, level: int) -> Node:
    """Lay out an element for its place so many levels deep."""
    etree.indent(node, _INDENT, level=level)
    return node


def remove(node: Node) -> None:
    """Take an element out, with the white space before it."""
    parent, previous = node.getparent(), node.getprevious()
    assert parent is not None
    if previous is not None:
        previous.tail = node.tail
    else:
        parent.text = node.tail
    parent.remove(node)
    if not len(parent) and not (parent.text or "").strip():
        parent.text = None


def empty(node: Node) -> None:
    """Take everything out of an element, and leave it where it is."""
    tail = node.tail
    node.clear()
    node.tail = tail


def unset(root: Node, path: str) -> None:
    """Take a value away, and the elements around it that are left with nothing."""
    *steps, last = path.split("/")
    if not last.startswith("@"):
        steps.append(last)
    node = find(root, steps)
    if node is not None:
        take_value(root, node, last[1:] if last.startswith("@") else None)


def take_value(root: Node, node: Node, attribute: str | None) -> None:
    """Take an attribute out of an element, or what is in it, and the elements around that are left with nothing."""
    if attribute is None:
        set_text(node, None)
    else:
        node.attrib.pop(attribute, "")
    while node is not root and (parent := node.getparent()) is not None and is_empty(node):
        remove(node)
        node = parent


def set_text(node: Node, text: str | None) -> None:
    """Put a text into an element in place of all that is in it."""
    for child in list(node):
        node.remove(child)
    node.text = text


def is_empty(node: Node) -> bool:
    """Whether there is nothing in an element."""
    return not len(node) and not node.attrib and not (node.text or "").strip()


def value_at(root: Node, path: str) -> str | None:
    """The value at a path; None where there is none."""
    *steps, last = path.split("/")
    if last.startswith("@"):
        node = find(root, steps)
        return None if node is None else node.get(last[1:])
    node = find(root, [*steps, last])
    return None if node is None else "".join(str(text) for text in node.itertext())


def set_value(root: Node, path: str, value: str, fillers: list[Node] | None = None) -> None:
    """Set the value at a path; ``""`` makes an element without any; ``fillers`` are those of :func:`make`."""
    *steps, last = path.split("/")
    if last.startswith("@"):
        make(root, steps, fillers).set(last[1:], value)
        return
    node = make(root, [*steps, last], fillers)
    if value:
        set_text(node, value)


def write(root: Node) -> str:
    """The text of a new document as virt-install prints it."""
    return etree.tostring(indent(root, 0), encoding="unicode") + "\n"


def text_of(root: Node) -> str:
    """The text of an element as it stands."""
    text = etree.tostring(root, encoding="unicode", with_tail=False)
    return f"{text}\n" if "\n" in text else text
