"""Keys and confidential guests: ``<keywrap>`` and ``<launchSecurity>``."""

from __future__ import annotations

from hostel.codec.xml import ON_OFF, YES_NO, Element, attr, children, choice, hexadecimal, integer, text


class KeyCipher(Element, tag="cipher"):
    """A way of wrapping keys on s390x."""

    name: str = attr(choice("aes", "dea"))
    state: bool = attr(ON_OFF)


class Keywrap(Element, tag="keywrap"):
    """Which ways of wrapping keys the guest may use."""

    ciphers: list[KeyCipher] = children(KeyCipher, factory=list)


class LaunchSecurity(Element, tag="launchSecurity"):
    """Memory that the host cannot read (``virDomainSecDefFormat``)."""

    type: str = attr(choice("sev", "s390-pv"))
    kernel_hashes: bool | None = attr(YES_NO, name="kernelHashes", default=None)
    cbitpos: int | None = text(integer(), default=None)
    reduced_phys_bits: int | None = text(integer(), tag="reducedPhysBits", default=None)
    policy: int | None = text(hexadecimal(4, base=16, maximum=0xFFFFFFFF), default=None)
    dh_cert: str | None = text(tag="dhCert", default=None)
    session: str | None = text(default=None)
