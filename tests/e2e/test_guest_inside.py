"""The inside of a guest: a real machine whose agent is on this side of the channel."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from hostel.drivers.base import DomainRef, DomainState, ShutdownFlag, StartFlag
from hostel.drivers.base.agent import AgentTimeout, GuestInfo, HostnameSource, SshKeysFlag, SuspendTarget
from hostel.drivers.base.backup import CheckpointCreateFlag
from hostel.drivers.base.domain import Affect
from hostel.drivers.base.machine import VcpuFlag
from hostel.drivers.base.snapshot import SnapshotCreateFlag
from hostel.drivers.qemu import agent as conversation
from hostel.drivers.qemu import counting, guest, inside, machines, power
from hostel.drivers.qemu.agent import Agent, seconds_of
from hostel.drivers.qemu.driver import QemuDriver
from hostel.drivers.qemu.running import Running
from hostel.drivers.qemu.snapshot.catalog import Catalog, Intent
from hostel.errors import ErrorCode, VirtError
from hostel.objects import Connection
from support import agent, image
from support.session import disk, domain_xml, session
from support.virsh import Ours

pytestmark = [pytest.mark.qemu, pytest.mark.requires_tool("qemu-ga")]
SLEEP = "<pm><suspend-to-disk enabled='no'/></pm>"
Via = Callable[[Path], None]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def opened(home: Path) -> Iterator[Connection]:
    with session(home) as connection:
        yield connection


@pytest.fixture(scope="module")
def driver(opened: Connection) -> QemuDriver:
    found = opened.hypervisor
    assert isinstance(found, QemuDriver)
    return found


@pytest.fixture(scope="module")
def ref(driver: QemuDriver, home: Path) -> DomainRef:
    image.qemu_img("create", "-q", "-f", "qcow2", home / "disk.qcow2", 1 << 20)
    xml = (
        domain_xml(home, disk(home / "disk.qcow2", "qcow2"))
        .replace("<vcpu>1<", "<vcpu>2<")
        .replace("<devices>", f"{SLEEP}<devices>")
    )
    return driver.domain_create(driver.domain_define_xml(xml), StartFlag.PAUSED)


@pytest.fixture
def via(monkeypatch: pytest.MonkeyPatch) -> Via:
    """Put an agent at the guest's end of the channel."""

    def put(path: Path) -> None:
        def open_agent(machine: Running) -> Agent:
            deadline = time.monotonic() + 60
            while True:
                try:
                    return Agent(path, seconds_of(machine.agent_timeout))
                except VirtError as error:
                    # qemu-ga listens again a moment after a conversation has ended; QEMU's channel always does.
                    between = any(word in str(error) for word in ("refused", "reset", "closed"))
                    if not between or time.monotonic() >= deadline:
                        raise
                    time.sleep(0.05)

        for module in (conversation, inside, guest, counting, power):
            monkeypatch.setattr(module, "open_agent", open_agent)

    return put


def test_real_agent_tells_of_its_host(driver: QemuDriver, ref: DomainRef, via: Via, tmp_path: Path, home: Path) -> None:
    with agent.real(tmp_path) as path:
        via(path)
        assert driver.domain_get_hostname(ref) == socket.gethostname()
        found = driver.domain_get_guest_info(ref)
        assert found["hostname"] == socket.gethostname()
        assert found["os.kernel-release"] == os.uname().release
        assert found["if.0.name"] == "lo"
        assert isinstance(found["timezone.offset"], int)
        only = driver.domain_get_guest_info(ref, GuestInfo.HOSTNAME)
        assert only == {"hostname": socket.gethostname()}
        mounts = [each.mountpoint for each in driver.domain_get_fsinfo(ref)]
        assert "/" in mounts
        assert found["fs.count"] == len(mounts)
        cpus = driver.domain_get_guest_vcpus(ref)
        assert cpus["vcpus"] == Path("/sys/devices/system/cpu/present").read_text().strip()
        count = driver.domain_get_vcpus_flags(ref, Affect.CURRENT, VcpuFlag.GUEST)
        assert count == os.sysconf("SC_NPROCESSORS_ONLN")
        seconds, nseconds = driver.domain_get_time(ref)
        assert abs(seconds - time.time()) < 60
        assert 0 <= nseconds < 1_000_000_000
        ours = Ours(home)
        assert ours.run("domhostname guest") == (0, f"{socket.gethostname()}\n\n", "")
        assert ours.run("domtime guest")[1].startswith("Time: ")
        code, text, _ = ours.run("domfsinfo guest")
        assert (code, text.split()[:4]) == (0, ["Mountpoint", "Name", "Type", "Target"])
        assert f"hostname            : {socket.gethostname()}\n" in ours.run("guestinfo guest")[1]


