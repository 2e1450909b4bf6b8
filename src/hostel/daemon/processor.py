"""Calls about processors, whose answers are shaped otherwise than the driver's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from hostel.daemon.machine import driver_of
from hostel.drivers.adapters import check_flags
from hostel.wire.rpc.connection import Call

if TYPE_CHECKING:
    from hostel.daemon.client import Client


def _model_names(client: Client, call: Call) -> Sequence[Any]:
    arch, need_results, flags = call.arguments
    check_flags(flags, 0, "virConnectGetCPUModelNames")
    driver: Any = driver_of(client, call, "connect_get_cpu_model_names")
    names = driver.connect_get_cpu_model_names(arch)
    return names if need_results else [], len(names)


ANSWERS: Final[dict[str, Callable[[Client, Call], Sequence[Any]]]] = {"connect_get_cpu_model_names": _model_names}
