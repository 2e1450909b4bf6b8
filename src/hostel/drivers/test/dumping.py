"""Dumps of the test driver's domains, which have no memory, and what follows when their guests end."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from hostel.drivers.adapters import check_flags
from hostel.drivers.base import DomainRef, ShutoffReason
from hostel.drivers.base.domain import Affect
from hostel.drivers.base.dumping import DumpFlag, DumpFormat
from hostel.drivers.base.peeking import PeekFlag, check_peek
from hostel.drivers.base.storage import Progress
from hostel.drivers.events import Stopped
from hostel.drivers.fault import fault, system_fault
from hostel.drivers.lifecycle import check_lifecycle, set_action
from hostel.drivers.test.document import DomainDefinition
from hostel.drivers.test.host import Host
from hostel.drivers.test.impact import settled_impact
from hostel.drivers.test.lifecycle import stop
from hostel.errors import ErrorCode, ErrorDomain

_MAGIC: Final = b"TestGuestMagic\0"
_SIGNALS: Final = 65


class DumpCalls:
    """Implements the protocols of :mod:`hostel.drivers.base.dumping`."""

    _host: Host

    def domain_core_dump_with_format(
        self,
        domain: DomainRef,
        to: str,
        format: int,
        flags: DumpFlag = DumpFlag.NONE,
        progress: Progress | None = None,
    ) -> None:
        """Write what libvirt's test driver writes, and with ``CRASH`` end the domain."""
        check_flags(flags, DumpFlag.CRASH, "testDomainCoreDumpWithFormat")
        with self._host.lock:
            found = self._host.domain(domain)
            settled_impact(found, Affect.LIVE)
            try:
                path = Path(to)
                path.touch(0o600)
                path.write_bytes(_MAGIC)
            except OSError as error:
                doing = f"domain '{domain.name}' coredump: failed to open {to}"
                raise system_fault(error, doing, ErrorDomain.TEST) from error
            if format != DumpFormat.RAW:
                what = "kdump-compressed format is not supported here"
                raise fault(ErrorCode.OPERATION_UNSUPPORTED, what, ErrorDomain.TEST)
            if flags & DumpFlag.CRASH:
                stop(self._host, found, ShutoffReason.CRASHED, Stopped.CRASHED)

    def domain_memory_peek(self, domain: DomainRef, offset: int, size: int, flags: PeekFlag) -> bytes:
        """Each byte is its address, as in libvirt's test driver."""
        check_peek(size, flags, ErrorDomain.TEST)
        with self._host.lock:
            settled_impact(self._host.domain(domain), Affect.LIVE)
        return bytes((offset + place) & 0xFF for place in range(size))

    def domain_send_process_signal(self, domain: DomainRef, pid: int, signal: int) -> None:
        """There is only the first process, and it does nothing about it."""
        if pid != 1:
            raise fault(ErrorCode.INVALID_ARG, "only sending a signal to pid 1 is supported", ErrorDomain.TEST)
        if signal >= _SIGNALS:
            raise fault(ErrorCode.INVALID_ARG, f"signum value {signal} is out of range", ErrorDomain.TEST)
        with self._host.lock:
            self._host.domain(domain)

    def domain_set_lifecycle_action(self, domain: DomainRef, type: int, action: int, affect: Affect) -> None:
        """Change what follows."""
        check_lifecycle(type, action)
        with self._host.lock:
            found = self._host.domain(domain)
            settled = settled_impact(found, affect)
            if settled & Affect.LIVE and found.live is not None:
                found.live = _changed(found.live, type, action)
            if settled & Affect.CONFIG:
                found.definition = _changed(found.definition, type, action)


def _changed(document: DomainDefinition, type: int, action: int) -> DomainDefinition:
    copy = document.domain.copy()
    set_action(copy, type, action)
    return DomainDefinition(copy)
