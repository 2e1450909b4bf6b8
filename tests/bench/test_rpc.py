"""libvirt's daemon and ours, under libvirt's own client, in turns. Rates and ratios are reported, never judged here."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from support import hosteld, libvirtd
from support.hosteld import PYTHON, Hosteld, RawClient

pytestmark = [pytest.mark.requires_tool("libvirtd"), pytest.mark.requires_tool("virt-install"), pytest.mark.slow]

LOAD = Path(__file__).parent / "rpc_load.py"
ROUNDS = 3
SECONDS = "1.0"
CASES = [
    *((what, clients) for what in ("library version", "host name", "lookup", "info") for clients in (1, 4)),
    ("open and close", 1),
    ("list of 1,000", 1),
    ("upload", 1),
    ("download", 1),
]


class Row(NamedTuple):
    """One comparison: what is done in a second; of streams, MB."""

    name: str
    ours: float
    theirs: float

    def __str__(self) -> str:
        return f"{self.name:<32}{self.ours:>10.0f}{self.theirs:>10.0f}{self.ours / self.theirs:7.2f}"


@pytest.fixture(scope="module")
def rows() -> Iterator[list[Row]]:
    collected: list[Row] = []
    yield collected
    print(f"\n{'a second':<32}{'ours':>10}{'libvirtd':>10}{'ratio':>7}")
    print("\n".join(map(str, collected)))
    if path := os.environ.get("HOSTEL_BENCH_JSON"):
        with open(path, "a", encoding="utf-8") as stream:
            stream.writelines(json.dumps({**row._asdict(), "ratio": row.ours / row.theirs}) + "\n" for row in collected)


@pytest.fixture(scope="module")
def daemon() -> Iterator[Hosteld]:
    with hosteld.process(environment={"PYTHONUNBUFFERED": ""}) as served:
        yield served


@pytest.fixture(scope="module")
def sockets(daemon: Hosteld) -> Iterator[dict[str, str]]:
    with libvirtd.running() as theirs:
        yield {"ours": str(daemon.socket), "theirs": theirs.uri.partition("socket=")[2]}


def measured(socket: str, what: str, clients: int, folder: Path) -> float:
    """What all clients together do in a second."""
    kind = "qemu+unix:///session" if what in ("upload", "download") else "test+unix:///default"
    command = [PYTHON, str(LOAD), f"{kind}?socket={socket}", what, SECONDS, str(folder)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(clients)]
    outputs = [process.communicate(timeout=300)[0] for process in running]
    assert not any(process.returncode for process in running)
    total = sum(float(output) for output in outputs)
    return total / 1e6 if what in ("upload", "download") else total


@pytest.mark.parametrize(("what", "clients"), CASES)
def test_rates_side_by_side(sockets: dict[str, str], rows: list[Row], what: str, clients: int) -> None:
    best = {"ours": 0.0, "theirs": 0.0}
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        os.chmod(folder, 0o777)
        for _ in range(ROUNDS):
            for who, socket in sockets.items():
                best[who] = max(best[who], measured(socket, what, clients, Path(folder) / who))
    rows.append(Row(f"{what}, {clients} client{'s' if clients > 1 else ''}", best["ours"], best["theirs"]))


def test_memory_of_an_idle_client() -> None:
    """What 500 clients that have opened take of a daemon that has not had any, each."""
    with hosteld.process() as daemon:

        def resident() -> int:
            text = Path(f"/proc/{daemon.process.pid}/status").read_text()
            return int(next(line for line in text.splitlines() if line.startswith("VmRSS")).split()[1])

        def clients(count: int) -> list[RawClient]:
            return [RawClient(daemon.socket).open() for _ in range(count)]

        held = clients(10)
        before = resident()
        try:
            held += clients(500)
            taken = (resident() - before) / 500
        finally:
            for client in held:
                client.socket.close()
    print(f"\nmemory of an idle client: {taken:.1f} KiB; of the daemon {before} KiB")
    assert taken < 100
