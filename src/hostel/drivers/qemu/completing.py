"""What QEMU chose when it came up, written into the live document, and what no command line has, set."""

from __future__ import annotations

from hostel.drivers.qemu import monitor, ports, screens
from hostel.drivers.qemu.command.disk import drive_id, throttle
from hostel.drivers.qemu.settings import Settings
from hostel.model.domain.devices.character import CharacterBackend, CharacterSource, CharacterType
from hostel.model.domain.domain import Domain
from hostel.model.domain.implicit import mirror_consoles
from hostel.model.domain.rules.disk import is_empty


def complete(domain: Domain, qmp: monitor.Monitor, settings: Settings) -> None:
    """Write what QEMU chose into the live document, and set what must not be, or cannot be, on a command line.

    Raises:
        QmpError: QEMU refused.
    """
    devices = domain.devices
    characters = qmp.execute("query-chardev")
    terminals = {
        found["label"]: found["filename"].removeprefix("pty:")
        for found in characters
        if found["filename"].startswith("pty:")
    }
    ends: list[CharacterBackend] = [*devices.serials, *devices.parallels, *devices.consoles, *devices.channels]
    for end in ends:
        if path := terminals.get(f"char{end.alias}"):
            end.sources = [CharacterSource(path=path)]
    mirror_consoles(domain)
    for console in devices.consoles:
        console.tty = console.source.path if console.type == CharacterType.PTY and console.source else None
    ports.note(domain, characters)
    screens.complete(domain, qmp, settings)
    for disk in devices.disks:
        if disk.iotune is not None and not is_empty(disk):
            qmp.execute("block_set_io_throttle", **throttle(disk))
        if disk.target.tray == "open":
            qmp.execute("blockdev-open-tray", id=drive_id(disk), force=True)
    for interface in devices.interfaces:
        if interface.link_state == "down":
            qmp.execute("set_link", name=interface.alias, up=False)
