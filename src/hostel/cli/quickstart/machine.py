"""The machine of the tour: a real one under QEMU, or where that cannot be had one that is only kept in books."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, Protocol
from xml.etree import ElementTree

import hostel
from hostel import guest
from hostel.cli.guest import boot_count
from hostel.cli.quickstart.narrator import Narrator, StepFailed
from hostel.cli.quickstart.place import Place
from hostel.drivers.base import DomainState
from hostel.drivers.fault import printable
from hostel.units import MiB

NAME: Final = "quickstart"
DISK: Final = "pool/disk.qcow2"
SIZE: Final = 64 * MiB
_BOOT_SECONDS: Final = 120.0  # a guest needs 0.3 s; an emulated one on a busy host needs patience
_OFF_SECONDS: Final = 60.0
_KVM: Final = Path("/dev/kvm")


class Machine(Protocol):
    """What the tour does with a machine."""

    is_real: bool

    @property
    def proof(self) -> str:
        """What it has shown, in a sentence."""

    def install(self) -> None:
        """Define it on the disk, and start it."""

    def witness(self, boot: int) -> None:
        """See it boot, and count this boot.

        Raises:
            StepFailed: it did not, or counted otherwise.
        """

    def start(self) -> None:
        """Start it again."""

    def stop(self) -> None:
        """Shut it down, and wait until it is off."""

    def close(self) -> None:
        """Let go of what was held for it."""


class RealMachine:
    """A machine under QEMU; what its guest says on the serial port is the proof.

    Attributes:
        boots: the boot counts that the guest reported, in order.
        accelerator: ``KVM`` or ``TCG``.
    """

    is_real = True

    def __init__(self, say: Narrator, place: Place) -> None:
        self._say = say
        self._place = place
        self._connection = hostel.open()
        self.boots: list[int] = []
        self._heard = 0  # lines of the serial log that were shown
        self.accelerator = "TCG"

    @property
    def proof(self) -> str:
        """How often the guest booted, and what it counted."""
        emulator = f"QEMU {'.'.join(map(str, self._connection.version))} ({self.accelerator})"
        counts = ", ".join(map(str, self.boots))
        return f"PROVEN by the guest: it booted {len(self.boots)} times under {emulator} and counted {counts}"

    def install(self) -> None:
        """Define and start it with virt-install, under KVM where a guest really runs."""
        kind = self._choose()
        self._say.run(
            *("virt-install", "--name", NAME, "--virt-type", kind, "--memory", "32", "--vcpus", "1", "--import"),
            *("--disk", "vol=quick/disk.qcow2,bus=virtio"),
            *("--serial", f"pty,log.file={self._place.log},log.append=on"),
            *("--graphics", "vnc,listen=127.0.0.1", "--network", "none", "--osinfo", "freedos1.2", "--noautoconsole"),
        )

    def _choose(self) -> str:
        answer = self._say.answer("virsh", "capabilities")
        kinds = [element.get("type") for element in ElementTree.fromstring(answer).iterfind("guest/arch/domain")]
        if "kvm" in kinds:
            self.accelerator = "KVM"
            self._say.note("KVM runs guests here: a probe has booted in it")
            return "kvm"
        self._say.note(f"{_without_kvm()}: QEMU emulates the processor (TCG)")
        return "qemu"

    def witness(self, boot: int) -> None:
        """Wait for the guest's report on the serial port and hold it against what is expected."""
        self._say.wait("the guest boots and reports", self._has_spoken, _BOOT_SECONDS)
        for line in self._text().split("\n")[self._heard :]:
            if line.startswith("HOSTEL-GUEST"):
                self._say.note(f"serial port: {printable(line.strip())}")
        self._heard = self._text().count("\n")
        self._say.run("guest", "report", self._place.log.name)
        report = guest.parse_reports(self._text())[-1]
        if report.boot is not None:
            self.boots.append(report.boot)
        seen = (report.label, report.medium, report.drive.size, report.boot, report.ok)
        expected = (NAME, "disk", SIZE, boot, True)
        if seen != expected:
            raise StepFailed(f"the guest reported {seen}, where {expected} was expected")

    def _text(self) -> str:
        try:
            return self._place.log.read_bytes().decode("utf-8", "replace")
        except FileNotFoundError:
            return ""

    def _has_spoken(self) -> bool:
        reports = guest.parse_reports(self._text())
        if len(reports) > len(self.boots) and reports[-1].complete:
            return True
        state = self._connection.domain(NAME).state_info()
        if state.state is DomainState.SHUTOFF:
            raise StepFailed(f"the machine ended before its guest had reported{state.detail and ': ' + state.detail}")
        return False

    def start(self) -> None:
        """Start it again."""
        self._say.run("virsh", "start", NAME)

    def stop(self) -> None:
        """Press the power button, and wait until the guest has switched the machine off."""
        domain = self._connection.domain(NAME)
        self._say.run("virsh", "shutdown", NAME)
        self._say.wait("the machine is off", lambda: domain.state is DomainState.SHUTOFF, _OFF_SECONDS)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def _without_kvm() -> str:
    """Why KVM is not used."""
    if not _KVM.exists():
        return f"There is no {_KVM}"
    if not os.access(_KVM, os.R_OK | os.W_OK):
        return f"You may not use {_KVM} (the group kvm may)"
    return f"{_KVM} is there, but a guest that was started in it did not run"


class InventedMachine:
    """A machine of the test hypervisor, which is kept in memory and runs nothing.

    What its guest would have done to the disk is done by a command of ours, so that the images have something to show.
    """

    is_real = False
    _URI = "test:///default"

    def __init__(self, say: Narrator) -> None:
        self._say = say
        # The invented host is there for as long as somebody has it open.
        self._connection = hostel.open(self._URI)

    @property
    def proof(self) -> str:
        """What was left unproven."""
        return "DONE, but no guest has proven it: the images are real, the machine was not"

    def install(self) -> None:
        """Define and start it with virt-install on the test hypervisor."""
        self._say.run(
            *("virt-install", "--connect", self._URI, "--name", NAME, "--memory", "32", "--vcpus", "1", "--import"),
            *("--disk", f"path={DISK},bus=virtio", "--serial", "pty", "--graphics", "vnc,listen=127.0.0.1"),
            *("--network", "none", "--osinfo", "freedos1.2", "--noautoconsole"),
        )
        self._say.note("NOT REAL: the machine is an entry in memory")

    def witness(self, boot: int) -> None:
        """Do to the disk what the guest would have done."""
        self._say.run("guest", "count", "--up", "-f", "qcow2", DISK)
        counted = boot_count(DISK, "qcow2")
        if counted != boot:
            raise StepFailed(f"the disk counts {counted} boots, where {boot} were expected")
        self._say.note(f"NOT REAL: no guest ran; Hostel itself counted boot {boot} on the disk")

    def start(self) -> None:
        """Start it again."""
        self._say.run("virsh", "-c", self._URI, "start", NAME)

    def stop(self) -> None:
        """Shut it down, which here always works."""
        self._say.run("virsh", "-c", self._URI, "shutdown", NAME)

    def close(self) -> None:
        """Let the invented host go."""
        self._connection.close()
