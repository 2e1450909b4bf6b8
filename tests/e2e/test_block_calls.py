"""Block jobs, sizes and limits on the disks of running guests; the guest is the oracle of its bytes."""

from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path

import pytest

from hostel.block import graph
from hostel.drivers.base import DomainState, DomainXmlFlag, StartFlag
from hostel.drivers.base.block import (
    BlockCommitFlag,
    BlockCopyFlag,
    BlockJobAbortFlag,
    BlockRebaseFlag,
    BlockResizeFlag,
)
from hostel.drivers.base.domain import Affect
from hostel.drivers.base.snapshot import SnapshotCreateFlag
from hostel.drivers.qemu import process
from hostel.drivers.qemu.block import copy, jobs
from hostel.drivers.qemu.driver import QemuDriver
from hostel.drivers.qemu.running import Running
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode, VirtError
from hostel.model.domain.domain import Domain
from support.chains import Chain, wait_for_job
from support.image import real_qemu_img
from support.kill_step import MAX_STEPS, killed_at
from support.process import started
from support.session import disk, domain_xml, held, session

pytestmark = [pytest.mark.qemu, pytest.mark.requires_tool("qemu-img")]
MIB = 1 << 20
DRIVER = Path(__file__).parents[2] / "src/hostel/drivers/qemu"
STEPS = (DRIVER / "blockjob.py", *(DRIVER / "block").glob("*.py"), DRIVER / "plug/graph.py", DRIVER / "recovery.py")


def make_ready_to_pivot(chain: Chain, kind: str) -> str:
    """Begin a copy, or an active commit to the base, and wait until it is ready; the file that a pivot takes it to."""
    if kind == "copy":
        xml = f"<disk type='file'><driver type='qcow2'/><source file='{chain.home}/copy.qcow2'/></disk>"
        chain.driver.domain_block_copy(chain.ref, "vda", xml, flags=BlockCopyFlag.TRANSIENT_JOB)
    else:
        chain.driver.domain_block_commit(chain.ref, "vda", flags=BlockCommitFlag.ACTIVE)
    chain.wait(ready=True)
    return "copy.qcow2" if kind == "copy" else "base.qcow2"


def test_pull_makes_the_top_stand_alone(tmp_path: Path, driver: QemuDriver) -> None:
    chain = Chain(tmp_path, driver)
    assert chain.chain() == ["over2.qcow2", "over1.qcow2", "base.qcow2"]
    driver.domain_block_rebase(chain.ref, "vda")
    chain.wait()
    chain.check("over2.qcow2", [])


def test_pull_down_to_a_base_keeps_the_base(tmp_path: Path, driver: QemuDriver) -> None:
    chain = Chain(tmp_path, driver, 3)
    driver.domain_block_rebase(chain.ref, "vda", str(tmp_path / "over1.qcow2"), flags=BlockRebaseFlag.RELATIVE)
    chain.wait()
    chain.check("over3.qcow2", ["over1.qcow2", "base.qcow2"])


def test_commit_in_the_middle_takes_an_image_out(tmp_path: Path, driver: QemuDriver) -> None:
    chain = Chain(tmp_path, driver, 3)
    flags = BlockCommitFlag.RELATIVE | BlockCommitFlag.DELETE
    driver.domain_block_commit(chain.ref, "vda", str(tmp_path / "base.qcow2"), str(tmp_path / "over2.qcow2"), 0, flags)
    chain.wait()
    assert not (tmp_path / "over2.qcow2").exists()
    assert not (tmp_path / "over1.qcow2").exists()
    chain.check("over3.qcow2", ["base.qcow2"])


