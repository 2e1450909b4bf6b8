"""Kill -9 at random moments, of us and of QEMU: nothing is lost, half written, or left running unseen."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hostel import guest
from hostel.drivers.base import DomainState, ShutoffReason
from hostel.drivers.qemu import monitor, process
from hostel.drivers.qemu.monitor import Monitor
from hostel.errors import QmpError, VirtError
from hostel.objects import Connection
from support import image
from support.process import machines_of
from support.session import disk, domain_xml, run, session, wait_for_report

pytestmark = [pytest.mark.qemu, pytest.mark.requires_tool("qemu-img")]
MIB = 1 << 20

# Changes the definition, starts, and destroys one time in three, for ever. Says each value before and after it is
# written.
LIFE = """
import sys
from pathlib import Path
from typing import Any
import hostel
from hostel.drivers.store import Directories
home = Path(sys.argv[1])
connection = hostel.open("qemu:///session", Directories.under(home))
xml = (home / "guest.xml").read_text()
count = int(sys.argv[2])
while True:
    count += 1
    print("writing", count, flush=True)
    domain = connection.define_domain(xml.replace("<vcpu>", f"<title>{count}</title><vcpu>"))
    print("written", count, flush=True)
    if not domain.is_active:
        domain.start()
    if count % 3 == 0:
        domain.destroy()
"""
# Makes and removes pools and volumes, for ever.
STORAGE = """
import sys
from pathlib import Path
from typing import Any
import hostel
from hostel.drivers.store import Directories
home = Path(sys.argv[1])
connection = hostel.open("qemu:///session", Directories.under(home))
print("writing 0", flush=True)
while True:
    pool = connection.define_pool(
        "<pool type='dir'><name>pool</name><uuid>1bb1d329-8d85-4325-a139-5b35a6904582</uuid>"
        f"<target><path>{home}/pool</path></target></pool>"
    )
    print("written 0", flush=True)
    if not pool.is_active:
        pool.start(build=True)
    for name in ("a", "b"):
        if name not in [volume.name for volume in pool.volumes()]:
            pool.create_volume(
                f"<volume><name>{name}</name><capacity>1048576</capacity>"
                "<target><format type='qcow2'/></target></volume>"
            )
    for volume in pool.volumes():
        volume.delete()
    pool.stop()
