"""The page about the daemon names every procedure that is answered; run as a program, this module writes its table."""

from __future__ import annotations

import sys
from pathlib import Path

from hostel.daemon.calls import CALLS
from hostel.wire.rpc.programs import REMOTE

PAGE = Path(__file__).parents[2] / "docs" / "compatibility" / "daemon.md"
HEAD = "| object | answered | of | which |\n|---|---|---|---|\n"
# A procedure belongs to the first of these that its name begins with.
OBJECTS = [
    "auth", "connect", "domain_snapshot", "domain_checkpoint", "domain", "network_port", "network",
    "node_device", "node", "nwfilter_binding", "nwfilter", "interface", "secret", "storage_pool", "storage_vol",
]  # fmt: skip


def table() -> str:
    """The rows, from the tables that the daemon itself has."""
    calls = [procedure.name for procedure in REMOTE.by_number.values() if not procedure.event]
    rows = []
    for name in OBJECTS:
        mine = [call for call in calls if next(one for one in OBJECTS if call.startswith(f"{one}_")) == name]
        answered = sorted(call.removeprefix(f"{name}_") for call in mine if call in CALLS)
        rows.append(f"| `{name}_` | {len(answered)} | {len(mine)} | {' '.join(answered) or '-'} |\n")
    return "".join(rows)


def test_page_names_what_is_answered() -> None:
    rows = PAGE.read_text().partition(HEAD)[2].partition("\n\n")[0]
    assert rows + "\n" == table(), "run python tests/structure/test_daemon_page.py, which writes the table"


if __name__ == "__main__":
    head, _, rest = PAGE.read_text().partition(HEAD)
    PAGE.write_text(f"{head}{HEAD}{table()}\n{rest.partition(chr(10) * 2)[2]}")
    sys.exit(0)
