"""Rules for inputs and timers (``virDomain*DefValidate``)."""

from __future__ import annotations

from typing import Final

from hostel.errors import ErrorCode
from hostel.model.domain.clock import Timer
from hostel.model.domain.devices.address import UsbAddress
from hostel.model.domain.devices.input import Input
from hostel.model.domain.rules.rule import Rule

INPUT_RULES: Final[tuple[Rule[Input], ...]] = (
    Rule(
        lambda item: item.bus == "usb" and not isinstance(item.address, UsbAddress | None),
        lambda _: "Invalid address for a USB device",
        ErrorCode.XML_ERROR,
        "/address/@type",
    ),
    Rule(
        lambda item: item.bus == "ps2" and item.type not in ("mouse", "keyboard"),
        lambda item: f"ps2 bus does not support {item.type} input device",
        ErrorCode.INTERNAL_ERROR,
        "/@bus",
    ),
    Rule(
        lambda item: item.type == "passthrough" and item.bus != "virtio",
        lambda _: "only bus 'virtio' is supported for 'passthrough' input devices",
        below="/@bus",
    ),
    Rule(
        lambda item: item.model is not None and item.bus != "virtio",
        lambda item: f"only bus 'virtio' is supported for input model '{item.model}'",
        below="/@model",
    ),
)

TIMER_RULES: Final[tuple[Rule[Timer], ...]] = (
    Rule(
        lambda item: item.name in ("kvmclock", "hypervclock") and item.tickpolicy is not None,
        lambda item: f"timer {item.name} doesn't support setting of timer tickpolicy",
    ),
    Rule(
        lambda item: item.catchup is not None and item.tickpolicy != "catchup",
        lambda _: "setting of timer catchup policies is only supported with tickpolicy='catchup'",
        ErrorCode.XML_ERROR,
    ),
    Rule(
        lambda item: item.name != "tsc" and item.frequency,
        lambda item: f"timer {item.name} doesn't support setting of timer frequency",
    ),
    Rule(
        lambda item: item.name != "tsc" and item.mode is not None,
        lambda item: f"timer {item.name} doesn't support setting of timer mode",
    ),
    Rule(
        lambda item: item.name not in ("platform", "rtc") and item.track is not None,
        lambda item: f"timer {item.name} doesn't support setting of timer track",
    ),
)
