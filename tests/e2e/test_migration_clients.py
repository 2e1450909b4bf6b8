"""Migration by those who know libvirt: virsh, libvirt-python and our own virsh, between two of our daemons."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from hostel import guest
from support import hosteld, image
from support.moving import eventually
from support.session import disk, domain_xml, reports, wait_for_report
from support.virsh import MARKED, listened

pytestmark = [pytest.mark.qemu, pytest.mark.requires_tool("virsh", "qemu-img")]
LOCAL = "qemu:///session"
ALWAYS = ("--live", "--unsafe")


class Daemons(NamedTuple):
    """Two daemons, and a guest that boots for ever and keeps count."""

    home: Path
    one: hosteld.Hosteld
    other: hosteld.Hosteld

    def virsh(self, where: hosteld.Hosteld, *words: str) -> str:
        """Run the real virsh; what it printed."""
        return where.virsh(*words, uri=LOCAL).stdout.strip()

    def goes_on(self, where: hosteld.Hosteld) -> None:
        """The guest runs there and nowhere else, and has never lost count."""
        away = self.one if where is self.other else self.other
        assert self.virsh(where, "domstate", "guest") == "running"
        assert "running" not in self.virsh(away, "list", "--all")
        wait_for_report(self.home, len(reports(self.home)) + 1)
        boots = [report.boot for report in reports(self.home) if report.complete]
        assert boots == list(range(1, len(boots) + 1))


def text_of(path: Path) -> str:
    """What is in a file; nothing where it is gone."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


@pytest.fixture(scope="module")
def daemons(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemons]:
    home = tmp_path_factory.mktemp("daemons")
    path = home / "disk.qcow2"
    image.qemu_img("create", "-q", "-f", "qcow2", path, 1 << 20)
    image.write(path, "qcow2", (0, guest.image(label="moving", mode=guest.Mode.REBOOT)))
    (home / "guest.xml").write_text(domain_xml(home, disk(path, "qcow2")))
    with hosteld.process() as one, hosteld.process() as other:
        try:
            yield Daemons(home, one, other)
        finally:
            for daemon in (one, other):
                daemon.virsh("destroy", "guest", uri=LOCAL, check=False)


@pytest.fixture
def started(daemons: Daemons) -> Iterator[Daemons]:
    (daemons.home / "guest.log").unlink(missing_ok=True)
    path = daemons.home / "disk.qcow2"
    image.write(path, "qcow2", (0, guest.image(label="moving", mode=guest.Mode.REBOOT)))
    daemons.virsh(daemons.one, "create", str(daemons.home / "guest.xml"))
    wait_for_report(daemons.home, 1)
    yield daemons
    for daemon in (daemons.one, daemons.other):
        daemon.virsh("destroy", "guest", uri=LOCAL, check=False)


def test_virsh_moves_a_guest_in_every_way(started: Daemons) -> None:
    one, other = started.one, started.other
    started.virsh(one, "migrate", "guest", other.uri(LOCAL), *ALWAYS, "--persistent", "--verbose")
    started.goes_on(other)
    assert started.virsh(other, "domstate", "guest", "--reason") == "running (migrated)"
    assert "Incoming migration" in started.virsh(other, "domjobinfo", "guest", "--completed")
    started.virsh(other, "migrate", "guest", one.uri(LOCAL), *ALWAYS, "--p2p", "--undefinesource")
    started.goes_on(one)
    assert "guest" not in started.virsh(other, "list", "--all")
    started.virsh(one, "migrate", "guest", other.uri(LOCAL), *ALWAYS, "--p2p", "--tunnelled", "--compressed")
    started.goes_on(other)
    where = f"unix://{started.home}/memory"
    tuned = ("--parallel", "--parallel-connections", "2", "--auto-converge", "--bandwidth", "100")
    started.virsh(other, "migrate", "guest", one.uri(LOCAL), *ALWAYS, "--migrateuri", where, *tuned)
    started.goes_on(one)
    started.virsh(one, "migrate", "guest", other.uri(LOCAL), *ALWAYS, "--dname", "renamed")
    assert started.virsh(other, "domstate", "renamed") == "running"
    started.virsh(other, "migrate", "renamed", one.uri(LOCAL), "--unsafe", "--dname", "guest")
    started.goes_on(one)


def test_our_virsh_moves_it_too(started: Daemons) -> None:
    one, other = started.one, started.other
    ours(one, "migrate", "guest", other.uri(LOCAL), *ALWAYS, "--timeout", "60")
    started.goes_on(other)
    told = ours(other, "domjobinfo", "guest", "--completed", "--keep-completed")
    assert "Total downtime:" in told
    assert told == started.virsh(other, "domjobinfo", "guest", "--completed")
    assert ours(other, "domjobinfo", "guest", "--completed") == "Job type:         None"
    ours(other, "migrate", "guest", one.uri(LOCAL), *ALWAYS, "--p2p")
    started.goes_on(one)
    ours(one, "migrate-setspeed", "guest", "77")
    ours(one, "migrate-setmaxdowntime", "guest", "555")
    for name, value in (("migrate-getspeed", "77"), ("migrate-getmaxdowntime", "555")):
        assert ours(one, name, "guest") == started.virsh(one, name, "guest") == value
    assert ours(one, "migrate-compcache", "guest", "--size", "1048576") == "Compression cache: 1.000 MiB"


