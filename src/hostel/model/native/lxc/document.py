"""Domain documents as LXC's driver completes them (``virLXCDomainDefPostParse``)."""

from __future__ import annotations

from hostel.errors import ErrorCode, ModelError
from hostel.model.domain.devices.character import ConsoleTarget
from hostel.model.domain.devices.filesystem import Filesystem
from hostel.model.domain.domain import Domain, DomainType
from hostel.model.domain.platform import Platform
from hostel.model.native.completing import complete_document
from hostel.units import scale_libvirt


def parse_document(xml: str, platform: Platform) -> Domain:
    """Read a document and complete it; consoles are a container's, unless they say otherwise.

    Raises:
        ModelError: it is none of a container, or does not go together.
    """
    domain = Domain.parse(xml)
    if domain.type != DomainType.LXC:
        raise ModelError("/domain/@type", f"Expecting virt type to be 'lxc' but found '{domain.type}'")
    for console in domain.devices.consoles:
        console.target = console.target or ConsoleTarget()
        if console.target.type in (None, "none"):
            console.target.type = "lxc"
    for filesystem in domain.devices.filesystems:
        if filesystem.type == "ram":
            _write_usage(domain, filesystem)
    plain = [label for label in domain.seclabels if label.type == "none" and label.model is None]
    complete_document(domain, platform)
    for label in plain:
        label.model = None  # of whichever security driver the host has
    return domain


def _write_usage(domain: Domain, filesystem: Filesystem) -> None:
    """Write a size in KiB."""
    source = filesystem.source
    if source is None or source.usage is None:
        return
    try:
        size = scale_libvirt(source.usage, source.units or "KiB")
    except (ValueError, OverflowError) as error:
        path = f"{domain.devices.path(filesystem)}/source/@usage"
        raise ModelError(path, str(error), code=ErrorCode.INVALID_ARG) from None
    source.usage, source.units = size // 1024, "KiB"