"""


@pytest.fixture
def chance() -> random.Random:
    return random.Random(int(os.environ.get("HOSTEL_TEST_SEED", "1")))


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    path = tmp_path / "disk.qcow2"
    image.qemu_img("create", "-q", "-f", "qcow2", path, MIB)
    image.write(path, "qcow2", (0, guest.image(label="kill", mode=guest.Mode.STAY)))
    with session(tmp_path) as opened:
        yield opened


def killed(script: str, home: Path, seconds: float, *arguments: str) -> list[str]:
    """Run a script, kill it after it has run for a while, and return the lines that it printed."""
    argv = [sys.executable, "-c", script, str(home), *arguments]
    with (home / "said").open("w") as said:
        child = subprocess.Popen(argv, stdout=said)
        deadline = time.monotonic() + 30
        while not (home / "said").stat().st_size:
            assert child.poll() is None, "the script ended by itself"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(seconds)
        assert child.poll() is None, "the script ended by itself"
        child.kill()
        child.wait(60)
    return (home / "said").read_text().splitlines()


def test_we_are_killed_and_definition_and_machine_are_found_again(
    tmp_path: Path, connection: Connection, chance: random.Random
) -> None:
    xml = domain_xml(tmp_path, disk(tmp_path / "disk.qcow2", "qcow2"))
    (tmp_path / "guest.xml").write_text(xml)
    uuid = connection.define_domain(xml).uuid
    states: list[DomainState] = []
    count = found = 0
    # On a busy machine 0.6 seconds may end before any machine runs: then later moments are tried as well.
    while len(states) < 14 or (set(states) == {DomainState.SHUTOFF} and len(states) < 40):
        said = killed(LIFE, tmp_path, chance.uniform(0, 0.6 if len(states) < 14 else 4), str(count))
        count = max(int(line.split()[1]) for line in said)
        domain = connection.domain("guest")
        assert domain.uuid == uuid
        assert domain.is_persistent
        title = re.search(r"<title>(\d+)</title>", domain.xml(inactive=True))
        # Where a kill came before anything was written, what an earlier life wrote is there.
        last_written = max((int(line.split()[1]) for line in said if line.startswith("written")), default=found)
        found = int(title[1] if title else "0")
        assert found in (last_written, count)
        states.append(domain.state)
        assert len(machines_of(tmp_path)) == (0 if domain.state is DomainState.SHUTOFF else 1)
        if domain.is_active:
            domain.destroy()
            assert machines_of(tmp_path) == set()
    assert set(states) - {DomainState.SHUTOFF}, "no kill found a machine running: the test shows nothing"
    assert not [path for path in (tmp_path / "config").rglob("*") if path.name.endswith(".new")][1:]
    image.real_qemu_img("check", tmp_path / "disk.qcow2")


def test_we_are_killed_and_pools_and_volumes_are_whole(
    tmp_path: Path, connection: Connection, chance: random.Random
) -> None:
    for _ in range(10):
        said = killed(STORAGE, tmp_path, chance.uniform(0, 0.4))
        if "written 0" in said:
            assert [pool.name for pool in connection.pools()] == ["pool"]
        for pool in connection.pools(active=True):
            pool.refresh()
            for volume in pool.volumes():
                assert volume.info().capacity == MIB
                image.assert_clean(tmp_path / "pool" / volume.name, "qcow2")


def test_qemu_is_killed_and_its_death_is_noticed_with_its_reason(
    tmp_path: Path, connection: Connection, chance: random.Random
) -> None:
    xml = domain_xml(tmp_path, disk(tmp_path / "disk.qcow2", "qcow2"))
    domain = connection.define_domain(xml)
    for _ in range(6):
        domain.start()
        time.sleep(chance.uniform(0, 0.5))
        (pid,) = machines_of(tmp_path)
        os.kill(pid, signal.SIGKILL)
        domain.wait(DomainState.SHUTOFF, 20)
        state = domain.state_info()
        assert state.reason == ShutoffReason.CRASHED
        assert "killed by SIGKILL" in state.detail
        assert domain.id is None
        assert machines_of(tmp_path) == set()
        # What QEMU leaves are clusters without an owner at worst.
        image.qemu_img("check", "-q", "-r", "leaks", "-f", "qcow2", tmp_path / "disk.qcow2")
        image.assert_clean(tmp_path / "disk.qcow2", "qcow2")


def test_how_qemu_died_is_known_though_the_host_holds_up_who_writes_it_down(
    tmp_path: Path, connection: Connection
) -> None:
    domain = connection.define_domain(domain_xml(tmp_path, disk(tmp_path / "disk.qcow2", "qcow2")))
    domain.start(paused=True)
    (pid,) = machines_of(tmp_path)
    supervisor = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    later = threading.Timer(4, os.kill, (supervisor, signal.SIGCONT))
    os.kill(supervisor, signal.SIGSTOP)
    later.start()
    os.kill(pid, signal.SIGKILL)
    domain.wait(DomainState.SHUTOFF, 20)
    assert "killed by SIGKILL" in domain.state_info().detail
    later.join(20)


def test_qemu_that_dies_while_it_is_started_is_an_error_and_leaves_nothing(
    tmp_path: Path, connection: Connection, chance: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spawn_and_kill(*arguments: Any, **options: Any) -> int:
        pid = spawn(*arguments, **options)
        time.sleep(chance.uniform(0, 0.05))
        os.kill(pid, signal.SIGKILL)
        return pid

    spawn = process.spawn
    domain = connection.define_domain(domain_xml(tmp_path, disk(tmp_path / "disk.qcow2", "qcow2")))
    with monkeypatch.context() as patched:
        patched.setattr(process, "spawn", spawn_and_kill)
        with pytest.raises(VirtError, match=r"domain 'guest' could not be started: QEMU was killed by SIGKILL"):
            domain.start()
    state = domain.state_info()
    assert (state.state, state.reason) == (DomainState.SHUTOFF, ShutoffReason.FAILED)
    assert machines_of(tmp_path) == set()
    domain.start()
    wait_for_report(tmp_path, 1)


def test_qemu_that_hangs_up_a_moment_before_it_is_gone_is_told_to_have_been_killed(
    tmp_path: Path, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    killers: list[threading.Timer] = []

    def hang_up(_: Path) -> Monitor:
        killers.append(threading.Timer(0.3, os.kill, (*machines_of(tmp_path), signal.SIGKILL)))
        killers[0].start()
        raise QmpError("Disconnected", "QEMU hung up")

    monkeypatch.setattr(monitor, "connect", hang_up)
    domain = connection.define_domain(domain_xml(tmp_path, disk(tmp_path / "disk.qcow2", "qcow2")))
    with pytest.raises(VirtError, match=r"domain 'guest' could not be started: QEMU was killed by SIGKILL"):
        domain.start()
    killers[0].join(20)


def test_a_guest_boots_after_qemu_was_killed_in_the_middle_of_its_writes(
    tmp_path: Path, connection: Connection, chance: random.Random
) -> None:
    path = tmp_path / "disk.qcow2"
    rebooting = guest.image(label="kill", mode=guest.Mode.REBOOT)
    image.write(path, "qcow2", (0, rebooting))
    domain = connection.define_domain(domain_xml(tmp_path, disk(path, "qcow2")))
    domain.start()
    wait_for_report(tmp_path, 3)
    time.sleep(chance.uniform(0, 0.3))
    os.kill(machines_of(tmp_path).pop(), signal.SIGKILL)
    domain.wait(DomainState.SHUTOFF, 20)
    state = guest.read_state(image.content(path, "qcow2")[guest.state_offset() :][: guest.SECTOR])
    assert state.boot_count >= 3
    assert state.intact
    image.write(path, "qcow2", (0, guest.image(label="kill")[: guest.state_offset()]))
    assert run(domain, tmp_path).boot == state.boot_count + 1
