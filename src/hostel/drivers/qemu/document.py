"""The domain document as the driver takes it: read, completed for this host's QEMU, held against the rules."""

from __future__ import annotations

from typing import Final

from hostel.drivers.document import Words, reading
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.domain import Domain, DomainType
from hostel.model.domain.inactive import forget_run
from hostel.model.domain.platform import Platform

# libvirt's words for some elements, in place of the general ones.
_WORDS: Final[Words] = {
    "domain": (ErrorCode.INTERNAL_ERROR, "missing domain type attribute"),
    "uuid": (ErrorCode.INTERNAL_ERROR, "malformed uuid element"),
}
TYPES: Final = (DomainType.QEMU, DomainType.KVM)


def unsupported(message: str) -> VirtError:
    """The error for a document that asks for what this driver does not have."""
    return VirtError(ErrorCode.CONFIG_UNSUPPORTED, f"unsupported configuration: {message}", domain=ErrorDomain.QEMU)


def parse(xml: str, platform: Platform) -> Domain:
    """Read a document that is to be defined or started: complete, and without what an earlier run left in it.

    Raises:
        VirtError: in libvirt's words.
    """
    domain = parse_stored(xml)
    finish(domain, platform)
    return domain


def finish(domain: Domain, platform: Platform) -> None:
    """Complete a document that was read, and hold it against the rules; one that is complete stays as it is.

    Raises:
        VirtError: in libvirt's words.
    """
    from hostel.model.domain.defaults import complete
    from hostel.model.domain.validate import validate

    with reading(ErrorDomain.DOMAIN):
        named = domain.devices.emulator or platform.emulator or "qemu"
        if domain.type not in TYPES:
            raise unsupported(
                f"Emulator '{named}' does not support virt type '{domain.type}'; write type='qemu' or type='kvm'"
            )
        if domain.os is not None and domain.os.type.value != "hvm":
            raise unsupported(f"Emulator '{named}' does not support os type '{domain.os.type.value}'; write hvm")
        forget_run(domain)
        complete(domain, platform)
        validate(domain, platform)


def check_startable(domain: Domain, platform: Platform) -> None:
    """Hold a complete document against what this host's QEMU can start.

    Raises:
        VirtError: in libvirt's words.
    """
    from hostel.model.domain.rules.start import check_start

    with reading(ErrorDomain.QEMU):
        check_start(domain, platform)


def parse_stored(xml: str) -> Domain:
    """Read a document that is taken as it stands.

    Raises:
        VirtError: it cannot be read.
    """
    with reading(ErrorDomain.DOMAIN, _WORDS):
        return Domain.parse(xml)
