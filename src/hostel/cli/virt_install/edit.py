"""Changes to a finished element by XPath: ``--xml``, and the ``xpath`` options of the others."""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

from lxml import etree

from hostel.cli.virt_install import tree
from hostel.cli.virt_install.tree import Node
from hostel.codec.xmltext import checked
from hostel.errors import UsageError

_STEP: Final = re.compile(r"([\w.-]+)(?:\[(?:@([\w.-]+)=['\"]([^'\"]*)['\"]|\d+)\])?")


class Edit(NamedTuple):
    """One change: what it does, where, and the value that it sets."""

    verb: str
    xpath: str
    value: str = ""

    def inside(self, place: str) -> Edit:
        """The same change, of an element that is at ``place`` in the one that is changed."""
        is_relative = bool(place) and self.xpath.startswith(".")
        return self._replace(xpath=f"./{place}{self.xpath[1:]}") if is_relative else self


def choose(given: dict[str, str | None]) -> Edit:
    """The one change that ``xpath.delete``, ``xpath.create``, ``xpath.set`` and ``xpath.value`` ask for together.

    Raises:
        UsageError: it sets nothing.
    """
    for verb in ("delete", "create"):
        if where := given.get(f"xpath.{verb}"):
            return Edit(verb, where)
    where, value = given.get("xpath.set") or "", given.get("xpath.value")
    return Edit("set", where, value) if value else setting(where)


def setting(text: str) -> Edit:
    """Read ``XPATH=VALUE``.

    Raises:
        UsageError: there is no ``=``.
    """
    xpath, equals, value = text.rpartition("=")
    if not equals:
        raise UsageError(f"{text}: Setting xpath must be in the form of XPATH=VALUE")
    return Edit("set", xpath, value)


def apply(root: Node, edits: list[Edit]) -> None:
    """Change a document.

    Raises:
        UsageError: an XPath is none, or cannot be made where it finds nothing.
        ModelError: a value has a character that no document can have.
    """
    for edit in edits:
        if edit.verb == "delete":
            _delete(root, edit.xpath)
        else:
            _set(root, edit)


def _find(node: Node, xpath: str) -> list[Any]:
    try:
        found = node.xpath(xpath)
    except etree.XPathError as error:
        raise UsageError(f"--xml {xpath}: {error}") from None
    if not isinstance(found, list):
        raise UsageError(f"--xml {xpath}: it names no element or attribute")
    return found


def _delete(root: Node, xpath: str) -> None:
    for found in _find(root, xpath)[:1]:
        if isinstance(found, etree._Element):
            if found is root:
                raise UsageError(f"--xml {xpath}: the whole document cannot be deleted")
            tree.remove(found)
            continue
        node = found.getparent()
        del node.attrib[found.attrname]
        while node is not root and not len(node) and not node.attrib and not (node.text or "").strip():
            parent = node.getparent()
            tree.remove(node)
            node = parent


def _set(root: Node, edit: Edit) -> None:
    steps = edit.xpath.removeprefix("./").removeprefix("/domain/").split("/")
    attribute = steps.pop()[1:] if steps[-1].startswith("@") else None
    node = root
    for step in steps:
        found = _find(node, step)
        node = found[0] if found else _make(node, step, edit.xpath)
    if edit.verb == "create":
        return
    value = checked(edit.value, edit.xpath)
    if attribute is None:
        node.text = value or None
    elif value:
        node.set(attribute, value)
    elif attribute in node.attrib:
        del node.attrib[attribute]


def _make(node: Node, step: str, xpath: str) -> Node:
    match = _STEP.fullmatch(step)
    if match is None:
        raise UsageError(f"--xml {xpath}: '{step}' is not there and cannot be made; write a plain name")
    made = etree.Element(match[1])
    tree.append(node, made)
    if match[2]:
        made.set(match[2], match[3])
    return made
