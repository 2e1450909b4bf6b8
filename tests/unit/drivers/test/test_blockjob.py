"""Block jobs in memory: the clock moves them, and listeners hear of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from hostel.drivers.base import DomainRef
from hostel.drivers.base.block import BlockJobAbortFlag
from hostel.drivers.events import BlockJobStatus, BlockJobType, Listener
from hostel.drivers.test.blockjob import LENGTH
from hostel.drivers.test.host import Host
from hostel.drivers.test.hypervisor import TestDriver
from hostel.errors import ErrorCode, VirtError

COPY = "<disk type='file'><source file='/copy'/></disk>"


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
def driver(host: Host) -> TestDriver:
    return TestDriver(host, lambda: None)


@pytest.fixture
def listener(host: Host) -> Iterator[Listener]:
    with host.bus.listen() as heard:
        yield heard


def domain(driver: TestDriver) -> DomainRef:
    return driver.domain_lookup_by_name("test")


def heard(listener: Listener, kind: str) -> dict[str, object]:
    """What the next event of a kind tells."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        event = listener.get(0.1)
        if event is not None and event.kind == kind:
            return dict(event.detail)
    raise AssertionError(f"no {kind} event")


def test_a_job_is_as_far_as_its_limit_and_the_clock_allow(driver: TestDriver) -> None:
    driver.domain_block_rebase(domain(driver), "vda", bandwidth=1)
    first = driver.domain_get_block_job_info(domain(driver), "vda")
    assert first is not None
    assert (first.type, first.bandwidth, first.end) == (BlockJobType.PULL, 1 << 20, LENGTH)
    time.sleep(0.1)
    then = driver.domain_get_block_job_info(domain(driver), "vda")
    assert then is not None
    assert first.cur < then.cur < LENGTH // 2
    with pytest.raises(VirtError, match="already in active block job"):
        driver.domain_block_rebase(domain(driver), "vda")
    driver.domain_block_job_abort(domain(driver), "vda")
    assert driver.domain_get_block_job_info(domain(driver), "vda") is None


def test_a_copy_waits_for_the_pivot_and_the_disk_goes_over(driver: TestDriver, listener: Listener) -> None:
    ref = domain(driver)
    driver.domain_block_copy(ref, "vda", COPY, bandwidth=1 << 20)
    with pytest.raises(VirtError) as caught:
        driver.domain_block_job_abort(ref, "vda", BlockJobAbortFlag.PIVOT)
    assert caught.value.code is ErrorCode.BLOCK_COPY_ACTIVE
    driver.domain_block_job_set_speed(ref, "vda", LENGTH * 100)
    # Nobody asks how far it is: it tells by itself.
    said = heard(listener, "block-job-2")
    assert said == {"disk": "vda", "type": BlockJobType.COPY, "status": BlockJobStatus.READY}
    driver.domain_block_job_abort(ref, "vda", BlockJobAbortFlag.PIVOT)
    assert heard(listener, "block-job-2")["status"] == BlockJobStatus.COMPLETED
    assert "/copy" in driver.domain_get_xml_desc(ref)
    assert driver.domain_get_block_job_info(ref, "vda") is None


def test_a_pull_ends_by_itself(driver: TestDriver, listener: Listener) -> None:
    driver.domain_block_rebase(domain(driver), "vda", bandwidth=LENGTH >> 16)
    assert heard(listener, "block-job")["status"] == BlockJobStatus.COMPLETED
    assert driver.domain_get_block_job_info(domain(driver), "vda") is None


def test_nobody_waits_for_a_job_that_is_over(driver: TestDriver) -> None:
    before = set(threading.enumerate())
    for speed in (1, 2, 3):
        driver.domain_block_copy(domain(driver), "vda", COPY, bandwidth=speed)
        driver.domain_block_job_set_speed(domain(driver), "vda", speed + 1)
        driver.domain_block_job_abort(domain(driver), "vda")
    driver.domain_block_copy(domain(driver), "vda", COPY, bandwidth=1)
    driver.domain_destroy(domain(driver))
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
        assert not thread.is_alive()


def test_jobs_end_with_the_machine(driver: TestDriver) -> None:
    driver.domain_block_copy(domain(driver), "vda", COPY, bandwidth=1)
    driver.domain_destroy(domain(driver))
    driver.domain_create(domain(driver))
    assert driver.domain_get_block_job_info(domain(driver), "vda") is None
