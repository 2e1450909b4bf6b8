"""Domain management: what the agent in a guest does."""

from __future__ import annotations

import json
from typing import Final

from hostel.cli.options import Args, Command, flag, number, rest, value
from hostel.cli.virsh.session import DOMAIN, CommandError, Session, failing
from hostel.drivers.base.agent import AgentDriver, AgentTimeout
from hostel.drivers.base.offered import offered

_MOUNTS: Final = rest("mountpoint", "only the file systems that are mounted there")


def _agents(session: Session, api: str) -> AgentDriver:
    return offered(session.hypervisor, AgentDriver, api)


def _command(session: Session, args: Args) -> None:
    domain = session.domain(args)
    timeout: int = AgentTimeout.DEFAULT
    choices = 0
    if args.has("timeout"):
        timeout, choices = args.number("timeout") or 0, 1
        if timeout < 1:
            raise CommandError("timeout must be positive")
    for option, value_of in (("async", AgentTimeout.NOWAIT), ("block", AgentTimeout.BLOCK)):
        if args.has(option):
            timeout, choices = value_of, choices + 1
    if choices > 1:
        raise CommandError("timeout, async and block options are exclusive")
    agents = _agents(session, "virDomainQemuAgentCommand")
    answer = agents.domain_qemu_agent_command(domain, " ".join(args.rest), timeout)
    if answer is not None and args.has("pretty"):
        answer = json.dumps(json.loads(answer), indent=2)
    session.output.line(answer or "")


def _freeze(session: Session, args: Args) -> None:
    domain = session.domain(args)
    with failing("Unable to freeze filesystems"):
        count = _agents(session, "virDomainFSFreeze").domain_fs_freeze(domain, args.rest)
    session.output.note(f"Froze {count} filesystem(s)")


def _thaw(session: Session, args: Args) -> None:
    domain = session.domain(args)
    with failing("Unable to thaw filesystems"):
        count = _agents(session, "virDomainFSThaw").domain_fs_thaw(domain, args.rest)
    session.output.note(f"Thawed {count} filesystem(s)")


def _trim(session: Session, args: Args) -> None:
    domain = session.domain(args)
    minimum = args.number("minimum") or 0
    with failing("Unable to invoke fstrim"):
        _agents(session, "virDomainFSTrim").domain_fs_trim(domain, args.get("mountpoint"), minimum)


COMMANDS = (
    Command("domfsfreeze", "stop the file systems of a guest", (DOMAIN, _MOUNTS), _freeze),
    Command("domfsthaw", "let the file systems of a guest go on", (DOMAIN, _MOUNTS), _thaw),
    Command(
        "domfstrim",
        "have a guest say which blocks it does not use",
        (
            DOMAIN,
            number("minimum", "leave out runs of fewer bytes"),
            value("mountpoint", "only of the file system that is mounted there"),
        ),
        _trim,
    ),
    Command(
        "qemu-agent-command",
        "give a guest's agent a command",
        (
            DOMAIN,
            number("timeout", "how many seconds to wait for its answer")._replace(positional=False),
            flag("async", "do not wait"),
            flag("block", "wait as long as it takes, up to an hour"),
            flag("pretty", "print the answer on several lines"),
            rest("cmd", "the command")._replace(required=True),
        ),
        _command,
    ),
)