def test_a_copy_that_another_was_sooner_than_leaves_what_that_one_made(
    tmp_path: Path, driver: QemuDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = Chain(tmp_path, driver)
    target = tmp_path / "copy.qcow2"
    xml = f"<disk type='file'><driver type='qcow2'/><source file='{target}'/></disk>"
    driver.domain_block_copy(chain.ref, "vda", xml, flags=BlockCopyFlag.TRANSIENT_JOB)
    chain.wait(ready=True)
    second = tmp_path / "second"
    second.mkdir()
    real_qemu_img("create", "-q", "-f", "qcow2", second / "disk.qcow2", "1M")
    late = driver.domain_create_xml(
        domain_xml(second, disk(second / "disk.qcow2", "qcow2"), name="late"), StartFlag.PAUSED
    )
    monkeypatch.setattr(copy, "_check_target", lambda *_, **__: True)  # it looked before the first had begun
    with pytest.raises(VirtError, match="lock"):
        driver.domain_block_copy(late, "vda", xml, flags=BlockCopyFlag.TRANSIENT_JOB)
    driver.domain_destroy(late)
    driver.domain_block_job_abort(chain.ref, "vda", BlockJobAbortFlag.PIVOT)
    chain.check("copy.qcow2", [])


def test_active_commit_is_pivoted_and_the_definition_follows(tmp_path: Path, driver: QemuDriver) -> None:
    chain = Chain(tmp_path, driver)
    driver.domain_block_commit(chain.ref, "vda", flags=BlockCommitFlag.ACTIVE)
    with pytest.raises(VirtError) as caught:
        driver.domain_block_commit(chain.ref, "vda", flags=BlockCommitFlag.ACTIVE)
    assert caught.value.code == ErrorCode.BLOCK_COPY_ACTIVE
    chain.wait(ready=True)
    assert "<mirror type='file' job='active-commit' ready='yes'>" in driver.domain_get_xml_desc(chain.ref)
    driver.domain_block_job_abort(chain.ref, "vda", BlockJobAbortFlag.PIVOT)
    assert chain.defined() == "base.qcow2"
    chain.check("base.qcow2", [])


def test_active_commit_that_is_given_up_leaves_the_chain(tmp_path: Path, driver: QemuDriver) -> None:
    chain = Chain(tmp_path, driver)
    driver.domain_block_commit(chain.ref, "vda", flags=BlockCommitFlag.ACTIVE | BlockCommitFlag.SHALLOW)
    chain.wait(ready=True)
    driver.domain_block_job_abort(chain.ref, "vda")
    assert chain.defined() == "over2.qcow2"
    assert "<mirror" not in driver.domain_get_xml_desc(chain.ref)
    chain.check("over2.qcow2", ["over1.qcow2", "base.qcow2"])


@pytest.mark.parametrize("kind", ["pull", "pull to a base", "commit", "copy"])
def test_what_a_job_has_moved_is_stored_when_qemu_is_killed_after_its_end(
    tmp_path: Path, driver: QemuDriver, kind: str
) -> None:
    chain = Chain(tmp_path, driver, 3)
    driver.domain_suspend(chain.ref)  # what the guest has written is stored
    top = "over3.qcow2"
    if kind.startswith("pull"):
        driver.domain_block_rebase(chain.ref, "vda", "vda[4]" if "base" in kind else None)
    elif kind == "commit":
        driver.domain_block_commit(chain.ref, "vda", "vda[4]", "vda[2]", 0, BlockCommitFlag.DELETE)
    else:
        top = "copy.qcow2"
        xml = f"<disk type='file'><driver type='qcow2'/><source file='{tmp_path}/{top}'/></disk>"
        driver.domain_block_copy(chain.ref, "vda", xml, flags=BlockCopyFlag.TRANSIENT_JOB)
        chain.wait(ready=True)
        driver.domain_block_job_abort(chain.ref, "vda", BlockJobAbortFlag.PIVOT)
    chain.wait()
    left = chain.chain()
    assert left == {"pull": [top], "copy": [top]}.get(kind, [top, "base.qcow2"])
    with held(tmp_path) as machine:
        os.kill(machine.status.pid, signal.SIGKILL)
        assert process.ended(machine.status.pid, machine.status.started, 20)
    with graph.open(str(tmp_path / top), "qcow2", force_share=True) as node:  # a dying QEMU may still be letting go
        assert node.read(0, node.length) == chain.oracle.after(chain.before, 1)


@pytest.mark.parametrize("kind", ["copy", "active commit"])
def test_machine_that_ends_before_its_definition_has_followed_a_pivot_starts_from_what_it_was_on(
    tmp_path: Path, driver: QemuDriver, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    chain = Chain(tmp_path, driver)
    other = make_ready_to_pivot(chain, kind)
    with monkeypatch.context() as patched:

        def refuse(*_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        patched.setattr(Running, "redefine", refuse)
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            driver.domain_block_job_abort(chain.ref, "vda", BlockJobAbortFlag.PIVOT)
    with held(tmp_path) as machine:
        os.kill(machine.status.pid, signal.SIGKILL)
        assert process.ended(machine.status.pid, machine.status.started, 20)
    assert driver.domain_get_state(chain.ref).state is DomainState.SHUTOFF
    assert chain.defined() == other


@pytest.mark.parametrize("kind", ["copy", "active commit"])
def test_machine_that_ends_before_anybody_has_seen_its_pivot_does_not_start_from_what_it_may_have_left(
    tmp_path: Path, driver: QemuDriver, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(jobs, "wait", lambda *_: None)
    chain = Chain(tmp_path, driver, boots=False)
    other = make_ready_to_pivot(chain, kind)
    driver.domain_block_job_abort(chain.ref, "vda", BlockJobAbortFlag.PIVOT | BlockJobAbortFlag.ASYNC)
    with held(tmp_path) as machine:
        deadline = time.monotonic() + 20
        while machine.ask("query-jobs")[0]["status"] != "concluded":
            assert time.monotonic() < deadline
        os.kill(machine.status.pid, signal.SIGTERM)
        assert process.ended(machine.status.pid, machine.status.started, 20)
    assert driver.domain_get_state(chain.ref).state is DomainState.SHUTOFF
    with pytest.raises(VirtError, match="nobody knows which of them its guest wrote to last") as refused:
        driver.domain_create(chain.ref)
    assert f"from '{tmp_path}/over2.qcow2' to '{tmp_path}/{other}'" in refused.value.message
    driver.domain_define_xml(domain_xml(tmp_path, disk(tmp_path / other, "qcow2")))
    driver.domain_create(chain.ref, StartFlag.PAUSED)
    chain.check(other, [])


@pytest.mark.requires_tool("qemu-nbd")
@pytest.mark.parametrize("name", ["disk", ""])
@pytest.mark.parametrize("kind", ["copy", "snapshot"])
def test_definition_follows_from_a_disk_on_a_server(tmp_path: Path, driver: QemuDriver, kind: str, name: str) -> None:
    (tmp_path / "disk.img").write_bytes(bytes(MIB))
    socket, new = tmp_path / "nbd.sock", tmp_path / "new.qcow2"
    source = f"<source protocol='nbd' name='{name}'><host transport='unix' socket='{socket}'/></source>"
    xml = f"<disk type='network'><driver type='raw'/>{source}<target dev='vda' bus='virtio'/></disk>"
    with started(["qemu-nbd", "-t", "-e", "8", "-f", "raw", "-x", name, "-k", str(socket), str(tmp_path / "disk.img")]):
        deadline = time.monotonic() + 20
        while not socket.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        ref = driver.domain_define_xml(domain_xml(tmp_path, xml))
        driver.domain_create(ref, StartFlag.PAUSED)
        to = f"<driver type='qcow2'/><source file='{new}'/>"
        if kind == "copy":
            driver.domain_block_copy(ref, "vda", f"<disk type='file'>{to}</disk>", flags=BlockCopyFlag.TRANSIENT_JOB)
            wait_for_job(driver, ref, ready=True)
            driver.domain_block_job_abort(ref, "vda", BlockJobAbortFlag.PIVOT)
        else:
            disks = f"<disks><disk name='vda' snapshot='external' type='file'>{to}</disk></disks>"
            xml = f"<domainsnapshot>{disks}</domainsnapshot>"
            driver.domain_snapshot_create_xml(ref, xml, SnapshotCreateFlag.DISK_ONLY)
        definition = Domain.parse(driver.domain_get_xml_desc(ref, DomainXmlFlag.INACTIVE)).devices.disks[0]
        assert definition.source is not None and definition.source.file == str(new)
        driver.domain_destroy(ref)


@pytest.mark.parametrize("fmt", ["qcow2", "raw"])
def test_copy_is_pivoted_to(tmp_path: Path, driver: QemuDriver, fmt: str) -> None:
    chain = Chain(tmp_path, driver)
    xml = f"<disk type='file'><driver type='{fmt}'/><source file='{tmp_path}/copy.{fmt}'/></disk>"
    with pytest.raises(VirtError, match="domain is not transient"):
        driver.domain_block_copy(chain.ref, "vda", xml)
    driver.domain_block_copy(chain.ref, "vda", xml, flags=BlockCopyFlag.TRANSIENT_JOB)
    chain.wait(ready=True)
    driver.domain_block_job_abort(chain.ref, "vda", BlockJobAbortFlag.PIVOT)
    assert chain.defined() == f"copy.{fmt}"
    chain.check(f"copy.{fmt}", [])


def test_shallow_copy_stands_on_the_same_chain(tmp_path: Path, driver: QemuDriver) -> None:
    chain = Chain(tmp_path, driver)
    xml = f"<disk type='file'><driver type='qcow2'/><source file='{tmp_path}/copy.qcow2'/></disk>"
    flags = BlockCopyFlag.TRANSIENT_JOB | BlockCopyFlag.SHALLOW
    driver.domain_block_copy(chain.ref, "vda", xml, flags=flags)
    chain.wait(ready=True)
    driver.domain_block_job_abort(chain.ref, "vda", BlockJobAbortFlag.PIVOT)
    chain.check("copy.qcow2", ["over1.qcow2", "base.qcow2"])


def test_copy_that_is_given_up_and_one_that_reuses_what_it_left(tmp_path: Path, driver: QemuDriver) -> None:
    chain = Chain(tmp_path, driver)
    xml = f"<disk type='file'><driver type='qcow2'/><source file='{tmp_path}/copy.qcow2'/></disk>"
    driver.domain_block_copy(chain.ref, "vda", xml, flags=BlockCopyFlag.TRANSIENT_JOB)
    chain.wait(ready=True)
    driver.domain_block_job_abort(chain.ref, "vda")
    assert chain.chain() == ["over2.qcow2", "over1.qcow2", "base.qcow2"]
    with pytest.raises(VirtError, match="already exists"):
        driver.domain_block_copy(chain.ref, "vda", xml, flags=BlockCopyFlag.TRANSIENT_JOB)
    flags = BlockCopyFlag.TRANSIENT_JOB | BlockCopyFlag.REUSE_EXT
    driver.domain_block_copy(chain.ref, "vda", xml, flags=flags)
    chain.wait(ready=True)
    driver.domain_block_job_abort(chain.ref, "vda", BlockJobAbortFlag.PIVOT)
    chain.check("copy.qcow2", [])


@pytest.mark.parametrize("job", ["pull", "commit", "active-commit", "copy"])
def test_killed_at_any_step_of_a_job_the_chain_is_the_old_one_or_the_new_one(
    tmp_path: Path, driver: QemuDriver, job: str
) -> None:
    step, outcomes = 1, set()
    while step < MAX_STEPS:
        home = tmp_path / str(step)
        home.mkdir()
        with session(home) as connection:
            own = connection.hypervisor
            assert isinstance(own, QemuDriver)
            chain = Chain(home, own, boots=False)

            def act(home: Path = home, chain: Chain = chain) -> None:
                child = QemuDriver(Directories.under(home))
                mine = Chain.__new__(Chain)
                mine.__dict__.update(chain.__dict__)
                mine.driver = child
                run_job(mine, job)

            killed = killed_at(step, STEPS, act)
            finish_job(chain)
            new = {"pull": ["over2.qcow2"], "commit": ["over2.qcow2", "base.qcow2"]}.get(job, [])
            new = {"active-commit": ["base.qcow2"], "copy": ["copy.qcow2"]}.get(job, new)
            found = chain.chain()
            assert found in (["over2.qcow2", "over1.qcow2", "base.qcow2"], new), f"step {step}"
            assert chain.defined() == found[0], f"step {step}"
            assert not (home / "copy.qcow2").exists() or found == new or job == "copy"
            outcomes.add(tuple(found))
            chain.check(found[0], found[1:])
        if not killed:
            break
        step += 23
    assert len(outcomes) == 2


def run_job(chain: Chain, job: str) -> None:
    driver, home = chain.driver, chain.home
    if job == "pull":
        driver.domain_block_rebase(chain.ref, "vda")
        chain.wait()
    elif job == "commit":
        driver.domain_block_commit(chain.ref, "vda", top=str(home / "over1.qcow2"))
        chain.wait()
    else:
        make_ready_to_pivot(chain, job)
        driver.domain_block_job_abort(chain.ref, "vda", BlockJobAbortFlag.PIVOT)


def finish_job(chain: Chain) -> None:
    """Let what runs end by itself, and give up what waits to be ended."""
    deadline = time.monotonic() + 60
    while (info := chain.driver.domain_get_block_job_info(chain.ref, "vda")) is not None:
        if info.cur == info.end and info.type in (2, 4):
            chain.driver.domain_block_job_abort(chain.ref, "vda")
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_size_changes_while_the_guest_runs(tmp_path: Path, driver: QemuDriver) -> None:
    chain = Chain(tmp_path, driver, 1)
    driver.domain_block_resize(chain.ref, "vda", 8 * MIB + 1, BlockResizeFlag.BYTES)
    assert driver.domain_get_block_info(chain.ref, "vda").capacity == 8 * MIB + 512
    driver.domain_block_resize(chain.ref, str(tmp_path / "over1.qcow2"), 16 * 1024)
    assert driver.domain_get_block_info(chain.ref, "vda").capacity == 16 * MIB


def test_counters_limits_and_errors_are_told(tmp_path: Path, driver: QemuDriver) -> None:
    chain = Chain(tmp_path, driver, 0)
    found = driver.domain_block_stats_flags(chain.ref, "vda")
    assert found["rd_bytes"] > 0
    assert found["wr_operations"] > 0
    assert driver.domain_block_stats_flags(chain.ref, "") == found
    limits = {"total_bytes_sec": MIB, "read_iops_sec": 100}
    driver.domain_set_block_io_tune(chain.ref, "vda", limits, Affect.LIVE | Affect.CONFIG)
    for affect in (Affect.LIVE, Affect.CONFIG):
        said = driver.domain_get_block_io_tune(chain.ref, "vda", affect)
        assert (said["total_bytes_sec"], said["read_iops_sec"], said["write_iops_sec"]) == (MIB, 100, 0)
    driver.domain_set_block_io_tune(chain.ref, "vda", {"read_bytes_sec": 2 * MIB}, Affect.LIVE)
    said = driver.domain_get_block_io_tune(chain.ref, "vda", Affect.LIVE)
    assert (said["total_bytes_sec"], said["read_bytes_sec"]) == (0, 2 * MIB)
    driver.domain_destroy(chain.ref)
    driver.domain_create(chain.ref)
    assert driver.domain_get_block_io_tune(chain.ref, "vda", Affect.LIVE)["total_bytes_sec"] == MIB
    assert driver.domain_get_disk_errors(chain.ref) == []


def test_disks_of_a_group_are_limited_together(tmp_path: Path, driver: QemuDriver) -> None:
    group = "<iotune><total_iops_sec>100</total_iops_sec><group_name>g</group_name></iotune>"
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.raw").write_bytes(bytes(MIB))
    first = disk(tmp_path / "a.raw", more=group)
    second = disk(tmp_path / "b.raw", dev="vdb", more="<iotune><group_name>g</group_name></iotune>")
    third = disk(tmp_path / "c.raw", dev="vdc")
    ref = driver.domain_define_xml(domain_xml(tmp_path, first, second, third))
    driver.domain_create(ref, StartFlag.PAUSED)

    def limits(affect: Affect) -> list[tuple[int | str, int | str]]:
        said = (driver.domain_get_block_io_tune(ref, dev, affect) for dev in ("vda", "vdb", "vdc"))
        return [(item["total_iops_sec"], item["group_name"]) for item in said]

    assert [item[0] for item in limits(Affect.LIVE)] == [100, 100, 0]
    both = Affect.LIVE | Affect.CONFIG
    driver.domain_set_block_io_tune(ref, "vdb", {"total_iops_sec": 200}, both)
    assert [item[0] for item in limits(Affect.LIVE)] == [200, 200, 0]
    assert limits(Affect.CONFIG) == [(200, "g"), (200, "g"), (0, "")]
    driver.domain_set_block_io_tune(ref, "vdc", {"group_name": "g", "read_bytes_sec": MIB}, both)
    assert limits(Affect.CONFIG) == [(200, "g")] * 3
    assert driver.domain_get_block_io_tune(ref, "vda", Affect.LIVE)["read_bytes_sec"] == MIB
    with pytest.raises(VirtError, match="with all tune parameters zero is not supported"):
        none: dict[str, int | str] = {"group_name": "other", "total_iops_sec": 0, "read_bytes_sec": 0}
        driver.domain_set_block_io_tune(ref, "vda", none, both)
    driver.domain_destroy(ref)
    driver.domain_create(ref, StartFlag.PAUSED)
    assert limits(Affect.LIVE) == [(200, "g")] * 3
