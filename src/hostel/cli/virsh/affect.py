"""``--live``, ``--config``, ``--current`` and ``--persistent``: what a change of a domain applies to."""

from __future__ import annotations

from hostel.cli.options import Args, Option, flag
from hostel.drivers.base import DomainRef
from hostel.drivers.base.domain import Affect

CONFIG = flag("config", "of the definition, from the next start on")
LIVE = flag("live", "of the running domain")
CURRENT = flag("current", "of the running domain, or of the definition while it does not run")
PERSISTENT = flag("persistent", "of the definition, and of the running domain if it runs")
# In virsh's order, with and without what is older.
ALL: tuple[Option, ...] = (PERSISTENT, CONFIG, LIVE, CURRENT)
THREE: tuple[Option, ...] = (CONFIG, LIVE, CURRENT)


def check(args: Args) -> None:
    """Refuse what contradicts itself.

    Raises:
        UsageError: with virsh's message.
    """
    args.exclude("persistent", "current")
    args.exclude("current", "live")
    args.exclude("current", "config")


def affected(args: Args) -> Affect:
    """What the options say, but for ``--persistent`` of a domain that runs."""
    affect = Affect.CONFIG if args.has("config") or args.has("persistent") else Affect.CURRENT
    return affect | Affect.LIVE if args.has("live") else affect


def affected_domain(domain: DomainRef, args: Args) -> Affect:
    """What the options say about this domain."""
    affect = affected(args)
    return affect | Affect.LIVE if args.has("persistent") and domain.id != -1 else affect
