"""Changes to a finished element by XPath: ``--xml``, and the ``xpath`` options of the others."""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

from lxml import etree

from hostel.cli.virt_install import tree
from hostel.cli.virt_install.tree import Node
from hostel.codec.xmltext import checked
from hostel.errors import UsageError

_ATTRIBUTE: Final = re.compile(r"(?:(.*)/)?@([^/\[\]]*)")
_STEPS: Final = re.compile(r"(?:[^/\[]|\[[^\]]*\])+")
_STEP: Final = re.compile(r"((?:(?:libosinfo|qemu):)?[^\W\d][\w.-]*)(?:\[(?:@([\w.-]+)=(['\"]?)([^'\"]*)\3|\d+)\])?")


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
    if value and not where:
        raise UsageError(f"xpath.value={value}: xpath.set=XPATH says which element or attribute gets it")
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
        ModelError: an XPath or a value has a character that no document can have.
    """
    for edit in edits:
        checked(edit.xpath, "--xml")
        if edit.verb == "delete":
            _delete(root, edit.xpath)
        else:
            _set(root, edit)


def _find(node: Node, xpath: str) -> list[Any]:
    try:
        found = node.xpath(xpath, namespaces=tree.NAMESPACES)
    except etree.XPathError as error:
        raise UsageError(f"--xml {xpath}: {error}") from None
    if not isinstance(found, list):
        raise UsageError(f"--xml {xpath}: it names no element or attribute")
    return found


def _element(node: Node, xpath: str) -> Node | None:
    """The first element that an XPath finds; None where it finds nothing."""
    found = next(iter(_find(node, xpath)), None)
    if found is not None and not (isinstance(found, etree._Element) and isinstance(found.tag, str)):
        raise UsageError(f"--xml {xpath}: it names no element or attribute")
    return found


def _delete(root: Node, xpath: str) -> None:
    for found in _find(root, xpath)[:1]:
        if isinstance(found, etree._Element):
            if found is root or found.getparent() is None:
                raise UsageError(f"--xml {xpath}: the whole document cannot be deleted")
            tree.remove(found)
        elif getattr(found, "is_attribute", False):
            tree.take_value(root, found.getparent(), found.attrname)
        else:
            raise UsageError(f"--xml {xpath}: it names no element or attribute")


def _set(root: Node, edit: Edit) -> None:
    match = _ATTRIBUTE.fullmatch(edit.xpath)
    where, attribute = (match[1] or ".", match[2]) if match else (edit.xpath, None)
    if attribute is not None and not _is_name(attribute):
        raise UsageError(f"--xml {edit.xpath}: '{attribute}' is no name of an attribute")
    value = checked(edit.value, edit.xpath)
    node = _element(root, where)
    if edit.verb == "set" and not value:
        if node is not None:
            tree.take_value(root, node, attribute)
        return
    if node is None:
        node = _make(root, where, edit.xpath)
    if edit.verb == "create":
        return
    if attribute is None:
        tree.set_text(node, value)
    else:
        node.set(attribute, value)


def _is_name(text: str) -> bool:
    """Whether an attribute can have this name, without a namespace."""
    try:
        return bool(etree.QName(text).localname == text)
    except ValueError:
        return False


def _make(root: Node, where: str, xpath: str) -> Node:
    """The element at an XPath, with what is missing on the way to it."""
    node = root
    for step in _STEPS.findall(where.removeprefix("/domain/")):
        found = _element(node, step)
        node = found if found is not None else _made(node, step, xpath)
    return node


def _made(node: Node, step: str, xpath: str) -> Node:
    match = _STEP.fullmatch(step)
    if match is None:
        raise UsageError(f"--xml {xpath}: '{step}' is not there and cannot be made; write a plain name")
    made = tree.new(node, match[1])
    if match[2]:
        made.set(match[2], match[4])
    return made
