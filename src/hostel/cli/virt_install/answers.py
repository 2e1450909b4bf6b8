"""Scripts that answer an installer, as libosinfo makes them: templates of its database, filled with what is wanted.

A template is an XSLT stylesheet. What it is applied to is a document of what is known: the script, the system, its
medium and the configuration, each with an element for every word. Its root says what is made: the script itself, or
what the installer's kernel is told of it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from lxml import etree

from hostel.cli.virt_install.database import Database, System, plain
from hostel.cli.virt_install.tree import Node
from hostel.errors import UsageError

SCRIPT: Final = "install-script-config"
ARGUMENTS: Final = "command-line"
_ALONE: Any = etree.XSLTAccessControl.DENY_ALL  # type: ignore[attr-defined]  # a template has all that it needs
_MEDIUM: Final = ("volume-id", "system-id", "publisher-id", "application-id", "volume-size")


class Script:
    """One script for one system."""

    def __init__(self, database: Database, element: Node) -> None:
        self._database = database
        self._element = element
        self.identifier = element.get("id", "")
        self.profile = element.findtext("profile") or ""
        self.filename = element.findtext("expected-filename") or ""
        self.methods = frozenset(method.text or "" for method in element.iterfind("injection-method"))

    def requires(self, name: str) -> bool:
        """Whether it cannot do without a parameter of the configuration."""
        said = [param.get("policy") for param in self._element.iterfind("config/param") if param.get("name") == name]
        return bool(said) and said[-1] != "optional"

    def render(self, kind: str, known: Known) -> str:
        """The script, or what the kernel is told of it.

        Args:
            kind: :data:`SCRIPT` or :data:`ARGUMENTS`.
            known: what it is made from.

        Raises:
            UsageError: the template cannot be used.
        """
        stylesheet = self._element.find("template/*")
        if stylesheet is None:
            raise UsageError(f"the installation script {self.identifier} of the database has no template")
        try:
            transform = etree.XSLT(copy.deepcopy(stylesheet), access_control=_ALONE)
            made = bytes(transform(self._document(kind, known)))
        except etree.LxmlError as error:
            raise UsageError(f"the installation script {self.identifier} of the database: {error}") from error
        return made.decode()

    def _document(self, kind: str, known: Known) -> Node:
        root = etree.Element(kind)
        told = [("preferred-injection-method", known.method), ("installation-source", known.source)]
        _add(root, "script", self.identifier, [*plain(self._element), *told])
        _add(root, "os", known.system.identifier, known.system.values())
        if known.medium is not None:
            _add(root, "media", "", _of_medium(known.medium))
        if known.tree is not None and kind == ARGUMENTS:  # libosinfo 1.10 tells scripts nothing of trees
            _add(root, "tree", "", [("architecture", known.tree.get("arch", "")), *plain(known.tree)])
        _add(root, "config", "", [(name, self._value(name, value)) for name, value in known.config.items()])
        return root

    def _value(self, name: str, value: str) -> str:
        """A value as this installer has it."""
        for param in self._element.iterfind("config/param"):
            mapped = param.get("value-map")
            if param.get("name") == name and mapped is not None:
                return self._database.datamap(mapped).get(value, value)
        return value


class Known(NamedTuple):
    """What a script is made from.

    Attributes:
        system: the system that is installed.
        medium: the ``<media>`` that it is installed from; None for a tree.
        method: how the script reaches the installer: ``initrd`` or ``cdrom``.
        config: the configuration, by libosinfo's names.
        tree: the ``<tree>`` that it is installed from, where that is one of the database's.
    """

    system: System
    medium: Node | None
    method: str
    config: Mapping[str, str]
    tree: Node | None = None

    @property
    def source(self) -> str:
        """Where the packages come from."""
        return "network" if self.medium is None else "media"


def _of_medium(medium: Node) -> list[tuple[str, str]]:
    found = [("architecture", medium.get("arch", "")), *plain(medium)]
    found += [("variant", variant.get("id", "")) for variant in medium.iterfind("variant")]
    iso = medium.find("iso")
    return found + ([] if iso is None else [pair for pair in plain(iso) if pair[0] in _MEDIUM])


def _add(root: Node, name: str, identifier: str, values: Iterable[tuple[str, str]]) -> None:
    node = etree.SubElement(root, name)
    etree.SubElement(node, "id").text = identifier
    for key, value in values:
        etree.SubElement(node, key).text = value
