"""A document under construction: values at the places where virt-install puts them, in its order.

The domain model reads finished documents and writes them in libvirt's order. What an installer asks for is not finished
(libvirt adds addresses and controllers), and people compare ``--print-xml`` with what they know: hence this.
"""

from __future__ import annotations

import re
from typing import Final

from lxml import etree

from hostel.codec.xmltext import checked

Node = etree._Element

NAMESPACES: Final = {"libosinfo": "http://libosinfo.org/xmlns/libvirt/domain/1.0"}
VIRTIO_DRIVER: Final = ("driver/@ats", "driver/@iommu", "driver/@packed", "driver/@page_per_vq")
ADDRESS: Final = tuple(
    f"address/@{name}"
    for name in ("type", "domain", "controller", "bus", "slot", "function", "target", "unit", "multifunction")
)
# Every device ends its own order with these; "*" is where everything unlisted goes, in the order it was put.
DEVICE_ORDER: Final = (*VIRTIO_DRIVER, "alias", *ADDRESS, "address", "*", "boot")
_CHARACTER: Final = (
    "@type", "source[@mode='bind']/@host", "source[@mode='bind']/@service", "source/@mode",
    "source[@mode='connect']/@host", "source[@mode='connect']/@service", "source/@path", "source/@channel", "source",
    "target/@type", "target/@name", "target/@state", *DEVICE_ORDER,
)  # fmt: skip
_ORDERS: Final[dict[str, tuple[str, ...]]] = {
    "disk": (
        "@type", "@device", "@snapshot", "driver/@name", "driver/@type", "driver/@cache", "driver/@discard",
        "driver/@detect_zeroes", "driver/@io", "driver/@iothread", "driver/@queues", "driver/@error_policy",
        "source/@file", "source/@dev", "source/@dir", "source/@volume", "source/@pool", "source/@protocol",
        "source/@name", "source/host", "target/@dev", "target/@bus", *DEVICE_ORDER,
    ),
    "interface": (
        "source/@bridge", "source/@network", "source/@dev", "source/@type", "source/@path", "source/@mode",
        "source/@portgroup", "mac", "target", "model", "virtualport", "filterref", "rom/@bar", "rom/@file", "mtu",
        *DEVICE_ORDER,
    ),
    "graphics": (
        "@type", "gl/@enable", "@port", "@tlsPort", "@autoport", "@websocket", "@keymap", "@listen", "@passwd",
        "@display", "@xauth", *DEVICE_ORDER[:-1], "listen",
    ),
    "controller": ("@type", "@index", "@model", "master", "driver/@queues", "@maxGrantFrames", *DEVICE_ORDER),
    "video": ("model/@type", "model/@vram", "model/@heads", "model/@vgamem", *DEVICE_ORDER),
    "watchdog": ("@model", "@action", *DEVICE_ORDER),
    "redirdev": ("@bus", "@type", "source", *DEVICE_ORDER),
    "sound": (*DEVICE_ORDER, "codec"),
    **dict.fromkeys(("serial", "parallel", "channel", "console"), _CHARACTER),
}  # fmt: skip

# One step of a path: name, then an attribute that must match or the index of a sibling.
_STEP: Final = re.compile(r"(?P<name>[\w:.-]+)(?:\[@(?P<key>\w+)='(?P<value>\w+)'\]|\[(?P<index>\d+)\])?")


class Part:
    """One element and everything in it, as values by path: ``@type``, ``driver/@cache``, ``listen[1]/@address``."""

    def __init__(self, tag: str, order: tuple[str, ...] | None = None) -> None:
        self.tag = tag
        self._order = order or _ORDERS.get(tag, DEVICE_ORDER)
        self._values: dict[str, str | None] = {}

    def get(self, path: str) -> str | None:
        """The value at a path; None where there is none."""
        return self._values.get(path)

    def put(self, path: str, value: str | None) -> None:
        """Set a value, ``""`` for an element that is only there; None says that there must be none.

        Raises:
            ModelError: the value has a character that no document can have.
        """
        if value is not None:
            checked(value, f"{self.tag}/{path}")
        self._values.pop(path, None)
        self._values[path] = value

    def default(self, path: str, value: str | None) -> None:
        """Set a value where none was set."""
        if value is not None and self._values.get(path) is None:
            self.put(path, value)

    def was_put(self, path: str) -> bool:
        """Whether a value was set here, or denied."""
        return path in self._values

    def has(self, prefix: str) -> bool:
        """Whether anything is set at a path or below it."""
        return any(value is not None and _below(path, prefix) for path, value in self._values.items())

    def clear(self, prefix: str) -> None:
        """Forget what is set at a path or below it."""
        self._values = {path: value for path, value in self._values.items() if not _below(path, prefix)}

    def paths(self) -> list[str]:
        """Where values are set, in the order of the document."""
        rest = self._order.index("*")
        found = [path for path, value in self._values.items() if value is not None]
        return sorted(found, key=lambda path: self._rank(path, rest))

    def element(self) -> Node:
        """The element with its content."""
        root = etree.Element(self.tag)
        for path in self.paths():
            value = self._values[path]
            assert value is not None
            *steps, last = path.split("/")
            if last.startswith("@"):
                _descend(root, steps).set(last[1:], value)
                continue
            node = _descend(root, [*steps, last])
            if value:
                node.text = value
        return root

    def _rank(self, path: str, rest: int) -> int:
        for index, entry in enumerate(self._order):
            if path == entry or _below(path, entry):
                return index
        return rest


def _below(path: str, prefix: str) -> bool:
    """Whether a path is ``prefix``, or lies inside it; ``listen`` stands for ``listen[2]`` too."""
    return path == prefix or path.startswith((f"{prefix}/", f"{prefix}["))


def _descend(root: Node, steps: list[str]) -> Node:
    node = root
    for step in steps:
        node = _child(node, step)
    return node


def _child(node: Node, step: str) -> Node:
    match = _STEP.fullmatch(step)
    assert match is not None, step
    tag = _qualified(match["name"])
    found = [child for child in node if child.tag == tag]
    if match["key"]:
        found = [child for child in found if child.get(match["key"]) == match["value"]]
    index = int(match["index"] or 0)
    while len(found) <= index:
        found.append(_new(node, match["name"]))
        if match["key"]:
            found[-1].set(match["key"], match["value"])
    return found[index]


def _new(node: Node, name: str) -> Node:
    prefix, colon, _ = name.partition(":")
    return etree.SubElement(node, _qualified(name), nsmap={prefix: NAMESPACES[prefix]} if colon else None)


def _qualified(name: str) -> str:
    prefix, colon, local = name.partition(":")
    return f"{{{NAMESPACES[prefix]}}}{local}" if colon else name


def write(root: Node) -> str:
    """The text of a document as virt-install prints it."""
    etree.indent(root, "  ")
    return etree.tostring(root, encoding="unicode") + "\n"
