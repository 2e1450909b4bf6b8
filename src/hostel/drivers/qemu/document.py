"""The domain document as the driver takes it: read, completed for this host's QEMU, held against the rules."""

from __future__ import annotations

from typing import Final

from hostel.codec.xmltext import parse as read_xml
from hostel.drivers.document import Words, reading
from hostel.errors import ErrorCode, ErrorDomain, ModelError, VirtError
from hostel.model.domain.domain import Domain, DomainType
from hostel.model.domain.inactive import forget_run
from hostel.model.domain.platform import Platform

# libvirt's words for some elements, in place of the general ones.
_WORDS: Final[Words] = {
    "domain": (ErrorCode.INTERNAL_ERROR, "missing domain type attribute"),
    "os": (ErrorCode.XML_ERROR, "an os <type> must be specified"),
    "uuid": (ErrorCode.INTERNAL_ERROR, "malformed uuid element"),
}
TYPES: Final = (DomainType.QEMU, DomainType.KVM)


_GUESTS: Final = ("hvm", "xen", "linux", "exe", "uml", "xenpvh")  # virDomainOSType


def unsupported(message: str) -> VirtError:
    """The error for a document that asks for what this driver does not have."""
    return VirtError(ErrorCode.CONFIG_UNSUPPORTED, f"unsupported configuration: {message}", domain=ErrorDomain.QEMU)


def parse(xml: str, platform: Platform, *, is_given: bool = True) -> Domain:
    """Read a document that is to be defined or started: complete, and without what an earlier run left in it.

    See :func:`finish` for ``is_given``.

    Raises:
        VirtError: in libvirt's words.
    """
    domain = parse_stored(xml)
    finish(domain, platform, is_given=is_given)
    return domain


def finish(domain: Domain, platform: Platform, *, is_given: bool = True) -> None:
    """Complete a document that was read, and hold it against the rules; one that is complete stays as it is.

    Rules for what is given alone are for a document that ``is_given`` by a client, not for one that was taken before.

    Raises:
        VirtError: in libvirt's words.
    """
    from hostel.model.domain.defaults import complete
    from hostel.model.domain.validate import validate

    with reading(ErrorDomain.DOMAIN):
        if not domain.name:
            raise ModelError("/domain/name", "missing name information", code=ErrorCode.NO_NAME)
        named = domain.devices.emulator or platform.emulator or "qemu"
        if domain.type not in TYPES:
            raise unsupported(
                f"Emulator '{named}' does not support virt type '{domain.type}'; write type='qemu' or type='kvm'"
            )
        if domain.os is not None and domain.os.type.value not in _GUESTS:
            reason = f"unknown OS type '{domain.os.type.value}'"
            raise ModelError("/domain/os/type", reason, code=ErrorCode.CONFIG_UNSUPPORTED)
        if domain.os is not None and domain.os.type.value != "hvm":
            raise unsupported(f"Emulator '{named}' does not support os type '{domain.os.type.value}'; write hvm")
        forget_run(domain)
        complete(domain, platform)
        validate(domain, platform, is_given=is_given)


def check_startable(domain: Domain, platform: Platform) -> None:
    """Hold a complete document against what this host's QEMU can start.

    Raises:
        VirtError: in libvirt's words.
    """
    from hostel.model.domain.rules.start import check_start

    with reading(ErrorDomain.QEMU):
        check_start(domain, platform)


def _check_head(xml: str) -> None:
    """Refuse a document without a name, or for a hypervisor that there is not.

    Raises:
        ModelError: it is one.
    """
    root = read_xml(xml, "domain_definition")
    if root.tag != "domain":
        return
    if not (root.findtext("name") or ""):
        raise ModelError("/domain/name", "missing name information", code=ErrorCode.NO_NAME)
    if (kind := root.get("type")) is not None and kind not in set(DomainType):
        raise ModelError("/domain/@type", f"invalid domain type {kind}", code=ErrorCode.CONFIG_UNSUPPORTED)


def parse_stored(xml: str) -> Domain:
    """Read a document that is taken as it stands.

    Raises:
        VirtError: it cannot be read.
    """
    with reading(ErrorDomain.DOMAIN, _WORDS):
        try:
            return Domain.parse(xml)
        except ModelError:
            _check_head(xml)  # which libvirt looks at first
            raise
