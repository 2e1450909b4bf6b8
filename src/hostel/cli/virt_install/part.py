"""A document under construction: values at the places where virt-install puts them, in its order.

The domain model reads finished documents and writes them in libvirt's order. What an installer asks for is not finished
(libvirt adds addresses and controllers), and people compare ``--print-xml`` with what they know: hence this.
"""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Final

from lxml import etree

from hostel.cli.virt_install import tree
from hostel.cli.virt_install.order import ORDERS, OTHER
from hostel.cli.virt_install.tree import Node
from hostel.codec.xmltext import checked

if TYPE_CHECKING:
    from hostel.cli.virt_install.edit import Edit

_INDEX: Final = re.compile(r"\[\d+\]")


class Part:
    """One element and everything in it, as values by path: ``@type``, ``driver/@cache``, ``listen[1]/@address``.

    Attributes:
        tag: the element's name.
        base: the element where it exists already: then values are read from it, and :meth:`element` changes it.
        edits: changes by XPath that are yet to be made, last of all.
    """

    def __init__(self, tag: str, order: tuple[str, ...] | None = None, base: Node | None = None) -> None:
        self.tag = tag
        self.base = base
        self.edits: list[Edit] = []
        self._order = order or ORDERS.get(tag, OTHER)
        self._values: dict[str, str | None] = {}
        self._removed: set[str] = set()
        # What the element has already of the values, by path, and of the edits: it is changed once.
        self._written: set[str] = set()
        self._edited: list[Edit] = []

    def get(self, path: str) -> str | None:
        """The value at a path; None where there is none."""
        if path in self._values or self.base is None:
            return self._values.get(path)
        return tree.value_at(self.base, path)

    def put(self, path: str, value: str | None) -> None:
        """Set a value, ``""`` for an element that is only there; None says that there must be none.

        Raises:
            ModelError: the value has a character that no document can have.
        """
        if value is not None:
            checked(value, f"{self.tag}/{path}")
        self._removed.discard(path)
        self._written.discard(path)
        self._values.pop(path, None)
        self._values[path] = value

    def remove(self, path: str) -> None:
        """Say that there must be no such element, whatever is in it."""
        self.put(path, None)
        self._removed.add(path)

    def default(self, path: str, value: str | None) -> None:
        """Set a value where none was set."""
        if value is not None and self.get(path) is None:
            self.put(path, value)

    def was_put(self, path: str) -> bool:
        """Whether a value was set here, or denied."""
        return path in self._values

    def has(self, prefix: str) -> bool:
        """Whether anything is set at a path or below it."""
        if any(value is not None and _below(path, prefix) for path, value in self._values.items()):
            return True
        return self.base is not None and tree.value_at(self.base, prefix) is not None

    def clear(self, prefix: str) -> None:
        """Forget what is set at a path or below it, and take it out of an element that exists."""
        self._values = {path: value for path, value in self._values.items() if not _below(path, prefix)}
        if self.base is None:
            return
        steps, _, last = prefix.rpartition("/")
        if last.startswith("@"):
            owner = tree.find(self.base, steps.split("/") if steps else [])
            if owner is not None:
                owner.attrib.pop(last[1:], "")
            return
        while (node := tree.find(self.base, prefix.split("/"))) is not None:
            tree.remove(node)

    def empty(self, prefix: str = "", *, keep: bool = False) -> None:
        """Take everything out of the element, or of the one at ``prefix``; with ``keep`` that stays where it is."""
        if not keep and prefix:
            self.clear(prefix)
            return
        self._values = {path: value for path, value in self._values.items() if prefix and not _below(path, prefix)}
        node = None if self.base is None else tree.find(self.base, prefix.split("/") if prefix else [])
        if node is not None:
            tree.empty(node)

    def paths(self) -> list[str]:
        """Where values are set, in the order of the document."""
        return [path for path in self._sorted() if self._values[path] is not None]

    def element(self) -> Node:
        """The element with its content: a new one, or that which existed, changed."""
        root = etree.Element(self.tag) if self.base is None else self.base
        fillers: list[Node] = []
        for path in self._sorted():
            if path in self._written:
                continue
            value = self._values[path]
            if value is not None:
                tree.set_value(root, path, value, fillers)
            elif path in self._removed:
                _take_out(root, path)
            else:
                tree.unset(root, path)
        for node in fillers:
            if tree.is_empty(node):
                tree.remove(node)
        if self.edits:
            from hostel.cli.virt_install import edit

            edit.apply(root, self.edits)
        if self.base is not None:
            self.adopt(root)
        return root

    def adopt(self, element: Node) -> None:
        """Take what :meth:`element` made as the element that exists, which has all that was asked for."""
        self.base = element
        self._written = set(self._values)
        self._edited += self.edits
        self.edits = []

    def anew(self) -> Part:
        """The same values and edits for an element that does not exist yet."""
        other = copy.copy(self)
        other.base = None
        other.edits, other._edited = [*self._edited, *self.edits], []
        other._values, other._removed, other._written = dict(self._values), set(self._removed), set()
        return other

    def _sorted(self) -> list[str]:
        rest = self._order.index("*")
        return sorted(self._values, key=lambda path: self._rank(path, rest))

    def _rank(self, path: str, rest: int) -> int:
        plain = _INDEX.sub("", path)
        for index, entry in enumerate(self._order):
            if plain == entry.removesuffix("$") or _below(plain, entry):
                return index
        return rest


def _below(path: str, prefix: str) -> bool:
    """Whether a path is ``prefix``, or lies inside it; ``listen`` stands for ``listen[2]`` too."""
    return path == prefix or path.startswith((f"{prefix}/", f"{prefix}["))


def _take_out(root: Node, path: str) -> None:
    node = tree.find(root, path.split("/"))
    if node is not None and node is not root:
        tree.remove(node)
