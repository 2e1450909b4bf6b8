"""The guest agent: a program in the guest that does what only the guest can."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from hostel.drivers.base.domain import DomainRef


class AgentTimeout(enum.IntEnum):
    """``virDomainAgentResponseTimeoutValues``; any other number is seconds."""

    BLOCK = -2
    DEFAULT = -1
    NOWAIT = 0


@runtime_checkable
class AgentDriver(Protocol):
    """``AGENT_UNRESPONSIVE`` where the agent does not answer, ``ARGUMENT_UNSUPPORTED`` where there is no channel."""

    def domain_qemu_agent_command(
        self, domain: DomainRef, command: str, timeout: int = AgentTimeout.DEFAULT
    ) -> str | None:
        """Give the agent a command as it is, in JSON; returns its answer, None where it is not waited for."""

    def domain_fs_freeze(self, domain: DomainRef, mountpoints: Sequence[str] = ()) -> int:
        """Have the guest's file systems written out and stopped; returns how many."""

    def domain_fs_thaw(self, domain: DomainRef, mountpoints: Sequence[str] = ()) -> int:
        """Let them go on; returns how many."""

    def domain_fs_trim(self, domain: DomainRef, mountpoint: str | None = None, minimum: int = 0) -> None:
        """Have the guest say which blocks it does not use, in runs of at least ``minimum`` bytes."""
