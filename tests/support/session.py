"""A session of our own under a test's directory: ``hostel.open`` on it, and domains that log their serial port."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import hostel
from hostel import guest
from hostel.drivers.base import DomainState
from hostel.drivers.base.block import BlockCopyFlag
from hostel.drivers.qemu.driver import QemuDriver
from hostel.drivers.qemu.machines import Machines
from hostel.drivers.qemu.running import Running
from hostel.drivers.qemu.status import Status
from hostel.drivers.store import Directories
from hostel.guest import Report
from hostel.objects import Connection, Domain


@contextlib.contextmanager
def session(home: Path) -> Iterator[Connection]:
    """Open the session under ``home``; what still runs in the end is destroyed."""
    with hostel.open("qemu:///session", Directories.under(home)) as connection:
        try:
            yield connection
        finally:
            for domain in connection.domains(active=True):
                domain.destroy()


def disk(
    path: Path, fmt: str = "raw", *, dev: str = "vda", bus: str = "virtio", more: str = "", words: str = ""
) -> str:
    """The element of a disk in a file; ``words`` are attributes of its driver, with a blank before each."""
    return (
        f"<disk type='file' device='disk'><driver name='qemu' type='{fmt}'{words}/><source file='{path}'/>"
        f"<target dev='{dev}' bus='{bus}'/>{more}</disk>"
    )


def copy_disk(driver: QemuDriver, home: Path, name: str = "guest") -> None:
    """Begin to copy a machine's disk ``vda`` into ``copy.img``."""
    copy = f"<disk type='file'><driver type='raw'/><source file='{home}/copy.img'/></disk>"
    driver.domain_block_copy(driver.domain_lookup_by_name(name), "vda", copy, flags=BlockCopyFlag.TRANSIENT_JOB)


def cdrom(path: Path | None, *, dev: str = "hdc", more: str = "") -> str:
    """The element of a CD-ROM drive, with a medium or empty."""
    source = f"<source file='{path}'/>" if path else ""
    return (
        f"<disk type='file' device='cdrom'><driver name='qemu' type='raw'/>{source}"
        f"<target dev='{dev}' bus='ide'/><readonly/>{more}</disk>"
    )


def domain_xml(home: Path, *devices: str, name: str = "guest", system: str = "", machine: str = "pc") -> str:
    """A domain whose serial port is logged to ``<name>.log`` under ``home``; ``system`` goes into ``<os>``.

    It has the same UUID each time, so that it can be defined anew.
    """
    return (
        f"<domain type='qemu'><name>{name}</name><uuid>{uuid.uuid5(uuid.NAMESPACE_URL, f'{home}/{name}')}</uuid>"
        "<memory unit='MiB'>32</memory><vcpu>1</vcpu>"
        f"<os><type arch='x86_64' machine='{machine}'>hvm</type>{system}</os><features><acpi/></features>"
        f"<devices>{''.join(devices)}"
        f"<serial type='pty'><log file='{log_of(home, name)}' append='on'/><target port='0'/></serial>"
        "</devices></domain>"
    )


def log_of(home: Path, name: str = "guest") -> Path:
    """Where the domain's serial port is logged."""
    return home / f"{name}.log"


@contextlib.contextmanager
def held(home: Path, name: str = "guest") -> Iterator[Running]:
    """A machine of the session under ``home``, as an operation of the driver has it, but without its lock."""
    machines = Machines(Directories.under(home))
    machine = Running(machines, Status.parse(machines.statuses.read(name) or ""))
    try:
        yield machine
    finally:
        machine.close()


def reports(home: Path, name: str = "guest") -> list[Report]:
    """What the guests have said so far, oldest first."""
    log = log_of(home, name)
    return guest.parse_reports(log.read_bytes().decode("utf-8", "replace")) if log.exists() else []


def run(domain: Domain, home: Path, *, timeout: float = 60) -> Report:
    """Start a domain whose guest switches itself off, wait for that, and return its report."""
    before = len(reports(home, domain.name))
    domain.start()
    domain.wait(DomainState.SHUTOFF, timeout)
    found = reports(home, domain.name)
    assert len(found) == before + 1, f"no guest spoke: {log_of(home, domain.name).read_bytes()!r}"
    return found[-1]


def wait_for_report(home: Path, count: int, name: str = "guest", *, timeout: float = 60) -> Report:
    """Wait until ``count`` boots were reported to the end; returns the last."""
    deadline = time.monotonic() + timeout
    while True:
        found = reports(home, name)
        if len(found) >= count and found[-1].complete:
            return found[-1]
        assert time.monotonic() < deadline, f"{len(found)} of {count} boots were reported after {timeout} s"
        time.sleep(0.01)
