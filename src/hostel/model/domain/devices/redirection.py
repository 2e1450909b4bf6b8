"""``<redirdev>``, ``<redirfilter>`` and ``<smartcard>``: devices of whoever looks at the guest."""

from __future__ import annotations

from hostel.codec.xml import (
    STRING,
    YES_NO,
    Element,
    Kind,
    attr,
    child,
    children,
    choice,
    enumeration,
    integer,
    text,
    texts,
)
from hostel.model.domain.devices.character import CharacterBackend, CharacterEnd, CharacterType
from hostel.model.domain.devices.device import Boot

_C_INTEGER = integer(-1, 0xFFFF, base=0)


def _capitals(digits: int) -> Kind[int]:
    return Kind(_C_INTEGER.parse, lambda value: "-1" if value < 0 else f"0x{value:0{digits}X}")


class Redirdev(CharacterBackend, tag="redirdev"):
    """A USB device that comes over a channel."""

    bus: str = attr(choice("usb"), default="usb")
    type: CharacterType = attr(enumeration(CharacterType), default=CharacterType.SPICEVMC)
    boot: Boot | None = child(Boot, default=None)


class UsbRule(Element, tag="usbdev"):
    """Whether USB devices of a class, vendor, product and version may come; -1 stands for all."""

    usb_class: int | None = attr(_capitals(2), name="class", default=None)
    vendor: int | None = attr(_capitals(4), default=None)
    product: int | None = attr(_capitals(4), default=None)
    version: str | None = attr(default=None)
    allow: bool = attr(YES_NO)


class RedirectionFilter(Element, tag="redirfilter"):
    """Which USB devices may come; the first rule that fits counts."""

    rules: list[UsbRule] = children(UsbRule, factory=list)


class Smartcard(CharacterEnd, tag="smartcard"):
    """A smartcard reader: the host's, certificates of the host, or one at the end of a channel."""

    mode: str = attr(choice("host", "host-certificates", "passthrough"))
    type: CharacterType | None = attr(enumeration(CharacterType), default=None)
    certificates: list[str] = texts(STRING, tag="certificate", factory=list)
    database: str | None = text(default=None)
