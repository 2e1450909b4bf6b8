"""libosinfo's database of operating systems: files of XML that distributions install as ``osinfo-db``.

It is looked into for what the table of :mod:`hostel.cli.virt_install.osinfo` does not have: where a system's
installation tree is, what an installation over a network needs, drivers, and the scripts that answer an installer.
A file of the user's stands for the host's of the same name, and that for the distribution's, as libosinfo has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple
from xml.sax.saxutils import quoteattr

from lxml import etree

from hostel.cli.virt_install.tree import Node

PACKAGE: Final = "osinfo-db"
_LANGUAGE: Final = "{http://www.w3.org/XML/1998/namespace}lang"
_SIZE: Final = "volume-size"
_KINDS: Final = {"jeos": "Server", "desktop": "Workstation"}  # profile -> what the name of a tree's variant has in it
_NAME: Final = re.compile(r"[\w.+-]+")


class Descriptor(NamedTuple):
    """What a CD-ROM's primary volume descriptor says of it; the size is in bytes."""

    volume: str
    system: str
    publisher: str
    application: str
    size: int


class TreeNote(NamedTuple):
    """What the ``.treeinfo`` of an installation tree says of it."""

    family: str
    variant: str
    version: str
    arch: str


class Database:
    """The files of a host.

    Args:
        roots: directories as libosinfo knows them, the one that counts most last.
    """

    def __init__(self, roots: Iterable[Path]) -> None:
        self._roots = tuple(roots)

    @classmethod
    def of_host(cls, environment: Mapping[str, str]) -> Database:
        """The database of this host and user, where libosinfo looks for it."""
        home = environment.get("XDG_CONFIG_HOME") or str(Path(environment.get("HOME", "/")) / ".config")
        places = (("OSINFO_SYSTEM_DIR", "/usr/share/osinfo"), ("OSINFO_LOCAL_DIR", "/etc/osinfo"))
        roots = [Path(environment.get(name) or place) for name, place in places]
        return cls([*roots, Path(environment.get("OSINFO_USER_DIR") or f"{home}/osinfo")])

    @property
    def is_there(self) -> bool:
        """Whether there is one at all."""
        return any((root / "os").is_dir() for root in self._roots)

    def _texts(self, folder: str) -> Iterator[bytes]:
        files: dict[Path, Path] = {}
        for root in self._roots:
            files |= {path.relative_to(root): path for path in (root / folder).rglob("*.xml")}
        for relative in sorted(files):
            try:
                yield files[relative].read_bytes()
            except OSError:
                continue

    def _entries(self, folder: str, tag: str, word: bytes) -> Iterator[Node]:
        """Every element of a kind in the files that have a word in them."""
        for text in self._texts(folder):
            if word in text:
                yield from _parse(text).iterfind(tag)

    def system(self, name: str) -> System | None:
        """The system of a short name, such as ``debian11``; None where there is none."""
        if not _NAME.fullmatch(name):
            return None
        word = f"<short-id>{name}</short-id>".encode()
        for node in self._entries("os", "os", word):
            if name in (child.text for child in node.iterfind("short-id")):
                return self.system_of(node.get("id", ""))
        return None

    def system_of(self, identifier: str) -> System | None:
        """The system of an identifier: all that any file says of it."""
        word = f"id={quoteattr(identifier)}".encode()
        nodes = [node for node in self._own_entries(identifier) if node.get("id") == identifier]
        nodes = nodes or [node for node in self._entries("os", "os", word) if node.get("id") == identifier]
        nodes.sort(key=lambda node: node.find("short-id") is None)  # what extends it says no name
        return System(identifier, nodes) if nodes else None

    def _own_entries(self, identifier: str) -> Iterator[Node]:
        """The systems in the files that are named after an identifier, as nearly all are."""
        vendor, _, rest = identifier.partition("://")[2].partition("/")
        name = rest.replace("/", "-")
        if not _NAME.fullmatch(vendor) or not _NAME.fullmatch(name):
            return
        files: dict[Path, Path] = {}
        for root in self._roots:
            place = root / "os" / vendor
            for path in (place / f"{name}.xml", *(place / f"{name}.d").glob("*.xml")):
                if path.is_file():
                    files[path.relative_to(root)] = path
        for relative in sorted(files):
            try:
                yield from _parse(files[relative].read_bytes()).iterfind("os")
            except OSError:
                continue

    def names(self) -> list[list[str]]:
        """The short names of every system, the one that it is called by first."""
        found: dict[str, list[str]] = {}
        for node in self._entries("os", "os", b"<short-id>"):
            named = [child.text for child in node.iterfind("short-id") if child.text]
            found.setdefault(node.get("id", ""), []).extend(named)
        return [named for named in found.values() if named]

    def script(self, identifier: str) -> Node | None:
        """The element of an installation script."""
        word = f"id={quoteattr(identifier)}".encode()
        found = self._entries("install-script", "install-script", word)
        return next((node for node in found if node.get("id") == identifier), None)

    def datamap(self, identifier: str) -> dict[str, str]:
        """What the values of a parameter are for an installer; empty where nothing is said."""
        word = f"id={quoteattr(identifier)}".encode()
        for node in self._entries("datamap", "datamap", word):
            if node.get("id") == identifier:
                return {entry.get("inval", ""): entry.get("outval", "") for entry in node.iterfind("entry")}
        return {}

    def identify(self, told: Descriptor) -> Node | None:
        """The ``<media>`` of some system that a CD-ROM is; None where it is none that is known.

        Where several would do, it is the one of which most is said.
        """
        names = ("volume-id", "system-id", "publisher-id", "application-id", _SIZE)
        return self._best("media", "iso", dict(zip(names, map(str, told), strict=True)))

    def identify_tree(self, told: TreeNote) -> Node | None:
        """The ``<tree>`` of some system that an installation tree is; None where it is none that is known."""
        return self._best("tree", "treeinfo", told._asdict())

    def _best(self, tag: str, within: str, told: Mapping[str, str]) -> Node | None:
        word = f"<{tag}".encode()
        best: tuple[int, Node | None] = (0, None)
        for text in self._texts("os"):
            if word not in text:
                continue
            for node in _parse(text).iterfind(f"os/{tag}"):
                said = _said(node, within, told)
                if said > best[0]:
                    best = (said, node)
        return best[1]