def test_a_guest_whose_agent_does_not_answer_keeps_nobody_from_its_machine(
    driver: QemuDriver, ref: DomainRef, via: Via, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversation, "_BLOCKED_SECONDS", 3.0)
    with agent.Remembering(tmp_path / "socket", {"guest-wait": None}) as other, ThreadPoolExecutor() as threads:
        via(other.path)
        asked = threads.submit(
            driver.domain_qemu_agent_command, ref, '{"execute": "guest-wait"}', int(AgentTimeout.BLOCK)
        )
        while ("guest-wait", {}) not in other.heard:
            assert not asked.done()
            time.sleep(0.01)
        next_one = threads.submit(driver.domain_get_time, ref)
        driver.domain_set_memory_flags(ref, 32 << 10, Affect.LIVE)
        assert not asked.done() and not next_one.done()
        with pytest.raises(VirtError, match="it does not answer in time"):
            asked.result(20)
        with pytest.raises(VirtError, match="malformed return value"):  # it was asked after the other
            next_one.result(20)
        assert [command for command, _ in other.heard] == ["guest-wait", "guest-get-time"]


QUIESCED = SnapshotCreateFlag.QUIESCE | SnapshotCreateFlag.DISK_ONLY
CHECKPOINT = "<domaincheckpoint><name>c</name></domaincheckpoint>"
CPUS = {
    "return": [
        {"logical-id": 0, "online": True, "can-offline": False},
        {"logical-id": 1, "online": True, "can-offline": True},
    ]
}


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda it, ref: it.domain_shutdown(ref), ["guest-shutdown"]),
        (lambda it, ref: it.domain_reboot(ref, ShutdownFlag.AGENT), ["guest-shutdown"]),
        (lambda it, ref: it.domain_get_vcpus_flags(ref, Affect.LIVE, VcpuFlag.GUEST), ["guest-get-vcpus"]),
        (
            lambda it, ref: it.domain_set_vcpus_flags(ref, 1, Affect.LIVE, VcpuFlag.GUEST),
            ["guest-get-vcpus", "guest-set-vcpus"],
        ),
        (
            lambda it, ref: it.domain_checkpoint_create_xml(ref, CHECKPOINT, CheckpointCreateFlag.QUIESCE),
            ["guest-fsfreeze-freeze", "guest-fsfreeze-thaw"],
        ),
        (
            lambda it, ref: it.domain_snapshot_create_xml(ref, "<domainsnapshot/>", QUIESCED),
            ["guest-fsfreeze-freeze", "guest-fsfreeze-thaw"],
        ),
        (lambda it, ref: it.domain_list_all_snapshots(ref), ["guest-fsfreeze-thaw"]),
    ],
    ids=["shutdown", "reboot", "count", "processors", "checkpoint", "snapshot", "left frozen"],
)
def test_who_needs_the_agent_waits_until_another_has_talked_with_it(
    driver: QemuDriver,
    ref: DomainRef,
    via: Via,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: Callable[[QemuDriver, DomainRef], object],
    told: list[str],
) -> None:
    monkeypatch.setattr(conversation, "_BLOCKED_SECONDS", 2.0)
    monkeypatch.setattr(conversation, "_SECONDS", 1.0)
    if told == ["guest-fsfreeze-thaw"]:  # whoever made a snapshot has died
        Catalog(driver._machines, "guest").begin(Intent("sweep", "s", frozen=True))
    answers = {"guest-wait": None, "guest-get-vcpus": CPUS, "guest-set-vcpus": {"return": 1}}
    answers |= {f"guest-fsfreeze-{what}": {"return": 1} for what in ("freeze", "thaw")}
    with agent.Remembering(tmp_path / "socket", answers) as other, ThreadPoolExecutor() as threads:
        via(other.path)
        waits = '{"execute": "guest-wait"}'
        asked = threads.submit(driver.domain_qemu_agent_command, ref, waits, int(AgentTimeout.BLOCK))
        while not other.heard:
            assert not asked.done()
            time.sleep(0.01)
        call(driver, ref)
    assert [command for command, _ in other.heard] == ["guest-wait", *told]


