"""What a document tells only those who may change the domain (``VIR_DOMAIN_XML_SECURE``)."""

from __future__ import annotations

from hostel.codec.xml import Element
from hostel.model.domain.devices.graphics import Graphics
from hostel.model.domain.devices.source import DiskSource


def hide_passwords(element: Element) -> None:
    """Take passwords of screens and cookies of disks out of a document, and of all documents in it."""
    if isinstance(element, Graphics):
        element.passwd = None
    elif isinstance(element, DiskSource):
        element.cookies = None
    for below in element.elements():
        hide_passwords(below)
