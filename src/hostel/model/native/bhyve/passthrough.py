"""``<bhyve:commandline>``: arguments past the document."""

from __future__ import annotations

from typing import Final
from xml.etree import ElementTree

from hostel.model.domain.domain import Domain

_URI: Final = "http://libvirt.org/schemas/domain/bhyve/1.0"


def passed_arguments(domain: Domain) -> list[str]:
    """What is passed on as it is."""
    found = [item.value for item in domain.unknown if item.name == f"{{{_URI}}}commandline"]
    return [
        argument.get("value", "") for xml in found for argument in ElementTree.fromstring(xml).findall(f"{{{_URI}}}arg")
    ]
