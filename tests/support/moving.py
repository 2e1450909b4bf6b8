"""Two places that a domain moves between, each a session of its own on this host, and a guest that keeps count."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from hostel import guest
from hostel.drivers.base import DomainRef, DomainState
from hostel.drivers.qemu.driver import QemuDriver
from hostel.drivers.store import Directories
from hostel.errors import VirtError
from support import image
from support.session import disk, domain_xml, reports, wait_for_report

MIB = 1 << 20
PLACE: Final = (1024, 8, 7)  # LBA, sectors and seed of what a guest writes, and finds then
WORK: Final = [guest.Operation(code, *PLACE) for code in (guest.OperationCode.FILL, guest.OperationCode.VERIFY)]


class Two(NamedTuple):
    """Two sessions; the guest's serial port is logged to one file, wherever it runs."""

    home: Path
    one: QemuDriver
    other: QemuDriver

    def start(self, *more: str, size: int = MIB, mode: guest.Mode = guest.Mode.REBOOT, words: str = "") -> DomainRef:
        """Start a guest at the first one, with ``more`` devices: it boots for ever, and counts that on its disk."""
        path = self.home / "disk.qcow2"
        image.qemu_img("create", "-q", "-f", "qcow2", path, size)
        image.write(path, "qcow2", (0, guest.image(label="moving", mode=mode)))
        xml = domain_xml(self.home, disk(path, "qcow2", words=words), *more)
        ref = self.one.domain_create(self.one.domain_define_xml(xml))
        wait_for_report(self.home, 1)
        return ref

    def start_writing(self, path: Path) -> DomainRef:
        """Start a guest at the first one, on a new raw disk: it boots for ever, and writes at :data:`PLACE`."""
        path.write_bytes(guest.image(label="full", mode=guest.Mode.REBOOT, operations=WORK, size=MIB))
        ref = self.one.domain_create(self.one.domain_define_xml(domain_xml(self.home, disk(path))))
        wait_for_report(self.home, 1)
        return ref

    def running(self) -> list[QemuDriver]:
        """Where the guest's CPUs run."""
        return [driver for driver in (self.one, self.other) if state_of(driver) is DomainState.RUNNING]

    def goes_on(self, where: QemuDriver, name: str = "disk.qcow2") -> None:
        """The guest runs in one place only, and every boot was counted there is."""
        assert self.running() == [where]
        wait_for_report(self.home, len(reports(self.home)) + 2)
        where.domain_destroy(where.domain_lookup_by_name("guest"))
        boots = [report.boot for report in reports(self.home) if report.complete]
        assert boots == list(range(1, len(boots) + 1)), "a boot was lost, or happened twice"
        image.qemu_img("check", "-q", "-r", "leaks", "-f", "qcow2", self.home / name)
        content = image.content(self.home / name, "qcow2")
        state = guest.read_state(content[guest.state_offset() :][: guest.SECTOR])
        assert state.intact
        assert state.boot_count in (len(boots), len(boots) + 1)


def state_of(driver: QemuDriver, name: str = "guest") -> DomainState | None:
    """A domain's state; None where there is none."""
    try:
        return driver.domain_get_state(driver.domain_lookup_by_name(name)).state
    except VirtError:
        return None


@contextlib.contextmanager
def two(home: Path) -> Iterator[Two]:
    """Two sessions under a directory; what still runs in the end is destroyed."""
    both = Two(home, *(QemuDriver(Directories.under(home / name)) for name in ("one", "other")))
    try:
        yield both
    finally:
        for driver in (both.one, both.other):
            for ref in driver.connect_list_all_domains():
                if ref.id >= 0:
                    driver.domain_destroy(ref)


def eventually(what: Callable[[], bool], seconds: float = 30) -> bool:
    """Whether something comes true in time."""
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.05)
    return True