def test_a_guest_whose_agent_is_busy_is_begun_anew_by_its_button(
    driver: QemuDriver, ref: DomainRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machines, "LOCK_SECONDS", 0.1)
    with driver._machines.talking("guest"):
        driver.domain_reboot(ref)
        driver.domain_reboot(ref, ShutdownFlag.AGENT | ShutdownFlag.ACPI)
        with pytest.raises(VirtError, match="another call talks with the agent of 'guest'"):
            driver.domain_reboot(ref, ShutdownFlag.AGENT)


def test_what_is_done_in_the_guest_is_what_the_agent_is_told(
    driver: QemuDriver, ref: DomainRef, via: Via, tmp_path: Path
) -> None:
    answers = {"guest-get-vcpus": CPUS, "guest-set-vcpus": {"return": 1}, "guest-get-time": {"return": 1_500_000_000}}
    answers["guest-ssh-get-authorized-keys"] = {"return": {"keys": ["ssh-rsa a"]}}
    with agent.Remembering(tmp_path / "socket", answers) as other:
        via(other.path)
        driver.domain_set_time(ref, 12, 34)
        driver.domain_set_time(ref, 0, 0, sync=True)
        driver.domain_set_user_password(ref, "root", "päss", encrypted=True)
        driver.domain_authorized_ssh_keys_set(ref, "u", ["k"])
        driver.domain_authorized_ssh_keys_set(ref, "u", ["k"], SshKeysFlag.APPEND)
        driver.domain_authorized_ssh_keys_set(ref, "u", ["k"], SshKeysFlag.REMOVE)
        assert driver.domain_authorized_ssh_keys_get(ref, "u") == ["ssh-rsa a"]
        assert driver.domain_get_time(ref) == (1, 500_000_000)
        driver.domain_set_guest_vcpus(ref, "1", 0)
        driver.domain_set_vcpus_flags(ref, 1, Affect.LIVE, VcpuFlag.GUEST)
    off = {"vcpus": [{"logical-id": 1, "online": False}]}
    assert [said for said in other.heard if said[0] != "guest-get-vcpus"] == [
        ("guest-set-time", {"time": 12_000_000_034}),
        ("guest-set-time", {}),
        ("guest-set-user-password", {"crypted": True, "username": "root", "password": "cMOkc3M="}),
        ("guest-ssh-add-authorized-keys", {"username": "u", "keys": ["k"], "reset": True}),
        ("guest-ssh-add-authorized-keys", {"username": "u", "keys": ["k"], "reset": False}),
        ("guest-ssh-remove-authorized-keys", {"username": "u", "keys": ["k"]}),
        ("guest-ssh-get-authorized-keys", {"username": "u"}),
        ("guest-get-time", {}),
        ("guest-set-vcpus", off),
        ("guest-set-vcpus", off),
    ]


def test_what_the_guest_cannot_is_refused(driver: QemuDriver, ref: DomainRef, via: Via, tmp_path: Path) -> None:
    unknown = {"error": {"class": "CommandNotFound", "desc": "no such command"}}
    answers: dict[str, Any] = {"guest-get-vcpus": CPUS, "guest-get-host-name": {"return": {"host-name": "inside"}}}
    for name in ("users", "osinfo", "timezone", "fsinfo", "disks"):
        answers[f"guest-get-{name}"] = unknown
    answers |= {"guest-network-get-interfaces": unknown, "guest-set-time": {"error": {"class": "X", "desc": "no"}}}
    with agent.Remembering(tmp_path / "socket", answers) as other:
        via(other.path)
        assert driver.domain_get_guest_info(ref) == {"hostname": "inside"}
        for call, code, what in (
            (lambda: driver.domain_get_guest_info(ref, GuestInfo.OS), ErrorCode.INTERNAL_ERROR, "no such command"),
            (lambda: driver.domain_get_guest_info(ref, 128), ErrorCode.INVALID_ARG, "information types '0x80'"),
            (lambda: driver.domain_set_time(ref, 1, 0), ErrorCode.INTERNAL_ERROR, "'guest-set-time': no"),
            (lambda: driver.domain_set_time(ref, 1 << 62, 0), ErrorCode.INVALID_ARG, "is too big for guest agent"),
            (
                lambda: driver.domain_set_guest_vcpus(ref, "0", 0),
                ErrorCode.OPERATION_UNSUPPORTED,
                "'0' is not offlinable",
            ),
            (lambda: driver.domain_set_guest_vcpus(ref, "1-3", 1), ErrorCode.INVALID_ARG, "missing vCPUs '2-3'"),
            (lambda: driver.domain_set_guest_vcpus(ref, "x", 1), ErrorCode.INVALID_ARG, "Failed to parse bitmap 'x'"),
            (
                lambda: driver.domain_set_vcpus_flags(ref, 3, Affect.LIVE, VcpuFlag.GUEST),
                ErrorCode.INVALID_ARG,
                "greater than the count of enabled vcpus in the domain: 3 > 2",
            ),
            (lambda: driver.domain_get_hostname(ref, HostnameSource.LEASE), ErrorCode.NO_HOSTNAME, "no hostname found"),
        ):
            with pytest.raises(VirtError, match=what) as caught:
                call()
            assert caught.value.code is code, what


