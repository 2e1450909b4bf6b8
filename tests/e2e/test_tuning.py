"""Where the threads of running machines run, their I/O threads, and what only a definition has."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hostel import guest
from hostel.drivers.base import DomainRef, DomainXmlFlag
from hostel.drivers.base.domain import Affect
from hostel.drivers.qemu.driver import QemuDriver
from hostel.drivers.tuning.cpumap import cpumap, cpus_of
from hostel.errors import ErrorCode, VirtError
from hostel.model.domain.domain import Domain
from hostel.objects import Connection
from support.session import disk, domain_xml, session, wait_for_report

pytestmark = pytest.mark.qemu
MIB = 1 << 20
BOTH = Affect.LIVE | Affect.CONFIG
ALL = frozenset(os.sched_getaffinity(0))
LAST = max(ALL)
PINS = (
    f"<cputune><vcpupin vcpu='0' cpuset='{LAST}'/><emulatorpin cpuset='0'/>"
    "<vcpusched vcpus='1' scheduler='batch'/></cputune>"
)


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    (tmp_path / "disk.img").write_bytes(guest.image(label="tuning", mode=guest.Mode.WAIT).ljust(MIB, b"\0"))
    with session(tmp_path) as opened:
        yield opened


@pytest.fixture
def ref(driver: QemuDriver, tmp_path: Path) -> DomainRef:
    xml = domain_xml(tmp_path, disk(tmp_path / "disk.img"))
    xml = xml.replace("<vcpu>1</vcpu>", f"<vcpu current='2'>3</vcpu><iothreads>1</iothreads>{PINS}")
    ref = driver.domain_create(driver.domain_define_xml(xml))
    wait_for_report(tmp_path, 1)
    return ref


def live(driver: QemuDriver, ref: DomainRef) -> Domain:
    return Domain.parse(driver.domain_get_xml_desc(ref))


def stored(driver: QemuDriver, ref: DomainRef) -> Domain:
    return Domain.parse(driver.domain_get_xml_desc(ref, DomainXmlFlag.INACTIVE))


def threads(driver: QemuDriver, ref: DomainRef) -> dict[int, int]:
    answer = driver.domain_qemu_monitor_command(ref, '{"execute": "query-cpus-fast"}')
    return {cpu["cpu-index"]: cpu["thread-id"] for cpu in json.loads(answer)["return"]}


def told_of(driver: QemuDriver, ref: DomainRef, name: str) -> object:
    """What QEMU says of the I/O thread 5."""
    question = {"execute": "qom-get", "arguments": {"path": "/objects/iothread5", "property": name}}
    return json.loads(driver.domain_qemu_monitor_command(ref, json.dumps(question)))["return"]


def test_threads_run_where_the_document_says_and_where_they_are_put(driver: QemuDriver, ref: DomainRef) -> None:
    tasks = threads(driver, ref)
    assert os.sched_getaffinity(tasks[0]) == {LAST}
    assert os.sched_getaffinity(tasks[1]) == ALL
    assert os.sched_getscheduler(tasks[1]) == os.SCHED_BATCH
    driver.domain_pin_vcpu(ref, 1, cpumap({0}))
    assert os.sched_getaffinity(tasks[1]) == {0}
    driver.domain_pin_vcpu_flags(ref, 2, cpumap({LAST}), BOTH)  # it is not there yet
    driver.domain_set_vcpus_flags(ref, 3, Affect.LIVE)
    assert os.sched_getaffinity(threads(driver, ref)[2]) == {LAST}
    info = driver.domain_get_vcpu_pin_info(ref, 9, 1, Affect.LIVE)
    assert [cpus_of(info.cpumaps[at : at + 1]) for at in range(info.total)] == [{LAST}, {0}, {LAST}]
    info = driver.domain_get_vcpu_pin_info(ref, 9, 1, Affect.CONFIG)
    assert [cpus_of(info.cpumaps[at : at + 1]) for at in range(info.total)] == [{LAST}, ALL, {LAST}]
    found = driver.domain_get_vcpus(ref, 2, 2)
    assert [vcpu.number for vcpu in found.info] == [0, 1]
    assert found.info[0].cpu in ALL
    assert found.info[0].cpu_time > 0
    assert cpus_of(found.cpumaps[:2]) == {LAST}
    driver.domain_pin_emulator(ref, cpumap({LAST}), BOTH)
    assert cpus_of(driver.domain_get_emulator_pin_info(ref, 1, Affect.CONFIG).cpumaps) == {LAST}
    numbers = dict(driver.domain_get_cpu_stats(ref, 3, -1, 1).parameters)
    assert numbers["cpu_time"] == numbers["user_time"] + numbers["system_time"] > 0
    for vcpu, cpus, reason in ((3, {0}, "out of range"), (0, (), "Empty cpu list"), (0, {4000}, "cannot set CPU aff")):
        with pytest.raises(VirtError, match=reason):
            driver.domain_pin_vcpu(ref, vcpu, cpumap(cpus))
    tune = live(driver, ref).cputune
    assert tune is not None
    assert [(pin.vcpu, pin.cpuset) for pin in tune.vcpupins] == [(0, f"{LAST}"), (1, "0"), (2, f"{LAST}")]


def test_io_threads_come_and_go_with_their_documents(driver: QemuDriver, ref: DomainRef) -> None:
    driver.domain_add_iothread(ref, 5, BOTH)
    assert sorted(thread.number for thread in driver.domain_get_iothread_info(ref, Affect.LIVE).info) == [1, 5]
    driver.domain_pin_iothread(ref, 5, cpumap({LAST}), BOTH)
    found = {each.number: cpus_of(each.cpumap) for each in driver.domain_get_iothread_info(ref, Affect.LIVE).info}
    assert found == {1: ALL, 5: {LAST}}
    driver.domain_set_iothread_params(
        ref, 5, {"poll_max_ns": 7, "thread_pool_min": 70, "thread_pool_max": 90}, Affect.LIVE
    )
    driver.domain_set_iothread_params(ref, 5, {"thread_pool_min": 1, "thread_pool_max": 2}, BOTH)
    told = [told_of(driver, ref, name) for name in ("poll-max-ns", "thread-pool-min", "thread-pool-max")]
    assert told == [7, 1, 2]
    for document in (live(driver, ref), stored(driver, ref)):
        assert document.iothread_ids is not None
        assert [(each.id, each.thread_pool_max) for each in document.iothread_ids.iothreads] == [(1, None), (5, 2)]
    refused: tuple[tuple[Callable[[], None], str], ...] = (
        (lambda: driver.domain_add_iothread(ref, 5, Affect.LIVE), "already using iothread_id '5'"),
        (lambda: driver.domain_del_iothread(ref, 4, Affect.LIVE), "cannot find IOThread '4'"),
        (lambda: driver.domain_pin_iothread(ref, 4, b"\1", Affect.LIVE), "iothread 4 not found"),
        (lambda: driver.domain_set_iothread_params(ref, 5, {"poll_grow": 1}, BOTH), "persistent polling"),
        (
            lambda: driver.domain_set_iothread_params(ref, 5, {"thread_pool_min": 3}, BOTH),
            "greater than thread_pool_max",
        ),
    )
    for call, reason in refused:
        with pytest.raises(VirtError, match=reason):
            call()
    driver.domain_del_iothread(ref, 5, BOTH)
    assert [thread.number for thread in driver.domain_get_iothread_info(ref, Affect.CONFIG).info] == [1]
    assert live(driver, ref).iothreads == 1


def test_limits_are_of_definitions_and_refused_while_it_runs(driver: QemuDriver, ref: DomainRef) -> None:
    driver.domain_set_memory_parameters(ref, {"hard_limit": 4096}, Affect.CONFIG)
    driver.domain_set_scheduler_parameters_flags(ref, {"vcpu_period": 5000, "vcpu_quota": -1}, Affect.CONFIG)
    driver.domain_set_numa_parameters(ref, {"numa_nodeset": "0"}, Affect.CONFIG)
    driver.domain_set_blkio_parameters(ref, {"weight": 300}, Affect.CONFIG)
    driver.domain_set_perf_events(ref, {"cpu_cycles": True}, Affect.CONFIG)
    assert driver.domain_get_memory_parameters(ref, Affect.CONFIG)["hard_limit"] == 4096
    assert driver.domain_get_scheduler_parameters_flags(ref, Affect.CONFIG)["vcpu_period"] == 5000
    assert driver.domain_get_perf_events(ref, Affect.CONFIG)["cpu_cycles"]
    for call, message in (
        (
            lambda: driver.domain_set_memory_parameters(ref, {"hard_limit": 1 << 20}, Affect.LIVE),
            "cgroup memory controller is not mounted",
        ),
        (lambda: driver.domain_get_scheduler_type(ref), "cgroup CPU controller is not mounted"),
        (lambda: driver.domain_set_blkio_parameters(ref, {"weight": 300}, BOTH), "blkio cgroup isn't mounted"),
        (
            lambda: driver.domain_set_numa_parameters(ref, {"numa_nodeset": "0"}, BOTH),
            "cgroup cpuset controller is not mounted",
        ),
        (lambda: driver.domain_set_perf_events(ref, {"cmt": True}, BOTH), "unable to enable host cpu perf event"),
    ):
        with pytest.raises(VirtError, match=message) as caught:
            call()
        refusals = (ErrorCode.OPERATION_INVALID, ErrorCode.OPERATION_UNSUPPORTED, ErrorCode.ARGUMENT_UNSUPPORTED)
        assert caught.value.code in refusals
    assert not driver.domain_get_perf_events(ref, Affect.CONFIG)["cmt"]
    with pytest.raises(VirtError, match="out of range"):
        driver.domain_set_scheduler_parameters_flags(ref, {"vcpu_period": 5}, Affect.CONFIG)
