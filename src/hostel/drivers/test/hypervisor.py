"""Domains that nothing runs: libvirt's state rules and messages (``src/test/test_driver.c``)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from hostel.drivers.adapters import check_flags
from hostel.drivers.base import (
    ConsoleStream,
    DestroyFlag,
    DomainInfo,
    DomainRef,
    DomainState,
    DomainXmlFlag,
    PausedReason,
    RunningReason,
    SecurityLabel,
    SecurityModel,
    ShutdownFlag,
    ShutoffReason,
    StartFlag,
    StateInfo,
    UndefineFlag,
)
from hostel.drivers.document import canonical_uuid
from hostel.drivers.events import Defined, Lifecycle, Started, Stopped, Suspended
from hostel.drivers.fault import fault
from hostel.drivers.native import NativeCalls
from hostel.drivers.test.addresses import AddressCalls
from hostel.drivers.test.block import BlockCalls
from hostel.drivers.test.capabilities import format_capabilities
from hostel.drivers.test.checkpoint import CheckpointCalls
from hostel.drivers.test.counting import CountingCalls
from hostel.drivers.test.device import DeviceCalls
from hostel.drivers.test.document import parse_domain
from hostel.drivers.test.dumping import DumpCalls
from hostel.drivers.test.host import Host, TestDomain
from hostel.drivers.test.inside import InsideCalls
from hostel.drivers.test.lifecycle import no_flags, ref_of, refused, running, stop, tell
from hostel.drivers.test.machine import MachineCalls
from hostel.drivers.test.metadata import MetadataCalls
from hostel.drivers.test.processors import ProcessorCalls
from hostel.drivers.test.saving import SaveCalls
from hostel.drivers.test.snapshot import SnapshotCalls
from hostel.drivers.test.tuning import TuningCalls
from hostel.errors import ErrorCode, ErrorDomain


class TestDriver(
    AddressCalls,
    BlockCalls,
    CheckpointCalls,
    CountingCalls,
    DeviceCalls,
    DumpCalls,
    InsideCalls,
    MachineCalls,
    MetadataCalls,
    ProcessorCalls,
    SaveCalls,
    SnapshotCalls,
    TuningCalls,
    NativeCalls,
):
    """Implements :class:`hostel.drivers.base.HypervisorDriver` in memory."""

    __test__ = False  # not a test case, whatever its name says

    def __init__(self, host: Host, release: Callable[[], None]) -> None:
        self._host = host
        self._release = release
        self._close_lock = threading.Lock()
        self._is_closed = False

    def connect_get_type(self) -> str:
        """Always ``TEST``."""
        return "TEST"

    def connect_get_version(self) -> int:
        """Version 0.0.2, as libvirt's."""
        return 2

    def connect_get_hostname(self) -> str:
        """The real host's name."""
        import socket

        return socket.gethostname()

    def connect_get_capabilities(self) -> str:
        """The capabilities document."""
        return format_capabilities()

    def node_get_security_model(self) -> SecurityModel:
        """An invented one, as libvirt's."""
        return SecurityModel("testSecurity", "")

    def connect_list_all_domains(self) -> list[DomainRef]:
        """Every domain, running or defined."""
        with self._host.lock:
            return [ref_of(domain) for domain in self._host.domains.values()]

    def domain_lookup_by_name(self, name: str) -> DomainRef:
        """Find by name."""
        with self._host.lock:
            domain = self._host.domains.get(name)
            if domain is None:
                raise refused(ErrorCode.NO_DOMAIN, f"no domain with matching name '{name}'")
            return ref_of(domain)

    def domain_lookup_by_uuid(self, uuid: str) -> DomainRef:
        """Find by UUID."""
        with self._host.lock:
            for domain in self._host.domains.values():
                if domain.definition.uuid == canonical_uuid(uuid):
                    return ref_of(domain)
        raise refused(ErrorCode.NO_DOMAIN, f"no domain with matching uuid '{uuid}'")

    def domain_lookup_by_id(self, id: int) -> DomainRef:
        """Find a running domain by id."""
        with self._host.lock:
            for domain in self._host.domains.values():
                if domain.id == id and id != -1:
                    return ref_of(domain)
        raise refused(ErrorCode.NO_DOMAIN, f"no domain with matching id {id}")

    def domain_define_xml(self, xml: str) -> DomainRef:
        """Make or replace a persistent definition."""
        definition = parse_domain(xml)
        with self._host.lock:
            domain = self._host.same(definition)
            detail = Defined.ADDED if domain is None else Defined.UPDATED
            if domain is None:
                domain = TestDomain(definition, persistent=True)
                self._host.domains[definition.name] = domain
            domain.definition = definition
            domain.persistent = True
            tell(self._host, domain, Lifecycle.DEFINED, detail)
            return ref_of(domain)

    def domain_create_xml(self, xml: str, flags: StartFlag = StartFlag.NONE) -> DomainRef:
        """Start a transient domain."""
        _check_start(flags, "testDomainCreateXML")
        definition = parse_domain(xml)
        with self._host.lock:
            domain = self._host.same(definition)
            if domain is not None and domain.live is not None:
                what = f"domain '{definition.name}' is already active"
                raise fault(ErrorCode.OPERATION_INVALID, what, ErrorDomain.DOMAIN)
            if domain is None:
                domain = TestDomain(definition, persistent=False)
                self._host.domains[definition.name] = domain
            self._host.boot(domain)
            domain.live = definition
            self._start_paused(domain, flags)
            tell(self._host, domain, Lifecycle.STARTED, Started.BOOTED)
            return ref_of(domain)

    def domain_create(self, domain: DomainRef, flags: StartFlag = StartFlag.NONE) -> DomainRef:
        """Start a defined domain."""
        _check_start(flags, "testDomainCreateWithFlags")
        with self._host.lock:
            found = self._find(domain)
            if found.state.state is not DomainState.SHUTOFF:
                raise refused(ErrorCode.INTERNAL_ERROR, f"Domain '{domain.name}' is already running")
            self._host.boot(found)
            self._start_paused(found, flags)
            tell(self._host, found, Lifecycle.STARTED, Started.BOOTED)
            return ref_of(found)

    def domain_create_with_files(
        self, domain: DomainRef, files: Sequence[int], flags: StartFlag = StartFlag.NONE
    ) -> DomainRef:
        """Start a defined domain; it has no use for files."""
        return self.domain_create(domain, flags)

    def domain_create_xml_with_files(
        self, xml: str, files: Sequence[int], flags: StartFlag = StartFlag.NONE
    ) -> DomainRef:
        """Start a transient domain; it has no use for files."""
        return self.domain_create_xml(xml, flags)

    def domain_shutdown(self, domain: DomainRef, flags: ShutdownFlag = ShutdownFlag.NONE) -> None:
        """Shut down; this guest always obeys, and at once."""
        if flags:
            raise no_flags(flags, "testDomainShutdownFlags")
        with self._host.lock:
            found = self._find(domain)
            if found.state.state is DomainState.SHUTOFF:
                raise refused(ErrorCode.INTERNAL_ERROR, f"domain '{domain.name}' not running")
            self._guest_ended(found, ends=found.current.shutdown_ends)

    def domain_reboot(self, domain: DomainRef, flags: ShutdownFlag = ShutdownFlag.NONE) -> None:
        """Reboot; this guest always obeys, and at once."""
        with self._host.lock:
            found = running(self._host, domain)
            self._guest_ended(found, ends=found.current.reboot_ends)

    def domain_reset(self, domain: DomainRef) -> None:
        """Nothing is there to reset."""
        with self._host.lock:
            running(self._host, domain)

    def domain_suspend(self, domain: DomainRef) -> None:
        """Pause."""
        with self._host.lock:
            found = self._find(domain)
            if found.state.state in (DomainState.SHUTOFF, DomainState.PAUSED):
                raise refused(ErrorCode.INTERNAL_ERROR, f"domain '{domain.name}' not running")
            found.state = StateInfo(DomainState.PAUSED, PausedReason.USER)
            tell(self._host, found, Lifecycle.SUSPENDED, Suspended.PAUSED)

    def domain_resume(self, domain: DomainRef) -> None:
        """Run on."""
        with self._host.lock:
            found = self._find(domain)
            if found.state.state is not DomainState.PAUSED:
                raise refused(ErrorCode.INTERNAL_ERROR, f"domain '{domain.name}' not paused")
            found.state = StateInfo(DomainState.RUNNING, RunningReason.UNPAUSED)
            tell(self._host, found, Lifecycle.RESUMED, 0)

    def domain_destroy(self, domain: DomainRef, flags: DestroyFlag = DestroyFlag.DEFAULT) -> None:
        """End the domain; a transient one is gone afterwards."""
        check_flags(flags, DestroyFlag.GRACEFUL, "testDomainDestroyFlags")
        with self._host.lock:
            stop(self._host, running(self._host, domain), ShutoffReason.DESTROYED, Stopped.DESTROYED)

    def domain_undefine(self, domain: DomainRef, flags: UndefineFlag = UndefineFlag.NONE) -> None:
        """Drop the definition; a running domain becomes transient."""
        with self._host.lock:
            check_flags(flags, UndefineFlag.MANAGED_SAVE | UndefineFlag.SNAPSHOTS_METADATA, "testDomainUndefineFlags")
            found = self._find(domain)
            if found.saved and not flags & UndefineFlag.MANAGED_SAVE:
                what = "Refusing to undefine while domain managed save image exists"
                raise refused(ErrorCode.OPERATION_INVALID, what)
            kept = len(found.snapshots.documents)
            if found.live is None and kept and not flags & UndefineFlag.SNAPSHOTS_METADATA:
                what = f"cannot delete inactive domain with {kept} snapshots"
                raise refused(ErrorCode.OPERATION_INVALID, what)
            found.persistent = found.saved = False
            if found.live is None:
                del self._host.domains[found.definition.name]
            tell(self._host, found, Lifecycle.UNDEFINED, 0)

    def domain_get_xml_desc(self, domain: DomainRef, flags: DomainXmlFlag = DomainXmlFlag.NONE) -> str:
        """The live document, or with ``INACTIVE`` the definition; without passwords unless ``SECURE``."""
        check_flags(flags, ~DomainXmlFlag.UPDATE_CPU, "testDomainGetXMLDesc")
        secure = bool(flags & DomainXmlFlag.SECURE)
        with self._host.lock:
            found = self._find(domain)
            if found.live is None or (flags & DomainXmlFlag.INACTIVE and found.persistent):
                return found.definition.format(secure=secure)
            return found.live.format(-1 if flags & DomainXmlFlag.INACTIVE else found.id, secure=secure)

    def domain_get_os_type(self, domain: DomainRef) -> str:
        """``linux``, whatever the document says: libvirt's test driver answers so."""
        with self._host.lock:
            self._find(domain)
        return "linux"

    def domain_get_security_label(self, domain: DomainRef) -> SecurityLabel:
        """An invented one while the domain runs."""
        with self._host.lock:
            running = self._find(domain).live is not None
        return SecurityLabel("libvirt-test" if running else "", enforcing=running)

    def domain_get_info(self, domain: DomainRef) -> DomainInfo:
        """State, memory and CPUs; the CPU time is the time of day."""
        with self._host.lock:
            found = self._find(domain)
            current = found.current
            return DomainInfo(found.state.state, current.max_memory, current.memory, current.vcpus, time.time_ns())

    def domain_get_state(self, domain: DomainRef) -> StateInfo:
        """State with its reason."""
        with self._host.lock:
            return self._find(domain).state

    def domain_is_persistent(self, domain: DomainRef) -> bool:
        """Whether a definition exists."""
        with self._host.lock:
            return self._find(domain).persistent

    def domain_get_autostart(self, domain: DomainRef) -> bool:
        """Whether it is marked."""
        with self._host.lock:
            return self._find(domain).autostart

    def domain_set_autostart(self, domain: DomainRef, autostart: bool) -> None:
        """Mark it; libvirt's test driver takes this of transient domains too."""
        with self._host.lock:
            self._find(domain).autostart = autostart

    def domain_open_console(
        self, domain: DomainRef, device: str | None = None, *, force: bool = False
    ) -> ConsoleStream:
        """Refused: nothing runs, so nothing speaks."""
        with self._host.lock:
            self._find(domain)
        raise refused(ErrorCode.NO_SUPPORT, "virDomainOpenConsole")

    def connect_autostart(self) -> list[DomainRef]:
        """Start every domain marked for it that is not running."""
        with self._host.lock:
            started = [found for found in self._host.domains.values() if found.autostart and found.live is None]
            for domain in started:
                self._host.boot(domain)
                tell(self._host, domain, Lifecycle.STARTED, Started.BOOTED)
            return [ref_of(domain) for domain in started]

    def close(self) -> None:
        """Give the host back; once is enough."""
        with self._close_lock:
            if self._is_closed:
                return
            self._is_closed = True
        self._release()

    def _find(self, ref: DomainRef) -> TestDomain:
        return self._host.domain(ref)

    @staticmethod
    def _start_paused(domain: TestDomain, flags: StartFlag) -> None:
        if flags & StartFlag.PAUSED:
            domain.state = StateInfo(DomainState.PAUSED, PausedReason.USER)

    def _guest_ended(self, domain: TestDomain, *, ends: bool) -> None:
        if ends:
            stop(self._host, domain, ShutoffReason.SHUTDOWN, Stopped.SHUTDOWN)
        else:
            domain.state = StateInfo(DomainState.RUNNING, RunningReason.BOOTED)


def _check_start(flags: StartFlag, function: str) -> None:
    """Refuse what libvirt's test driver refuses, but for ``PAUSED``."""
    check_flags(flags, StartFlag.PAUSED, function)
