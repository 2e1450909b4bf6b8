"""Ways to the screens of running machines."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from hostel.drivers.base.domain import DomainRef


@runtime_checkable
class GraphicsDriver(Protocol):
    """Screens that a client reaches by a descriptor, whatever they listen on."""

    def domain_open_graphics(self, domain: DomainRef, number: int, descriptor: int, *, skip_auth: bool = False) -> None:
        """Let a connected socket be a client of a screen; ``skip_auth``: without a password."""

    def domain_open_graphics_fd(self, domain: DomainRef, number: int, *, skip_auth: bool = False) -> int:
        """A socket that is connected to a screen; the caller closes it."""
