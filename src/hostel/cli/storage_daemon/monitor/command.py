"""What a command is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from hostel.cli.storage_daemon.monitor.parameter import Parameter

if TYPE_CHECKING:
    from hostel.cli.storage_daemon.daemon import Daemon


class Command(NamedTuple):
    """A command of the monitor.

    Attributes:
        run: gets the daemon and the checked arguments, with the daemon's lock held, and gives what ``return`` holds;
            None stands for an empty object.
        parameters: what it takes; None where it looks at its arguments itself.
    """

    name: str
    run: Callable[[Daemon, Mapping[str, Any]], Any]
    parameters: tuple[Parameter, ...] | None = ()