def ours(daemon: hosteld.Hosteld, *words: str) -> str:
    command = [sys.executable, "-m", "hostel", "virsh", "-c", daemon.uri(LOCAL), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_libvirt_python_moves_it_with_calls_from_before_there_were_parameters(started: Daemons) -> None:
    flags = "libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_UNSAFE"
    code = (
        f"there = libvirt.open({started.other.uri(LOCAL)!r})\n"
        f"moved = c.lookupByName('guest').migrate(there, {flags})\n"
        "print(moved.name(), moved.state())\n"
        f"moved.migrateToURI2({started.one.uri(LOCAL)!r}, None, None, {flags} | libvirt.VIR_MIGRATE_PEER2PEER)\n"
        f"print(c.lookupByName('guest').migrate3(there, {{'bandwidth': 50}}, {flags}).state())\n"
    )
    assert started.one.python(code, LOCAL) == "guest [1, 2]\n[1, 2]\n"
    started.goes_on(started.other)


def test_our_module_moves_it_too(started: Daemons) -> None:
    import hostel.libvirt as libvirt

    flags = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_UNSAFE
    one, other = libvirt.open(started.one.uri(LOCAL)), libvirt.open(started.other.uri(LOCAL))
    with contextlib.closing(one), contextlib.closing(other):
        moved = one.lookupByName("guest").migrate3(other, {libvirt.VIR_MIGRATE_PARAM_BANDWIDTH: 50}, flags)
        assert moved.state() == [libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_MIGRATED]
        moved.migrateToURI3(started.one.uri(LOCAL), {}, flags | libvirt.VIR_MIGRATE_PEER2PEER)
        with pytest.raises(libvirt.libvirtError, match="use virDomainMigrateToURI3"):
            one.lookupByName("guest").migrate3(other, {}, flags | libvirt.VIR_MIGRATE_PEER2PEER)
    started.goes_on(started.one)


def test_what_happens_is_told_as_libvirt_tells_it(started: Daemons, tmp_path: Path) -> None:
    (tmp_path / "marked.xml").write_text(MARKED)
    told: dict[str, list[str]] = {}

    def listen(name: str, daemon: hosteld.Hosteld, act: Callable[[], object]) -> None:
        def mark() -> None:
            started.virsh(daemon, "define", str(tmp_path / "marked.xml"))
            started.virsh(daemon, "undefine", "hostel-mark")

        command = ["virsh", "-c", daemon.uri(LOCAL), "event", "--all", "--loop"]
        told[name] = listened(command, tmp_path / name, {**os.environ, "LC_ALL": "C"}, act, mark)

    def migrate() -> None:
        started.virsh(started.one, "migrate", "guest", started.other.uri(LOCAL), *ALWAYS)

    listen("one", started.one, lambda: listen("other", started.other, migrate))
    assert all(any("job-completed" in line for line in lines) for lines in told.values())
    assert any("migration-iteration" in line for line in told["one"])
    words = {
        name: [line.partition("for domain 'guest': ")[2] for line in lines if "lifecycle" in line]
        for name, lines in told.items()
    }
    assert words == {
        "one": ["Suspended Migrated", "Stopped Migrated"],
        "other": ["Started Migrated", "Resumed Migrated"],
    }
    started.goes_on(started.other)


def test_daemon_that_is_killed_or_a_client_leaves_the_guest_in_one_place(tmp_path: Path) -> None:
    chance = random.Random(int(os.environ.get("HOSTEL_TEST_SEED", "1")))
    way = chance.choice([(), ("--p2p",), ("--p2p", "--tunnelled")])
    path = tmp_path / "disk.qcow2"
    image.qemu_img("create", "-q", "-f", "qcow2", path, 1 << 20)
    image.write(path, "qcow2", (0, guest.image(label="moving", mode=guest.Mode.REBOOT)))
    (tmp_path / "guest.xml").write_text(domain_xml(tmp_path, disk(path, "qcow2")))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    with hosteld.process(directory=tmp_path / "a") as one:
        one.virsh("create", str(tmp_path / "guest.xml"), uri=LOCAL)
        wait_for_report(tmp_path, 1)
        with hosteld.process(directory=tmp_path / "b") as other:
            words = ["migrate", "guest", other.uri(LOCAL), *ALWAYS, "--bandwidth", "1", *way]
            client = subprocess.Popen(["virsh", "-c", one.uri(LOCAL), *words], stderr=subprocess.DEVNULL)
            time.sleep(chance.uniform(0.2, 1.2))
            victims: list[subprocess.Popen[Any]] = [one.process, other.process, client]
            chance.choice(victims).kill()
            client.wait(60)
    with hosteld.process(directory=tmp_path / "a") as one, hosteld.process(directory=tmp_path / "b") as other:
        both = Daemons(tmp_path, one, other)
        try:
            # Each settles by itself, as it starts, what it was about.
            states = [tmp_path / name / "state" for name in ("a", "b")]
            marked = [path for state in states for path in state.rglob("run/qemu/*.xml")]
            assert eventually(lambda: not any("<migration" in text_of(path) for path in marked))
            is_here = "running" in one.virsh("domstate", "guest", uri=LOCAL, check=False).stdout
            both.goes_on(one if is_here else other)
        finally:
            for daemon in (one, other):
                daemon.virsh("destroy", "guest", uri=LOCAL, check=False)
