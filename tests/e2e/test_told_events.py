"""What listeners are told: what QEMU says by its own names, media that are missing, pools and secrets."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hostel.wire.rpc.programs import QEMU, REMOTE
from support import hosteld
from support.hosteld import Hosteld
from support.relay import relayed
from support.session import cdrom, domain_xml
from support.virsh import listened

pytestmark = [pytest.mark.qemu, pytest.mark.requires_tool("virsh")]
SESSION = "qemu:///session"
UUID = "11111111-2222-3333-4444-555555555555"
SECRET = f"<secret ephemeral='no' private='no'><uuid>{UUID}</uuid></secret>"
POOL = "<pool type='dir'><name>told</name><target><path>{home}/told</path></target></pool>"
REGISTER = "connect_{}_register_any".format
LISTENING = {
    "resets": "qemu-monitor-event --event reset --no-case --loop --domain guest",
    "stops": "qemu-monitor-event --event ^(STOP|RESUME) --regex --loop",
    "media": "event --event disk-change --loop",
    "pools": "pool-event --event lifecycle --loop",
    "secrets": "secret-event --event lifecycle --loop",
}
REGISTERED = {
    "resets": (QEMU, "connect_domain_monitor_event_register"),
    "stops": (QEMU, "connect_domain_monitor_event_register"),
    "media": (REMOTE, REGISTER("domain_event_callback")),
    "pools": (REMOTE, REGISTER("storage_pool_event")),
    "secrets": (REMOTE, REGISTER("secret_event")),
}
LINES = {"resets": 1, "stops": 2, "media": 1, "pools": 4, "secrets": 2}  # that there will be at least
ACTIONS = (
    "reset guest", "suspend guest", "resume guest", "pool-define {home}/pool.xml", "pool-start told",
    "pool-destroy told", "pool-undefine told", "secret-define {home}/secret.xml", f"secret-undefine {UUID}",
    "destroy guest", "start guest",
)  # fmt: skip
RESET = r"event RESET at \d+\.\d{6} for domain 'guest': \{\"guest\":false,\"reason\":\"host-qmp-system-reset\"\}"


@pytest.mark.parametrize("client", [["virsh"], [sys.executable, "-m", "hostel", "virsh"]], ids=["theirs", "ours"])
def test_listeners_are_told_alike_whoever_they_are(client: list[str], tmp_path: Path) -> None:
    gone = tmp_path / "gone.iso"
    missing = cdrom(gone).replace(f"<source file='{gone}'/>", f"<source file='{gone}' startupPolicy='optional'/>")
    for name, text in (
        ("guest.xml", domain_xml(tmp_path, missing)),
        ("secret.xml", SECRET),
        ("pool.xml", POOL.format(home=tmp_path)),
    ):
        (tmp_path / name).write_text(text)
    (tmp_path / "told").mkdir()

    with hosteld.process(directory=tmp_path) as daemon:

        def run(*lines: str) -> None:
            for line in lines:
                daemon.virsh(*line.format(home=tmp_path).split(), uri=SESSION)

        run("define {home}/guest.xml", "start guest")
        try:
            told = heard(client, daemon, tmp_path, lambda: run(*ACTIONS))
            refused = subprocess.run(
                [*client, "-c", daemon.uri(SESSION), "qemu-monitor-event", "--event", "(", "--regex", "--timeout", "1"],
                capture_output=True, text=True, timeout=30, check=False,
            )  # fmt: skip
        finally:
            run("destroy guest", "undefine guest")
    assert re.fullmatch(RESET, told["resets"][0]), told
    assert [line.split()[1] for line in told["stops"]][:2] == ["STOP", "RESUME"]
    assert told["media"] == [f"event 'disk-change' for domain 'guest' disk ide0-1-0: {gone} -> <null>: changed"]
    words = ("Defined", "Started", "Stopped", "Undefined")
    assert told["pools"] == [f"event 'lifecycle' for storage pool told: {word}" for word in words]
    assert told["secrets"] == [f"event 'lifecycle' for secret {UUID}: {word}" for word in ("Defined", "Undefined")]
    assert refused.returncode == 1
    assert "failed to compile regex '('" in refused.stderr


def heard(client: list[str], daemon: Hosteld, home: Path, act: Callable[[], None]) -> dict[str, list[str]]:
    """What each listener prints while ``act`` runs, all at the same time."""
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUNBUFFERED": "1"}
    found: dict[str, list[str]] = {}
    begun, done = threading.Barrier(len(LISTENING) + 1), threading.Event()

    def listen(name: str) -> None:
        path, (program, procedure) = home / f"{name}.s", REGISTERED[name]

        def wait() -> None:
            relay.wait_for_answer(program.number, program.by_name[procedure].number)
            begun.wait(60)
            done.wait(120)
            deadline = time.monotonic() + 60
            while (home / name).read_text().count("\n") < LINES[name] and time.monotonic() < deadline:
                time.sleep(0.05)

        with relayed(path, daemon.socket) as relay:
            command = [*client, "-c", f"qemu+unix:///session?socket={path}", *LISTENING[name].split()]
            found[name] = listened(command, home / name, environment, wait)

    threads = [threading.Thread(target=listen, args=(name,)) for name in LISTENING]
    for thread in threads:
        thread.start()
    begun.wait(60)
    try:
        act()
    finally:
        done.set()
    for thread in threads:
        thread.join(90)
    return found
