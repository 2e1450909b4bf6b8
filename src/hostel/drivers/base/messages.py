"""What is to be said of running domains: they do what is not supported, or what will be given up."""

from __future__ import annotations

import enum
from typing import Protocol, runtime_checkable

from hostel.drivers.base.domain import DomainRef


class MessageFlag(enum.IntFlag):
    """``virDomainMessageType``; neither of them is both."""

    NONE = 0
    DEPRECATION = 1
    TAINTING = 2


@runtime_checkable
class MessagesDriver(Protocol):
    """Domains of which there is something to be said."""

    def domain_get_messages(self, domain: DomainRef, flags: MessageFlag = MessageFlag.NONE) -> list[str]:
        """It, in libvirt's words; nothing of a domain that does not run."""
