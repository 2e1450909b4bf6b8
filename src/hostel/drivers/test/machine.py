"""Memory, processors and numbers of the test driver's domains, their keys and screens."""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from hostel.drivers.base import DomainRef
from hostel.drivers.base.device import InterfaceStats
from hostel.drivers.base.domain import Affect
from hostel.drivers.base.machine import MEMORY_STATS, MemoryFlag, Screenshot, StatsFlag, VcpuFlag
from hostel.drivers.base.messages import MessageFlag
from hostel.drivers.counting import check_one, not_zero
from hostel.drivers.fault import fault
from hostel.drivers.test.document import DomainDefinition
from hostel.drivers.test.host import Host, TestDomain
from hostel.drivers.test.impact import change_documents, settled_impact
from hostel.drivers.test.lifecycle import TEXT_OKAY, no_flags, ref_of, refused, running
from hostel.errors import ErrorCode, ErrorDomain
from hostel.model.domain.cpu import Vcpu
from hostel.model.domain.domain import Domain
from hostel.model.domain.memory import CurrentMemory, Memory

_MOST_VCPUS: Final = 32
_KNOWN_STATS: Final = StatsFlag.STATE | StatsFlag.IOTHREAD
_UPDATED: Final = 627319920  # seconds since 1970
# virKeycodeSet: its names, and the number after a set's last key.
_CODESETS: Final = ("linux", "xt", "atset1", "atset2", "atset3", "os_x", "xt_kbd", "usb", "win32", "qnum")
_KEYS: Final = 768
_WIDTH, _HEIGHT = 16, 12


