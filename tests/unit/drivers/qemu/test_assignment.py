"""Who has which PCI function of the host, and what of it is given back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hostel.drivers import procstat
from hostel.drivers.qemu import document, hostdevs
from hostel.drivers.qemu.assignment import Assignment
from hostel.drivers.qemu.machines import Machines
from hostel.drivers.qemu.status import Status
from hostel.drivers.store import Directories
from hostel.errors import VirtError
from hostel.model.domain.domain import Domain
from support.domain import QEMU

CARD = "0000:02:00.0"


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A host with a card that its kernel drives, and one that VFIO has; there is no kernel that would act."""
    root = tmp_path / "host"
    for driver in ("vfio-pci", "e1000e"):
        (root / "sys/bus/pci/drivers" / driver).mkdir(parents=True)
        (root / "sys/bus/pci/drivers" / driver / "unbind").touch()
    for name, driver, group in (("0000:01:00.0", "vfio-pci", 1), (CARD, "e1000e", 2)):
        folder = root / "sys/bus/pci/devices" / name
        members = root / f"sys/kernel/iommu_groups/{group}/devices"
        folder.mkdir(parents=True)
        (members / name).mkdir(parents=True)
        (folder / "driver_override").touch()
        (folder / "driver").symlink_to(root / "sys/bus/pci/drivers" / driver)
        (folder / "iommu_group").symlink_to(members.parent)
    return root


@pytest.fixture
def machines(tmp_path: Path) -> Machines:
    return Machines(Directories.under(tmp_path / "home"))


@pytest.fixture
def assignment(machines: Machines, host: Path) -> Assignment:
    found = Assignment(machines, host)
    machines.release = found.release
    return found


def machine(name: str, bus: int, managed: str = "no") -> Domain:
    source = f"<source><address domain='0' bus='{bus}' slot='0' function='0'/></source>"
    device = f"<hostdev mode='subsystem' type='pci' managed='{managed}'>{source}</hostdev>"
    head = f"<domain type='qemu'><name>{name}</name><memory>1</memory><os><type>hvm</type></os>"
    return document.parse(f"{head}<devices>{device}</devices></domain>", QEMU)


def take(assignment: Assignment, machines: Machines, domain: Domain, *, pid: int) -> None:
    started = procstat.start_time(pid) or 0 if pid else 0
    status = Status(domain, 1, pid, started, str(machines.directories.state / "none"), 0)
    devices = hostdevs.of_host(domain)
    assignment.take(domain, devices, lambda: machines.statuses.write(domain.name, status.format()))


def test_a_function_is_of_one_machine_while_that_runs(assignment: Assignment, machines: Machines) -> None:
    take(assignment, machines, machine("a", 1), pid=os.getpid())
    assert (assignment.user_of("0000:01:00.0"), assignment.user_of(CARD)) == ("a", None)
    with pytest.raises(VirtError, match="is in use by driver QEMU, domain a"):
        take(assignment, machines, machine("b", 1), pid=os.getpid())
    assert machines.statuses.read("b") is None


def test_a_function_is_of_who_is_being_started(assignment: Assignment, machines: Machines) -> None:
    take(assignment, machines, machine("a", 1), pid=0)
    with machines.locked("a"), pytest.raises(VirtError, match="is in use by driver QEMU, domain a"):
        take(assignment, machines, machine("b", 1), pid=os.getpid())
    take(assignment, machines, machine("b", 1), pid=os.getpid())  # who was starting it is no more
    assert machines.statuses.read("a") is None


def test_what_was_begun_is_taken_back(assignment: Assignment, machines: Machines, host: Path) -> None:
    domain = machine("a", 2, "yes")
    with pytest.raises(VirtError, match="vfio-pci did not take it"):
        take(assignment, machines, domain, pid=0)
    override = host / "sys/bus/pci/devices" / CARD / "driver_override"
    assert override.read_text() == "vfio-pci"
    assignment.settle(domain)
    assert override.read_text() == "vfio-pci", "its document has it"
    domain.devices.hostdevs.clear()
    assignment.settle(domain)
    assert override.read_text() == "\n"
    override.write_text("")
    assignment.release(domain)
    assert override.read_text() == "", "it is given back once"


def test_what_cannot_be_given_back_is_logged(assignment: Assignment, machines: Machines, host: Path) -> None:
    domain = machine("a", 2, "yes")
    with pytest.raises(VirtError):
        take(assignment, machines, domain, pid=0)
    (host / "sys/bus/pci/drivers_probe").unlink()
    (host / "sys/bus/pci/drivers_probe").mkdir()
    assignment.release(domain)
    assert f"PCI device {CARD} is not as it was before: Failed to trigger a probe" in machines.log("a").read_text()


def test_what_vfio_had_stays_with_it(assignment: Assignment, machines: Machines, host: Path) -> None:
    domain = machine("a", 1, "yes")
    take(assignment, machines, domain, pid=os.getpid())
    assignment.release(domain)
    assert (host / "sys/bus/pci/devices/0000:01:00.0/driver_override").read_text() == ""
