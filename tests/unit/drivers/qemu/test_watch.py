"""QEMU's events in libvirt's words."""

from __future__ import annotations

from typing import Any

import pytest

from hostel.drivers.qemu.status import Status
from hostel.drivers.qemu.watch import translate
from hostel.model.domain.domain import Domain


def status(actions: str = "") -> Status:
    domain = Domain.parse(f"<domain type='qemu'><name>guest</name>{actions}</domain>")
    return Status(domain, 1, 1, 1, "/nowhere", 0)


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("GUEST_CRASHLOADED", {"action": "run"}, [("lifecycle", {"event": 8, "detail": 1})]),
        (
            "MEMORY_DEVICE_SIZE_CHANGE",
            {"id": "virtiomem0", "size": 1 << 20, "qom-path": "/x"},
            [("memory-device-size-change", {"alias": "virtiomem0", "size": 1 << 20})],
        ),
        (
            "MEMORY_FAILURE",
            {"recipient": "guest", "action": "fatal", "flags": {"action-required": True, "recursive": True}},
            [("memory-failure", {"recipient": 1, "action": 2, "flags": 3})],
        ),
        ("SHUTDOWN", {"guest": True}, [("lifecycle", {"event": 6, "detail": 1})]),
        ("NIC_RX_FILTER_CHANGED", {"path": "/x"}, []),
    ],
)
def test_an_event_is_told_by_libvirts_numbers(name: str, data: dict[str, Any], told: list[Any]) -> None:
    assert translate(name, data, status()) == told


def test_a_guest_that_powers_off_and_starts_again_is_not_told_to_shut_down() -> None:
    assert translate("SHUTDOWN", {"guest": True}, status("<on_poweroff>restart</on_poweroff>")) == []