class System:
    """One operating system of the database."""

    def __init__(self, identifier: str, nodes: list[Node]) -> None:
        self.identifier = identifier
        self._nodes = nodes

    def values(self) -> list[tuple[str, str]]:
        """What is said of it in one word each, in the order of the file and untranslated."""
        return plain(child for node in self._nodes for child in node)

    def children(self, path: str) -> list[Node]:
        """The elements at a path."""
        return [found for node in self._nodes for found in node.iterfind(path)]

    def text(self, tag: str) -> str | None:
        """The first word that an element of a kind holds."""
        return next((node.text for node in self.children(tag) if node.text), None)

    def short_names(self) -> list[str]:
        """The names that options take, the one that it is called by first."""
        return [node.text for node in self.children("short-id") if node.text]

    def needs_efi(self, arch: str) -> bool:
        """Whether it starts with UEFI alone on an architecture."""
        said = {
            node.get("type"): node.get("supported") for node in self.children("firmware") if node.get("arch") == arch
        }
        return "efi" in said and said["efi"] != "false" and said.get("bios") == "false"

    def scripts(self) -> list[str]:
        """The identifiers of the scripts that install it."""
        return [script.get("id", "") for script in self.children("installer/script")]

    def location(self, arch: str, profile: str | None) -> str | None:
        """The address of its installation tree for an architecture; None where none is known.

        Args:
            arch: as libvirt names it.
            profile: what is to be installed: ``jeos`` or ``desktop``; None for whatever there is.
        """
        names = {variant.get("id"): variant.findtext("name") or "" for variant in self.children("variant")}
        wanted = _KINDS.get(profile, profile) if profile else "Everything"
        last: str | None = None
        for tree in self.children("tree"):
            if tree.get("arch") != arch:
                continue
            last = tree.findtext("url")
            if any(wanted in names.get(variant.get("id"), "") for variant in tree.iterfind("variant")):
                return last
        return last

    @property
    def has_trees(self) -> bool:
        """Whether anything is said of installation trees."""
        return bool(self.children("tree"))

    def network_memory(self, arch: str) -> int:
        """The memory that an installation over a network needs, in KiB; 0 where nothing is said."""
        for resources in self.children("resources"):
            ram = resources.findtext("network-install/ram")
            if ram and ram.isdigit() and resources.get("arch") in (arch, "all"):
                return int(ram) // 1024
        return 0

    def drivers(self, arch: str) -> list[Node]:
        """Its drivers for an architecture that its installer takes."""
        return [
            driver
            for driver in self.children("driver")
            if driver.get("pre-installable") == "true" and driver.get("arch") == arch
        ]


def plain(nodes: Iterable[Node]) -> list[tuple[str, str]]:
    """Those of the elements that hold a word, and are no translation."""
    return [
        (str(node.tag), node.text)
        for node in nodes
        if isinstance(node.tag, str) and not len(node) and node.text and node.get(_LANGUAGE) is None
    ]


def _parse(text: bytes) -> Node:
    """The root of a file; one that is no XML has nothing in it."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
    try:
        return etree.fromstring(text, parser)
    except etree.XMLSyntaxError:
        return etree.Element("libosinfo")


def name_of(node: Node) -> str | None:
    """The short name of the system that a medium or a tree is of."""
    parent = node.getparent()
    return parent.findtext("short-id") if parent is not None else None


def _said(node: Node, within: str, told: Mapping[str, str]) -> int:
    """How much is said of a medium or a tree that all fits one; 0 where something does not."""
    found = 0
    for name, value in told.items():
        pattern = node.findtext(f"{within}/{name}")
        if pattern is None:
            continue
        if not _fits(name, pattern, value):
            return 0
        found += 1
    return found


def _fits(name: str, pattern: str, value: str) -> bool:
    if name == _SIZE:
        return pattern in (value, "0")
    try:
        return re.search(pattern, value) is not None
    except re.error:
        return False
