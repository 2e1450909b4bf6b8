"""What a document tells only those who may change the domain (``VIR_DOMAIN_XML_SECURE``)."""

from __future__ import annotations

from hostel.model.domain.domain import Domain


def hide_passwords(domain: Domain) -> None:
    """Take the passwords out."""
    for graphics in domain.devices.graphics:
        graphics.passwd = None
