"""What QEMU is told to do by itself when its guest ends, by QEMUs of several ages."""

from __future__ import annotations

from typing import Any, cast

import pytest

from hostel.drivers.qemu.actions import apply
from hostel.drivers.qemu.monitor import Monitor
from hostel.errors import QmpError
from hostel.model.domain.domain import Domain


class Emulator:
    """Answers ``set-action`` as a QEMU does that knows these ways to end a panic."""

    def __init__(self, *panics: str) -> None:
        self.panics = panics
        self.told: list[dict[str, Any]] = []

    def execute(self, command: str, **arguments: Any) -> None:
        if not self.panics:
            raise QmpError("CommandNotFound", f"The command {command} has not been found")
        if arguments["panic"] not in self.panics:
            raise QmpError("GenericError", f"Invalid parameter '{arguments['panic']}'")
        self.told.append(arguments)


def told(emulator: Emulator, actions: str) -> list[dict[str, Any]]:
    apply(Domain.parse(f"<domain type='qemu'>{actions}</domain>"), cast("Monitor", emulator))
    return emulator.told


OLD, MIDDLE, NEW = (), ("pause", "shutdown"), ("pause", "shutdown", "exit-failure")


def test_a_crash_ends_qemu_with_an_error_where_it_can() -> None:
    assert told(Emulator(*NEW), "") == [{"shutdown": "poweroff", "reboot": "reset", "panic": "exit-failure"}]
    assert told(Emulator(*MIDDLE), "") == [{"shutdown": "poweroff", "reboot": "reset", "panic": "shutdown"}]
    assert told(Emulator(*OLD), "") == []


def test_what_somebody_else_is_to_do_stops_the_machine() -> None:
    actions = "<on_poweroff>restart</on_poweroff><on_crash>preserve</on_crash>"
    assert told(Emulator(*NEW), actions) == [{"shutdown": "pause", "reboot": "reset", "panic": "pause"}]
    destroyed = told(Emulator(*NEW), "<on_reboot>destroy</on_reboot>")
    assert destroyed[0]["reboot"] == "shutdown"


@pytest.mark.parametrize(
    "actions", ["<on_poweroff>restart</on_poweroff>", "<on_crash>preserve</on_crash>", "<on_crash>restart</on_crash>"]
)
def test_an_emulator_that_cannot_be_told_is_not_asked_for_more_than_it_does(actions: str) -> None:
    with pytest.raises(QmpError, match="has not been found"):
        told(Emulator(*OLD), actions)