def test_halves_of_characters_are_no_text(
    driver: QemuDriver, ref: DomainRef, via: Via, tmp_path: Path, home: Path
) -> None:
    answers = {"guest-get-host-name": {"return": {"host-name": "a\ud800b\U0001f600"}}}
    with agent.Remembering(tmp_path / "socket", answers) as other:
        via(other.path)
        assert driver.domain_get_hostname(ref) == "a\ufffdb\U0001f600"
        assert Ours(home).run("domhostname guest")[0] == 0


def test_guest_suspends_itself_or_says_why_not(driver: QemuDriver, ref: DomainRef, via: Via, tmp_path: Path) -> None:
    refused = {"error": {"class": "GenericError", "desc": "the guest does not want to"}}
    with agent.Remembering(tmp_path / "socket", {"guest-suspend-ram": refused}) as other:
        via(other.path)
        for target, what in (
            (SuspendTarget.MEM, "the guest does not want to"),
            (SuspendTarget.DISK, "S4 state is disabled"),
            (7, "Unknown suspend target: 7"),
        ):
            with pytest.raises(VirtError, match=what):
                driver.domain_pm_suspend_for_duration(ref, target)
        with pytest.raises(VirtError, match="Duration not supported"):
            driver.domain_pm_suspend_for_duration(ref, 0, 5)
    assert other.heard == [("guest-suspend-ram", {})]
    with pytest.raises(VirtError, match="guest is not in suspended state"):
        driver.domain_pm_wakeup(ref)
    assert driver.domain_get_state(ref).state == DomainState.PAUSED


def test_guest_is_asked_to_end_before_its_buttons_are_pressed(
    driver: QemuDriver, ref: DomainRef, via: Via, tmp_path: Path
) -> None:
    with agent.Remembering(tmp_path / "socket", {"guest-shutdown": None}) as other:
        via(other.path)
        driver.domain_shutdown(ref)
        driver.domain_reboot(ref, ShutdownFlag.AGENT)
        driver.domain_reboot(ref, ShutdownFlag.ACPI)
    assert other.heard == [("guest-shutdown", {"mode": "powerdown"}), ("guest-shutdown", {"mode": "reboot"})]
    refused = {"error": {"class": "GenericError", "desc": "not now"}}
    with agent.Remembering(tmp_path / "other", {"guest-shutdown": refused}) as other:
        via(other.path)
        with pytest.raises(VirtError, match="'guest-shutdown': not now"):
            driver.domain_shutdown(ref, ShutdownFlag.AGENT)
        driver.domain_reboot(ref, ShutdownFlag.AGENT | ShutdownFlag.ACPI)
    assert len(other.heard) == 2
    with pytest.raises(VirtError, match="unsupported flags \\(0x8\\) in function qemuDomainShutdownFlags"):
        driver.domain_shutdown(ref, ShutdownFlag.SIGNAL)


def test_patience_with_an_agent_is_what_was_said(
    driver: QemuDriver, ref: DomainRef, via: Via, tmp_path: Path, home: Path
) -> None:
    with agent.Remembering(tmp_path / "socket", {"guest-get-host-name": None}) as other:
        via(other.path)
        assert Ours(home).run("guest-agent-timeout guest --timeout 0")[0] == 0
        began = time.monotonic()
        with pytest.raises(VirtError, match="does not answer in time") as caught:
            driver.domain_get_hostname(ref)
        assert caught.value.code is ErrorCode.AGENT_UNRESPONSIVE
        assert time.monotonic() - began < 4
    with pytest.raises(VirtError, match="guest agent timeout '-3' is less than the minimum '-2'"):
        driver.domain_agent_set_response_timeout(ref, -3)
    driver.domain_agent_set_response_timeout(ref, -1)
