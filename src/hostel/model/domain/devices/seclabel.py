"""``<seclabel>``: security labels of a domain and of what its devices open."""

from __future__ import annotations

from hostel.codec.xml import YES_NO, Element, attr, choice, text


class SecurityLabel(Element, tag="seclabel"):
    """The domain's label for one security driver (``virSecurityLabelDefFormat``)."""

    type: str | None = attr(choice("default", "none", "dynamic", "static"), default=None)
    model: str | None = attr(default=None)
    relabel: bool | None = attr(YES_NO, default=None)
    label: str | None = text(default=None)
    image_label: str | None = text(tag="imagelabel", default=None)
    base_label: str | None = text(tag="baselabel", default=None)


class DeviceSecurityLabel(Element, tag="seclabel"):
    """The label of one device's source (``virSecurityDeviceLabelDefFormat``)."""

    model: str | None = attr(default=None)
    label_skip: bool | None = attr(YES_NO, name="labelskip", default=None)
    relabel: bool | None = attr(YES_NO, default=None)
    label: str | None = text(default=None)
