"""Documents that libvirt's own schemas allow: one at least for every element, attribute and value, in every place."""

from __future__ import annotations

import random
import re
import re._parser as parser  # type: ignore[import-not-found]  # how Python itself reads a pattern
import string
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lxml import etree

SCHEMAS = Path("/usr/share/libvirt/schemas")
_RNG = "{http://relaxng.org/ns/structure/1.0}"
_NEVER = 10**9
_NUMBERS = ("int", "short", "long", "integer", "unsignedInt", "unsignedLong", "unsignedShort", "positiveInteger")
_OTHERS = {"dateTime": "2024-01-02T03:04:05", "double": "1.5", "anyURI": "http://example.com/"}
_NAMED = ("element", "attribute")
_NAMING = ("name", "anyName", "nsName", "param", "except")
_PLAIN = {ord(letter): None for letter in string.punctuation + string.whitespace + "0"}

Route = tuple[int, ...]


class Node:
    """One pattern of a grammar.

    Attributes:
        kind: ``element``, ``choice``, ``ref`` and so on.
        name: an element's, an attribute's, or a definition's.
        namespace: an element's.
        parts: what is in it.
        text: a value.
        limits: what a datum has to keep, and its ``type``.
    """

    __slots__ = ("kind", "limits", "name", "namespace", "parts", "text")

    def __init__(self, node: Any) -> None:
        self.kind = str(node.tag).removeprefix(_RNG)
        found = node.get("name") or node.findtext(f"{_RNG}name") or "anything"
        self.name = str(found.rpartition(":")[2])
        self.namespace = _namespace(node) if self.kind == "element" else None
        below = [part for part in node if isinstance(part.tag, str)]
        self.parts = [Node(part) for part in below if part.tag.removeprefix(_RNG) not in _NAMING]
        self.text = (node.text or "").strip()
        self.limits = {part.get("name"): str(part.text).strip() for part in below if part.tag == f"{_RNG}param"}
        if self.kind == "data":
            self.limits["type"] = node.get("type")


