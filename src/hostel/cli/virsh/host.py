"""The connection and its host."""

from __future__ import annotations

from typing import Final

from hostel.cli.options import Args, Command, flag, later
from hostel.cli.virsh.session import Session, failing

LIBRARY: Final = "libvirt 9.0.0"  # the one whose behaviour this is


def _version(session: Session, _args: Args) -> None:
    with failing("failed to get the hypervisor version"):
        kind = session.hypervisor.connect_get_type()
        number = session.hypervisor.connect_get_version()
    version = f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"
    session.output.line(f"Compiled against library: {LIBRARY}")
    session.output.line(f"Using library: {LIBRARY}")
    session.output.line(f"Using API: {kind} {LIBRARY.split()[1]}")
    session.output.line(f"Running hypervisor: {kind} {version}")


COMMANDS = (
    Command(
        "capabilities",
        "what the host can run",
        (),
        lambda s, _: s.output.text(s.hypervisor.connect_get_capabilities()),
    ),
    Command("hostname", "the host's name", (), lambda s, _: s.output.line(s.hypervisor.connect_get_hostname())),
    Command(
        "uri",
        "the connection's URI",
        (),
        lambda s, _: s.output.line(s.connection.uri),
    ),
    Command("version", "whose behaviour this is, and what runs the machines", (later(flag("daemon", "")),), _version),
)
