"""What the daemon answers: one table from procedures to what answers them.

Most of it is :mod:`hostel.drivers.adapters`. The rest is here and in the modules beside: calls about the connection
itself, lists with their filters, streams, and events.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hostel.daemon import (
    auth,
    autodestroy,
    block,
    connect,
    events,
    graphics,
    inside,
    lists,
    machine,
    migration,
    network,
    nodeinfo,
    processor,
    snapshots,
    streaming,
)
from hostel.daemon.autodestroy import STARTING
from hostel.drivers.adapters import ADAPTERS
from hostel.drivers.answering import Answering
from hostel.drivers.fault import fault
from hostel.errors import ErrorCode
from hostel.wire.rpc.connection import Call
from hostel.wire.rpc.programs import QEMU, REMOTE

if TYPE_CHECKING:
    from hostel.daemon.client import Client

Answer = Callable[["Client", Call], "Sequence[Any] | None"]


class Handling(NamedTuple):
    """How a procedure is answered.

    Attributes:
        answer: gives the members of the answer; None where a stream answers by itself.
        quick: it waits for nothing, whatever the driver.
        streams: it opens a stream.
        asks: it asks a program, whatever the driver.
    """

    answer: Answer
    quick: bool = False
    streams: bool = False
    asks: bool = False


# What may be called before something is opened.
OPENING: Final = frozenset(
    {
        *auth.ANSWERS,
        "connect_open",
        "connect_close",
        "connect_supports_feature",
    }
)


def _by_driver(name: str) -> Answer:
    answering = Answering(REMOTE.by_name[name], ADAPTERS[name])
    kind, method = answering.adapter.driver, answering.adapter.method

    def answer(client: Client, call: Call) -> Sequence[Any]:
        assert client.host is not None
        driver = getattr(client.host.drivers, kind)
        if not hasattr(driver, method):
            from hostel.daemon.access import api_name

            raise fault(ErrorCode.NO_SUPPORT, api_name(name))
        return answering(driver, call.arguments)

    return answer


_NEVER_WAIT: Final = frozenset({"connect_get_type", "node_get_security_model"})
_ASKING: Final = frozenset({"connect_baseline_cpu"})

CALLS: Final[dict[str, Handling]] = {
    **{name: Handling(_by_driver(name), quick=name in _NEVER_WAIT, asks=name in _ASKING) for name in ADAPTERS},
    **{name: Handling(answer, quick=name in connect.NEVER_WAIT) for name, answer in connect.ANSWERS.items()},
    **{name: Handling(answer, quick=True) for name, answer in auth.ANSWERS.items()},
    **{name: Handling(answer) for name, answer in block.ANSWERS.items()},
    **{name: Handling(answer) for name, answer in events.ANSWERS.items()},
    **{name: Handling(answer) for name, answer in graphics.ANSWERS.items()},
    **{name: Handling(answer) for name, answer in inside.ANSWERS.items()},
    **{name: Handling(answer) for name, answer in lists.ANSWERS.items()},
    **{name: Handling(answer) for name, answer in network.ANSWERS.items()},
    **{name: Handling(answer) for name, answer in machine.ANSWERS.items()},
    **{name: Handling(answer) for name, answer in migration.ANSWERS.items()},
    **{name: Handling(answer, streams=True) for name, answer in migration.STREAMING.items()},
    **{name: Handling(answer) for name, answer in processor.ANSWERS.items()},
    **{name: Handling(answer) for name, answer in snapshots.ANSWERS.items()},
    **{name: Handling(answer) for name, answer in nodeinfo.ANSWERS.items()},
    **{name: Handling(answer, streams=True) for name, answer in streaming.ANSWERS.items()},
}
CALLS.update({name: CALLS[name]._replace(answer=autodestroy.remembering(CALLS[name].answer)) for name in STARTING})
_PROGRAMS: Final = {
    REMOTE.number: CALLS,
    QEMU.number: {name: Handling(answer) for name, answer in {**machine.QEMU_ANSWERS, **events.QEMU_ANSWERS}.items()},
}


def find(call: Call) -> Handling | None:
    """How a call is answered; None where it is not."""
    return _PROGRAMS.get(call.program.number, {}).get(call.procedure.name)
