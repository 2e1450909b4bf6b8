"""Domains that end when the client that has started them goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from hostel.drivers.adapters import uuid_text
from hostel.drivers.base import DomainRef, StartFlag
from hostel.wire.rpc.connection import Call

if TYPE_CHECKING:
    from hostel.daemon.client import Client

# Calls that start a domain; flags are the last of their arguments, and the domain is all of their answer.
STARTING: Final = frozenset(
    {"domain_create_xml", "domain_create_with_flags", "domain_create_with_files", "domain_create_xml_with_files"}
)


def remembering(answer: Callable[[Client, Call], Sequence[Any] | None]) -> Callable[[Client, Call], Sequence[Any]]:
    """What answers a call that starts a domain, and keeps which of them are to end with the client."""

    def answering(client: Client, call: Call) -> Sequence[Any]:
        result = answer(client, call) or ()
        if call.arguments[-1] & StartFlag.AUTODESTROY:
            name, uuid, id = result[0]
            client.autodestroys.append(DomainRef(name, uuid_text(uuid), id))
        return result

    return answering