class Schema:
    """A grammar; a route through it says which part of each pattern leads to one leaf."""

    def __init__(self, name: str, seed: int = 1) -> None:
        self.rules = etree.RelaxNG(etree.parse(SCHEMAS / f"{name}.rng"))
        self._random = random.Random(seed)
        self._defined: dict[str, Node] = {}
        self._starts: list[Node] = []
        self._costs: dict[Node, int] = {}
        self._load(f"{name}.rng", set())

    def documents(self, *, every_route: bool = False) -> Iterator[tuple[str, Any]]:
        """Every path with the first valid document that has it: ``/network/ip/@family=ipv6``.

        Args:
            every_route: give a document for each way to a path, such as for each kind of value of an attribute.
        """
        seen: set[str] = set()
        for route, path in self._routes(self._starts[0], (), ""):
            if every_route or path not in seen:
                parent = etree.Element("parent")
                self._write(self._starts[0], route, parent)
                if self.rules.validate(parent[0]):
                    seen.add(path)
                    yield path, parent[0]

    def _load(self, name: str, overridden: set[str]) -> None:
        root = etree.parse(SCHEMAS / name).getroot()
        self._starts += map(Node, root.findall(f"{_RNG}start"))
        for node in root.findall(f"{_RNG}define") + root.findall(f"{_RNG}include/{_RNG}define"):
            if node.get("name") not in overridden:
                self._define(Node(node))
        for node in root.findall(f"{_RNG}include"):
            own = {str(below.get("name")) for below in node if below.get("name")}
            self._load(str(node.get("href")), overridden | own)

    def _define(self, node: Node) -> None:
        """Keep a definition; several of one name are alternatives (``combine='choice'``)."""
        known = self._defined.setdefault(node.name, node)
        if known is not node:
            both = Node(etree.Element(f"{_RNG}choice"))
            both.parts = [known, node]
            self._defined[node.name] = both

    def _routes(self, node: Node, above: tuple[str, ...], path: str) -> Iterator[tuple[Route, str]]:
        if node.kind == "ref":
            if node.name not in above:
                yield from self._routes(self._defined[node.name], (*above, node.name), path)
        elif node.kind == "value":
            yield (), f"{path}={node.text}"
        elif node.kind == "data":
            yield (), f"{path}~"
        elif node.kind != "notAllowed":
            if node.kind in _NAMED:
                path += f"/@{node.name}" if node.kind == "attribute" else f"/{node.name}"
            for number, part in enumerate(node.parts):
                for route, found in self._routes(part, above, path):
                    yield (number, *route), found
            if not node.parts:
                yield (), path

    def _cost(self, node: Node, above: frozenset[Node] = frozenset()) -> int:
        """How many elements and attributes there must be."""
        if node in self._costs or node in above:
            return self._costs.get(node, _NEVER)
        costs = [0]
        if node.kind == "notAllowed":
            costs = [_NEVER]
        elif node.kind == "ref":
            costs = [self._cost(self._defined[node.name], above | {node})]
        elif node.kind not in ("optional", "zeroOrMore"):
            costs = [self._cost(part, above | {node}) for part in node.parts] or [0]
        cost = (min(costs) if node.kind == "choice" else sum(costs)) + (node.kind in _NAMED)
        if cost < _NEVER:
            self._costs[node] = cost
        return cost

    def _write(self, node: Node, route: Route | None, parent: Any) -> None:
        """Add what a pattern must have, and what lies on the route."""
        if node.kind == "ref":
            self._write(self._defined[node.name], route, parent)
        elif node.kind in _NAMED:
            found = etree.SubElement(parent, etree.QName(node.namespace, node.name))
            self._write_parts(node, route, found)
            if node.kind == "attribute":
                parent.remove(found)
                parent.set(node.name, found.text or ("" if node.parts else "text"))
        elif node.kind == "choice":
            costs = [self._cost(part) for part in node.parts]
            least = [number for number, cost in enumerate(costs) if cost == min(costs)]
            number = route[0] if route else self._random.choice(least)
            self._write(node.parts[number], route[1:] if route else None, parent)
        elif node.kind in ("value", "text", "data"):
            parent.text = (parent.text or "") + self._value(node)
        elif node.kind not in ("optional", "zeroOrMore") or route is not None:
            self._write_parts(node, route, parent)

    def _write_parts(self, node: Node, route: Route | None, parent: Any) -> None:
        for number, part in enumerate(node.parts):
            self._write(part, route[1:] if route and route[0] == number else None, parent)

    def _value(self, node: Node) -> str:
        if node.kind != "data":
            return node.text or "text"
        least, pattern, type = (node.limits.get(name) for name in ("minInclusive", "pattern", "type"))
        if pattern is not None and least is None:
            return self._matching(parser.parse(re.sub(r"(?<!\\)\$", r"\\$", pattern)))
        return str(max(int(least or 1), 1)) if type in _NUMBERS else _OTHERS.get(type or "", "string")

    def _matching(self, pattern: Any) -> str:
        """A short text that matches a pattern."""
        text = ""
        for operation, argument in pattern:
            match str(operation):
                case "LITERAL":
                    text += chr(argument)
                case "IN":
                    text += self._random.choice(_letters(argument))
                case "MAX_REPEAT":
                    least, most, below = argument
                    text += "".join(self._matching(below) for _ in range(min(max(least, 1), most)))
                case "SUBPATTERN":
                    text += self._matching(argument[3])
                case "BRANCH":
                    text += self._matching(self._random.choice(argument[1]))
                case _:
                    text += "a"
        return text


def places(document: str) -> Counter[str]:
    """The elements and attributes of a document, each with how often it is there."""
    found: Counter[str] = Counter()

    def walk(element: Any, path: str) -> None:
        path += f"/{element.tag}"
        found.update([path, *(f"{path}/@{name}" for name in element.attrib)])
        for below in element.iterchildren("*"):
            walk(below, path)

    walk(etree.fromstring(document), "")
    return found


def _namespace(node: Any) -> str | None:
    while node is not None and node.get("ns") is None:
        node = node.getparent()
    return None if node is None else node.get("ns") or None


def _letters(choices: Any) -> str:
    found = ""
    for operation, argument in choices:
        if str(operation) == "NEGATE":
            return "a"
        if str(operation) == "RANGE":
            found += "".join(chr(letter) for letter in range(argument[0], argument[1] + 1))
        elif str(operation) == "LITERAL":
            found += chr(argument)
    return found.translate(_PLAIN) or found
