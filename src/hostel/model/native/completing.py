"""What all converters do with a document: complete it as libvirt's parser of that hypervisor would."""

from __future__ import annotations

from typing import Final

from hostel.model.domain.defaults import complete
from hostel.model.domain.devices.interface import Mac
from hostel.model.domain.domain import Domain, DomainType
from hostel.model.domain.inactive import forget_run
from hostel.model.domain.platform import Platform

# Companies' numbers for hardware addresses that are made up.
_PREFIXES: Final = {DomainType.VMWARE: "00:0c:29", DomainType.XEN: "00:16:3e"}
NO_UUID: Final = "00000000-0000-0000-0000-000000000000"
NO_MAC: Final = "00:00:00:00:00:00"


def give_addresses(domain: Domain, platform: Platform) -> None:
    """Give interfaces without a hardware address one of the hypervisor's company."""
    prefix = _PREFIXES.get(domain.type)
    for interface in domain.devices.interfaces if prefix is not None else ():
        if interface.mac is None:
            tail = ":".join(f"{byte:02x}" for byte in platform.random_bytes(3))
            interface.mac = Mac(address=f"{prefix}:{tail}")


def complete_read(domain: Domain, platform: Platform) -> None:
    """Complete what was made from a native configuration, which says nothing of the order of booting by itself.

    Raises:
        ModelError: it does not go together.
    """
    boot = list(domain.os.boot) if domain.os is not None else []
    headless = [video.model for video in domain.devices.videos if video.model is not None and not video.model.heads]
    ports = [item.virtualport for item in domain.devices.interfaces if item.virtualport is not None]
    anonymous = [port for port in ports if port.parameters is None]
    give_addresses(domain, platform)
    complete(domain, platform, is_new=True)
    for port in anonymous:
        port.parameters = None  # the hypervisor's own tools say who it is
    if domain.os is not None:
        domain.os.boot = boot
    for model in headless:
        model.heads = None


def parse_document(xml: str, platform: Platform) -> Domain:
    """Read a document that is to become a native configuration.

    Raises:
        ModelError: it is none, or does not go together.
    """
    return complete_document(Domain.parse(xml), platform)


def complete_document(domain: Domain, platform: Platform) -> Domain:
    """Complete a document as it is defined: without what an earlier run left in it.

    Raises:
        ModelError: it does not go together.
    """
    forget_run(domain)
    give_addresses(domain, platform)
    complete_written(domain, platform)
    return domain


def complete_written(domain: Domain, platform: Platform) -> None:
    """Complete what is to be written as a configuration, which says the order of booting beside a bootloader too.

    Raises:
        ModelError: it does not go together.
    """
    boot = list(domain.os.boot) if domain.os is not None else []
    complete(domain, platform, is_new=False)
    if domain.os is not None and domain.bootloader is not None:
        domain.os.boot = boot
