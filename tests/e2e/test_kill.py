"""Kill -9 of our own process at random moments: nothing is lost, half written, or left running unseen."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hostel import guest
from hostel.drivers.base import DomainState
from hostel.drivers.qemu.driver import QemuDriver
from hostel.drivers.store import Directories

pytestmark = pytest.mark.qemu

LOOP = """
import sys
from pathlib import Path
from hostel.drivers.qemu.driver import QemuDriver
from hostel.drivers.store import Directories
home = Path(sys.argv[1])
driver = QemuDriver(Directories.under(home))
xml = (home / "g.xml").read_text()
print("ready", flush=True)
while True:
    ref = driver.domain_define_xml(xml)
    if driver.domain_lookup_by_name("g").id < 0:
        driver.domain_create(ref)
    driver.domain_destroy(ref)
"""


def machines_of(home: Path) -> set[int]:
    """The process ids of every QEMU whose command line names this directory."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"qemu-system" in command[0] and any(str(home).encode() in part for part in command):
                found.add(int(entry.name))
    return found


def test_definition_and_machines_survive_kills_at_random_moments(tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(guest.image(label="kill", mode=guest.Mode.STAY).ljust(1 << 20, b"\0"))
    xml = (
        "<domain type='qemu'><name>g</name><uuid>6d9f8d4e-0f0c-4a10-9a5e-1d2c3b4a5f60</uuid><memory>16384</memory>"
        f"<devices><disk type='file'><source file='{disk}'/><target dev='vda'/></disk></devices></domain>"
    )
    (tmp_path / "g.xml").write_text(xml)
    driver = QemuDriver(Directories.under(tmp_path))
    driver.domain_define_xml(xml)
    chance = random.Random(int(os.environ.get("HOSTEL_TEST_SEED", "1")))
    states = []
    for _ in range(12):
        loop = subprocess.Popen([sys.executable, "-c", LOOP, str(tmp_path)], stdout=subprocess.PIPE)
        assert loop.stdout is not None
        assert loop.stdout.readline() == b"ready\n"
        time.sleep(chance.uniform(0, 0.5))
        assert loop.poll() is None, "the loop ended by itself"
        loop.kill()
        loop.wait(10)
        loop.stdout.close()
        ref = driver.domain_lookup_by_name("g")
        assert driver.domain_is_persistent(ref)
        state = driver.domain_get_state(ref)
        states.append(state.state)
        running = machines_of(tmp_path)
        assert len(running) == (0 if state.state == DomainState.SHUTOFF else 1)
        if running:
            driver.domain_destroy(ref)
            assert machines_of(tmp_path) == set()
    assert set(states) - {DomainState.SHUTOFF}, "no kill found a machine running: the test shows nothing"
