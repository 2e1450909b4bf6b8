"""``<xen:commandline>``: arguments of the device model past the document."""

from __future__ import annotations

from typing import Final
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

_URI: Final = "http://libvirt.org/schemas/domain/xen/1.0"
TAG: Final = f"{{{_URI}}}commandline"


def format_commandline(arguments: list[str]) -> tuple[str, str]:
    """The element's qualified name, and the element."""
    inner = "".join(f"<xen:arg value={quoteattr(argument)}/>" for argument in arguments)
    return TAG, f'<xen:commandline xmlns:xen="{_URI}">{inner}</xen:commandline>'


def parse_commandline(xml: str) -> list[str]:
    """The arguments of an element that is well-formed."""
    return [argument.get("value", "") for argument in ElementTree.fromstring(xml).findall(f"{{{_URI}}}arg")]
