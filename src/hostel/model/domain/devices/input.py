"""``<input>`` and ``<hub>`` (``virDomainInputDefFormat``)."""

from __future__ import annotations

from hostel.codec.xml import ON_OFF, Element, attr, child, choice
from hostel.errors import ErrorCode
from hostel.model.domain.devices.device import Device, VirtioDriver


class InputSource(Element, tag="source", drop_empty=True):
    """The host's input device that is passed on."""

    dev: str | None = attr(default=None)
    evdev: str | None = attr(default=None)
    grab: str | None = attr(choice("all"), default=None)
    grab_toggle: str | None = attr(
        choice("ctrl-ctrl", "alt-alt", "shift-shift", "meta-meta", "scrolllock", "ctrl-scrolllock"),
        name="grabToggle",
        default=None,
    )
    repeat: bool | None = attr(ON_OFF, default=None)


class Input(Device, tag="input"):
    """A mouse, tablet or keyboard."""

    type: str = attr(
        choice(
            "mouse",
            "tablet",
            "keyboard",
            "passthrough",
            "evdev",
            code=ErrorCode.CONFIG_UNSUPPORTED,
            words="unknown input device type '{}'",
        )
    )
    bus: str | None = attr(
        choice(
            "ps2",
            "usb",
            "xen",
            "parallels",
            "virtio",
            "none",
            code=ErrorCode.CONFIG_UNSUPPORTED,
            words="unknown input bus type '{}'",
        ),
        default=None,
    )
    model: str | None = attr(choice("virtio", "virtio-transitional", "virtio-non-transitional"), default=None)
    driver: VirtioDriver | None = child(VirtioDriver, default=None)
    source: InputSource | None = child(InputSource, default=None)


class Hub(Device, tag="hub"):
    """A USB hub."""

    type: str = attr(choice("usb", code=ErrorCode.CONFIG_UNSUPPORTED, words="unknown hub device type '{}'"))
