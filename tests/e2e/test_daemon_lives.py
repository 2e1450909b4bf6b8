"""Many lives of machines in one daemon, under many clients: nothing is left of them.

``make soak`` makes it 10,000 lives on the test driver and 200 of real machines.
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from support import hosteld
from support.hosteld import PYTHON, Hosteld

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.requires_tool("virsh"),
    pytest.mark.requires_tool("virt-install"),  # which brings python3-libvirt
]
CLIENTS = 8
FACTOR = int(os.environ.get("HOSTEL_SOAK") or 1)
# Defines, starts, destroys and undefines machines of its own, with events on the way.
LIVES = """
import libvirt, sys
uri, xml, name, lives = sys.argv[1:]
libvirt.registerErrorHandler(lambda context, error: None, None)
libvirt.virEventRegisterDefaultImpl()
c = libvirt.open(uri)
c.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, lambda *told: None, None)
for number in range(int(lives)):
    d = c.defineXML(open(xml).read().replace("NAME", f"{name}-{number % 3}"))
    d.create()
    assert d.isActive()
    d.destroy()
    d.undefine()
c.close()
"""


def live(daemon: Hosteld, uri: str, document: Path, lives: int) -> None:
    """Let all clients work at once."""
    clients = [
        subprocess.Popen(
            [PYTHON, "-c", LIVES, daemon.uri(uri), str(document), f"c{number}", str(lives // CLIENTS)],
            stderr=subprocess.PIPE, text=True,
        )
        for number in range(CLIENTS)
    ]  # fmt: skip
    try:
        for client in clients:
            _, said = client.communicate(timeout=120 * max(1, FACTOR // 4))
            assert client.returncode == 0, said
    finally:
        for client in clients:
            if client.poll() is None:
                client.kill()
                client.communicate()


def held(daemon: Hosteld) -> tuple[int, int]:
    """How many descriptors and threads the daemon has."""
    proc = Path(f"/proc/{daemon.process.pid}")
    return len(list((proc / "fd").iterdir())), len(list((proc / "task").iterdir()))


def resident(daemon: Hosteld) -> int:
    """The daemon's memory, in KiB."""
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])


def files(daemon: Hosteld) -> set[str]:
    """The files that the daemon keeps, but for logs and what is remembered of QEMU."""
    state = daemon.directory / "state"
    return {
        str(path.relative_to(state))
        for path in state.rglob("*")
        if path.is_file() and "log" not in path.parts and "cache" not in path.parts
    }


def rested(daemon: Hosteld) -> tuple[int, int]:
    """What it holds once the clients' connections are gone."""
    deadline = time.monotonic() + 30
    found, times = held(daemon), 0
    while times < 3 and time.monotonic() < deadline:  # a busy host may let it do nothing for a while
        time.sleep(0.5)
        last, found = found, held(daemon)
        times = times + 1 if found == last else 0
    return found


def rested_at(daemon: Hosteld, descriptors: int, threads: int) -> tuple[int, int]:
    """What it holds once that is as little as named, or after a while.

    A busy moment makes more workers, which end when they had nothing to do for half a minute.
    """
    deadline = time.monotonic() + 60
    while (found := rested(daemon))[0] != descriptors or found[1] > threads:
        if time.monotonic() > deadline:
            break
    return found


@pytest.mark.parametrize(
    ("uri", "kind", "lives"),
    [("test:///default", "test", 504 * FACTOR), ("qemu:///session", "qemu", 16 * FACTOR)],
    ids=["test driver", "QEMU"],
)
def test_lives_leave_nothing_behind(tmp_path: Path, uri: str, kind: str, lives: int) -> None:
    document = tmp_path / "d.xml"
    document.write_text(
        f"<domain type='{kind}'><name>NAME</name><memory unit='MiB'>16</memory><os><type>hvm</type></os></domain>"
    )
    # As few workers as are busy from the first life on: more of them would be waited for until they end.
    (tmp_path / "hosteld.toml").write_text(f"[limits]\nworkers = {CLIENTS // 2}\n")
    with hosteld.process("--config", str(tmp_path / "hosteld.toml"), directory=tmp_path) as daemon:
        # The first lives start threads, and fill what is kept: locks, the counter, remembered answers.
        live(daemon, uri, document, CLIENTS * 3)
        before, there, memory = rested(daemon), files(daemon), resident(daemon)
        live(daemon, uri, document, lives)
        descriptors, threads = rested_at(daemon, *before)
        assert descriptors == before[0]
        assert threads <= before[1]
        assert files(daemon) == there
        grown = resident(daemon) - memory
        # Names and UUIDs are remembered up to a bound.
        assert grown < 16 << 10, f"{grown} KiB more after {lives} lives"
        assert daemon.virsh("list", "--all", "--name", uri=uri).stdout.split() == (["test"] if kind == "test" else [])
    left = subprocess.run(["pgrep", "-f", f"qemu-system.*{tmp_path}"], capture_output=True, text=True, check=False)
    assert left.stdout == ""