class MachineCalls:
    """Implements :class:`hostel.drivers.base.machine.MachineDriver`, and interfaces' counters."""

    _host: Host

    def domain_set_memory_flags(
        self, domain: DomainRef, memory: int, affect: Affect, flags: MemoryFlag = MemoryFlag.NONE
    ) -> None:
        """Change the memory; the most that there may be only while the domain is off."""
        not_zero(memory)
        check_one(affect)
        with self._host.lock:
            found = self._host.domain(domain)
            settled = settled_impact(found, affect)
            if flags & MemoryFlag.MAXIMUM and settled & Affect.LIVE:
                what = "cannot resize the maximum memory on an active domain"
                raise refused(ErrorCode.OPERATION_INVALID, what)
            document = found.live if settled & Affect.LIVE else found.definition
            assert document is not None
            if not flags & MemoryFlag.MAXIMUM and memory > document.max_memory:
                raise refused(ErrorCode.INVALID_ARG, "cannot set memory higher than max memory")
            now = min(memory, document.memory) if flags & MemoryFlag.MAXIMUM else memory

            def change(it: Domain) -> None:
                if flags & MemoryFlag.MAXIMUM:
                    it.memory = Memory(unit="KiB", value=memory)
                it.current_memory = CurrentMemory(unit="KiB", value=now)

            change_documents(found, settled, change)

    def domain_set_vcpus_flags(
        self, domain: DomainRef, count: int, affect: Affect, flags: VcpuFlag = VcpuFlag.NONE
    ) -> None:
        """Change how many processors there are, or in the definition may be."""
        refused_flags = flags & (VcpuFlag.GUEST | VcpuFlag.HOTPLUGGABLE)
        if refused_flags:
            raise no_flags(refused_flags, "testDomainSetVcpusFlags")
        if count > _MOST_VCPUS:
            what = f"requested cpu amount exceeds maximum supported amount ({count} > {_MOST_VCPUS})"
            raise refused(ErrorCode.INVALID_ARG, what)
        with self._host.lock:
            found = self._host.domain(domain)
            settled = settled_impact(found, affect)
            if settled & Affect.LIVE:
                _check_vcpus(found.live, count)
            if settled & Affect.CONFIG and not flags & VcpuFlag.MAXIMUM:
                _check_vcpus(found.definition, count)
            if settled & Affect.LIVE:
                change_documents(found, Affect.LIVE, lambda it: _set_vcpus(it, count))
            if settled & Affect.CONFIG:
                maximum = bool(flags & VcpuFlag.MAXIMUM)
                change_documents(found, Affect.CONFIG, lambda it: _set_vcpus(it, count, maximum=maximum))

    def domain_memory_stats(self, domain: DomainRef) -> Mapping[str, int]:
        """Invented numbers, of a domain with a balloon."""
        with self._host.lock:
            document = running(self._host, domain).current
        if not _has_balloon(document.domain):
            return {}
        memory = document.memory
        given = {
            "actual": memory,
            "unused": memory // 2,
            "available": memory,
            "usable": memory // 2,
            "rss": memory // 2,
        }
        given |= {"last_update": _UPDATED, "disk_caches": memory // 8}
        order = ("actual", *(name for name in MEMORY_STATS if name not in ("actual", "rss")), "rss")
        return {name: given.get(name, 0) for name in order}

    def domain_set_memory_stats_period(self, domain: DomainRef, period: int, affect: Affect = Affect.CURRENT) -> None:
        """Write it into the document."""
        check_one(affect)

        def change(document: Domain) -> None:
            if not _has_balloon(document) or document.devices.memballoon is None:
                what = "No memory balloon device configured, can not set the collection period"
                raise refused(ErrorCode.INTERNAL_ERROR, what)
            document.devices.memballoon.stats_period = period or None

        with self._host.lock:
            found = self._host.domain(domain)
            change_documents(found, settled_impact(found, affect), change)

    def connect_get_all_domain_stats(
        self,
        domains: Sequence[DomainRef],
        stats: StatsFlag = StatsFlag.ALL,
        *,
        backing: bool = False,
        enforce: bool = False,
    ) -> list[tuple[DomainRef, Mapping[str, int | str]]]:
        """The state, and I/O threads of what runs: libvirt's test driver knows no more."""
        unknown = stats & ~_KNOWN_STATS
        if enforce and unknown:
            what = f"Stats types bits {int(unknown):#x} are not supported by this daemon"
            raise refused(ErrorCode.ARGUMENT_UNSUPPORTED, what)
        wanted = stats or _KNOWN_STATS
        with self._host.lock:
            found = [self._host.domain(ref) for ref in domains] or list(self._host.domains.values())
            return [(ref_of(each), _statistics(each, wanted)) for each in found]

    def domain_get_messages(self, domain: DomainRef, flags: MessageFlag = MessageFlag.NONE) -> list[str]:
        """None: nothing here is deprecated, or could taint."""
        with self._host.lock:
            self._host.domain(domain)
        return []

    def domain_screenshot(self, domain: DomainRef, screen: int = 0) -> Screenshot:
        """A small dark picture."""
        with self._host.lock:
            self._host.domain(domain)
        return Screenshot("image/png", _picture())

    def domain_send_key(self, domain: DomainRef, codeset: int, holdtime: int, keycodes: Sequence[int]) -> None:
        """Nobody feels them: what is asked is checked."""
        with self._host.lock:
            running(self._host, domain)
        for code in keycodes:
            if code >= _KEYS or codeset >= len(_CODESETS):
                name = _CODESETS[codeset] if codeset < len(_CODESETS) else str(codeset)
                raise refused(ErrorCode.INTERNAL_ERROR, f"invalid keycode {code} of {name} codeset")

    def domain_inject_nmi(self, domain: DomainRef) -> None:
        """Nothing happens."""
        with self._host.lock:
            running(self._host, domain)

    def domain_get_launch_security_info(self, domain: DomainRef) -> dict[str, Any]:
        """Refused, as by libvirt's: for the flag that everybody who asks gives."""
        raise no_flags(TEXT_OKAY, "testDomainGetLaunchSecurityInfo")

    def domain_qemu_monitor_command(
        self, domain: DomainRef, command: str, *, human: bool = False, files: Sequence[int] = ()
    ) -> str:
        """Refused: there is no QEMU."""
        raise refused(ErrorCode.NO_SUPPORT, f"virDomainQemuMonitorCommand{'WithFiles' if files else ''}")

    def domain_interface_stats(self, domain: DomainRef, device: str) -> InterfaceStats:
        """Numbers made from the time of day, as libvirt's are."""
        with self._host.lock:
            document = running(self._host, domain).current.domain
        for interface in document.devices.interfaces:
            mac = interface.mac.address if interface.mac is not None else ""
            name = interface.target.dev if interface.target is not None else None
            if device.lower() == mac.lower() or device == name:
                break
        else:
            raise fault(ErrorCode.INVALID_ARG, f"'{device}' is not a known interface", ErrorDomain.NONE)
        base = time.time_ns() // 1000
        second = base // 1_000_000
        return InterfaceStats(
            base // 10, base // 100, second, second // 2, base // 20, base // 110, second // 3, second // 4
        )


def _check_vcpus(document: DomainDefinition | None, count: int) -> None:
    vcpu = document.domain.vcpu if document is not None else None
    most = vcpu.value if vcpu is not None else 1
    if count > most:
        raise refused(ErrorCode.INVALID_ARG, f"requested cpu amount exceeds maximum ({count} > {most})")


def _set_vcpus(document: Domain, count: int, *, maximum: bool = False) -> None:
    vcpu = document.vcpu or Vcpu(value=1)
    present = vcpu.current or vcpu.value
    if maximum:
        vcpu.value = count
    present = min(present, count) if maximum else count
    vcpu.current = present if present != vcpu.value else None
    document.vcpu = vcpu


def _has_balloon(document: Domain) -> bool:
    return document.devices.memballoon is not None and document.devices.memballoon.model != "none"


def _statistics(found: TestDomain, wanted: StatsFlag) -> dict[str, int | str]:
    numbers: dict[str, int | str] = {}
    if wanted & StatsFlag.STATE:
        numbers |= {"state.state": int(found.state.state), "state.reason": int(found.state.reason)}
    if wanted & StatsFlag.IOTHREAD and found.live is not None:
        from hostel.drivers.tuning.iothread import entries

        threads = entries(found.live.domain)
        if threads:
            numbers["iothread.count"] = len(threads)
        for each in threads:
            for name, value in (("poll-max-ns", 32768), ("poll-grow", 0), ("poll-shrink", 0)):
                numbers[f"iothread.{each.id}.{name}"] = value
    return numbers


def _picture() -> bytes:
    """A PNG ("Portable Network Graphics", ISO/IEC 15948) of one grey."""
    rows = (b"\0" + b"\x30" * _WIDTH) * _HEIGHT
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", _WIDTH, _HEIGHT, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
