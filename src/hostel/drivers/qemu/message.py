"""What is to be said of domains."""

from __future__ import annotations

from hostel.drivers.base import DomainRef
from hostel.drivers.base.messages import MessageFlag
from hostel.drivers.qemu.calls import Calls, no_domain
from hostel.drivers.qemu.taint import messages


class MessageCalls(Calls):
    """See :class:`hostel.drivers.base.messages.MessagesDriver`."""

    def domain_get_messages(self, domain: DomainRef, flags: MessageFlag = MessageFlag.NONE) -> list[str]:
        """What is to be said of a domain."""
        live = self._machines.seen(domain.name)
        if live is None and self._machines.definition(domain.name) is None:
            raise no_domain(f"name '{domain.name}'")
        return messages(live.taints, live.deprecations, flags) if live is not None else []
