"""``qemu:///session`` in process: every call finds the truth on disk and in QEMU, and keeps nothing in memory."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hostel.drivers import procstat
from hostel.drivers.base import (
    DestroyFlag,
    DomainInfo,
    DomainRef,
    DomainState,
    DomainXmlFlag,
    NetworkDriver,
    PausedReason,
    RunningReason,
    SecurityLabel,
    SecurityModel,
    ShutoffReason,
    StartFlag,
    StorageDriver,
    UndefineFlag,
)
from hostel.drivers.base.nwfilter import NwfilterDriver
from hostel.drivers.base.saving import SaveFlag
from hostel.drivers.boot import Missed, nobody, noting
from hostel.drivers.deferred import deferred
from hostel.drivers.events import Defined, Event, EventSource, Lifecycle, Subject
from hostel.drivers.fault import fault, system_fault
from hostel.drivers.qemu import document, ports, probe, process, savefile
from hostel.drivers.qemu.addresses import AddressCalls
from hostel.drivers.qemu.agent import AgentCalls
from hostel.drivers.qemu.balloon import refresh
from hostel.drivers.qemu.block.copy import CopyCalls
from hostel.drivers.qemu.block.jobs import JobCalls
from hostel.drivers.qemu.block.sizes import SizeCalls
from hostel.drivers.qemu.block.switching import is_switching
from hostel.drivers.qemu.blockjob import settle_switches
from hostel.drivers.qemu.calls import no_domain
from hostel.drivers.qemu.console import CharacterCalls
from hostel.drivers.qemu.counting import CountingCalls
from hostel.drivers.qemu.cpu.calls import ProcessorCalls
from hostel.drivers.qemu.dumping import DumpCalls
from hostel.drivers.qemu.files import DescriptorCalls
from hostel.drivers.qemu.graphics import GraphicsCalls
from hostel.drivers.qemu.guest import GuestCalls
from hostel.drivers.qemu.hostinfo import HostInfoCalls
from hostel.drivers.qemu.inside import InsideCalls
from hostel.drivers.qemu.jobinfo import DomainJobCalls
from hostel.drivers.qemu.lifecycle import LifecycleCalls
from hostel.drivers.qemu.lockmanager import holding
from hostel.drivers.qemu.machines import GLANCE, LOCK_SECONDS, DomainHeld, Machines, failed, invalid
from hostel.drivers.qemu.message import MessageCalls
from hostel.drivers.qemu.metadata import MetadataCalls
from hostel.drivers.qemu.migration.sweeping import sweep
from hostel.drivers.qemu.native import ArgumentCalls
from hostel.drivers.qemu.origin import BOOT, Origin
from hostel.drivers.qemu.peeking import PeekCalls
from hostel.drivers.qemu.plug.calls import DeviceCalls
from hostel.drivers.qemu.power import PowerCalls, awake
from hostel.drivers.qemu.rename import RenameCalls, settle_renames
from hostel.drivers.qemu.running import Running
from hostel.drivers.qemu.saving import SAVING, SaveCalls, unfinished
from hostel.drivers.qemu.snapshot.calls import SnapshotCalls
from hostel.drivers.qemu.statistics import StatisticsCalls
from hostel.drivers.qemu.status import Ending
from hostel.drivers.qemu.tuning.iothread import IoThreadCalls
from hostel.drivers.qemu.tuning.limits import LimitsCalls
from hostel.drivers.qemu.tuning.pinning import PinningCalls
from hostel.drivers.qemu.vcpu import VcpuCalls
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.actual import actual
from hostel.model.domain.devices.source import DiskSource
from hostel.model.domain.domain import Domain
from hostel.model.domain.inactive import forget_run, hide_chains, hide_finding
from hostel.model.domain.secure import hide_passwords
from hostel.model.domain.volumes import name_volumes

if TYPE_CHECKING:
    from hostel.drivers.qemu.confinement.module import SecurityModule
    from hostel.drivers.qemu.launch import Launcher
    from hostel.drivers.qemu.wiring import Wiring

_REMOVED: Final = {"event": int(Lifecycle.UNDEFINED), "detail": 0}


def _origin(flags: StartFlag) -> Origin:
    return BOOT._replace(reset_nvram=bool(flags & StartFlag.RESET_NVRAM))


def _wiring(network: NetworkDriver | None, nwfilter: NwfilterDriver | None, directories: Directories) -> Wiring:
    from hostel.drivers.qemu.wiring import Wiring

    return Wiring(network, nwfilter, directories)


def _launcher(
    machines: Machines,
    directories: Directories,
    storage: StorageDriver | None,
    network: NetworkDriver | None,
    wiring: Wiring,
) -> Launcher:
    from hostel.drivers.qemu.firmware.descriptor import DIRECTORIES
    from hostel.drivers.qemu.launch import Launcher
    from hostel.drivers.storage.secret import secrets_of

    own = directories.config.parent / "qemu" / "firmware"
    firmware = DIRECTORIES if directories == Directories.system() else (*DIRECTORIES, own)
    return Launcher(machines, directories.cache / "qemu", storage, network, secrets_of(directories), firmware, wiring)


def _remove_variables(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise system_fault(error, f"failed to remove nvram: {path}", ErrorDomain.QEMU) from error


class QemuDriver(
    DeviceCalls,
    JobCalls,
    CopyCalls,
    SizeCalls,
    SaveCalls,
    SnapshotCalls,
    GuestCalls,
    CountingCalls,
    DumpCalls,
    PeekCalls,
    LifecycleCalls,
    PinningCalls,
    IoThreadCalls,
    LimitsCalls,
    GraphicsCalls,
    CharacterCalls,
    MetadataCalls,
    StatisticsCalls,
    AgentCalls,
    InsideCalls,
    PowerCalls,
    VcpuCalls,
    MessageCalls,
    AddressCalls,
    DomainJobCalls,
    RenameCalls,
    ArgumentCalls,
    ProcessorCalls,
    HostInfoCalls,
    DescriptorCalls,
):
    """Domains under real QEMU; see :class:`hostel.drivers.base.HypervisorDriver` for each call."""

    def __init__(
        self,
        directories: Directories,
        *,
        storage: StorageDriver | None = None,
        network: NetworkDriver | None = None,
        nwfilter: NwfilterDriver | None = None,
    ) -> None:
        self._cache = directories.cache / "qemu"
        machines = Machines(directories)
        wiring = deferred(lambda: _wiring(network, nwfilter, directories))
        launcher = deferred(lambda: _launcher(machines, directories, storage, network, wiring))
        machines.release = lambda domain: launcher.release(domain)
        super().__init__(machines, launcher, storage, network)

    def user_of_function(self, name: str) -> str | None:
        """The running machine that has a PCI function of the host, by the function's name; None where none has."""
        return self._launcher.assignment.user_of(name)

    @property
    def events(self) -> EventSource:
        """What happens to the domains of this session, whoever does it."""
        from hostel.drivers.qemu.watch import WatchedBus

        return WatchedBus(self._bus, self._machines, self._settled)

    def connect_get_type(self) -> str:
        """``QEMU``."""
        return "QEMU"

    def connect_get_version(self) -> int:
        """QEMU's version."""
        from hostel.drivers.qemu.architecture import find_emulator

        return probe.version(find_emulator())

    def connect_get_hostname(self) -> str:
        """The host's name."""
        return socket.gethostname()

    def connect_get_capabilities(self) -> str:
        """The host and what guests it runs."""
        from hostel.drivers.qemu.capabilities import capabilities
        from hostel.drivers.qemu.ownership.files import identity_of

        identity = identity_of(self._machines)
        owner, modules = identity.owner if identity is not None else None, self._security_modules()
        return capabilities(self._cache, owner=owner, modules=modules).format()

    def _security_modules(self) -> list[SecurityModule]:
        """The kernel's modules that machines which start are kept by."""
        from hostel.drivers.qemu.confinement.module import known

        return known(self._machines, self._launcher.settings())

    def node_get_security_model(self) -> SecurityModel:
        """The first that there is: the kernel's, or nothing; owners come beside it."""
        return SecurityModel(next((each.model for each in self._security_modules()), "none"), "0")

    def connect_list_all_domains(self) -> list[DomainRef]:
        """Every domain whose documents can be read."""
        settle_renames(self._machines)
        sweep(self._machines)
        return self._machines.refs()

    def domain_lookup_by_name(self, name: str) -> DomainRef:
        """Find by name."""
        settle_renames(self._machines)
        try:
            ref = self._machines.ref(name)
        except VirtError as error:
            if error.code != ErrorCode.XML_ERROR or not self._unusable(name):
                raise
            ref = None
        if ref is None:
            raise no_domain(f"name '{name}'")
        return ref

    def _unusable(self, name: str) -> bool:
        try:
            self._machines.definitions.path(name)
        except VirtError:
            return True
        return False

    def domain_lookup_by_uuid(self, uuid: str) -> DomainRef:
        """Find by UUID."""
        for ref in self.connect_list_all_domains():
            if ref.uuid == uuid.lower():
                return ref
        raise no_domain(f"uuid '{uuid}'")

    def domain_lookup_by_id(self, id: int) -> DomainRef:
        """Find a running domain by id."""
        for ref in self._machines.refs():
            if ref.id == id and id >= 0:
                return ref
        raise no_domain(f"id {id}")

    def domain_define_xml(self, xml: str) -> DomainRef:
        """Make a persistent definition, or replace the one that has the same name and UUID.

        Raises:
            VirtError: ``OPERATION_FAILED``: another domain has the name or the UUID.
        """
        domain = document.parse_stored(xml)
        name = domain.name
        self._launcher.finish(domain)
        with self._machines.locked(name):
            live = self._machines.live(name)
            if live is None:
                self._settle_snapshots(name)
            with self._machines.definitions.locked():
                self._machines.definitions.sweep()
                self._check_clash(domain)
                is_new = not self._machines.definitions.has(name)
                self._machines.definitions.write(name, domain.format())
            domain.id = live.id if live else None
            detail = Defined.ADDED if is_new and live is None else Defined.UPDATED
            self._machines.publish(domain, "lifecycle", event=int(Lifecycle.DEFINED), detail=int(detail))
        return DomainRef(name, domain.uuid or "", live.id if live else -1)

    def domain_create_xml(self, xml: str, flags: StartFlag = StartFlag.NONE) -> DomainRef:
        """Start a transient domain."""
        found = document.parse_stored(xml)
        self._launcher.finish(found)
        with self._machines.locked(found.name):
            if self._machines.live(found.name) is not None:
                raise fault(ErrorCode.OPERATION_INVALID, f"domain '{found.name}' is already active", ErrorDomain.DOMAIN)
            self._settle_snapshots(found.name)
            self._check_clash(found)
            status = self._launcher.start(found, paused=bool(flags & StartFlag.PAUSED), origin=_origin(flags))
        return DomainRef(found.name, found.uuid or "", status.id)

    def domain_create(self, domain: DomainRef, flags: StartFlag = StartFlag.NONE) -> DomainRef:
        """Start a defined domain."""
        with self._machines.locked(domain.name):
            live = self._machines.live(domain.name)
            self._check_is(domain)
            if live is not None:
                raise invalid("domain is already running")
            self._settle_snapshots(domain.name)
            stored = self._machines.definition(domain.name)
            if stored is None:
                raise no_domain(f"name '{domain.name}'")
            saved = self._machines.saved(domain.name)
            if flags & StartFlag.FORCE_BOOT:
                savefile.remove(saved)
            if savefile.is_kept(saved):
                return self._start_saved(stored, saved, flags)
            status = self._launcher.start(stored, paused=bool(flags & StartFlag.PAUSED), origin=_origin(flags))
        return DomainRef(domain.name, stored.uuid or "", status.id)

    def _start_saved(self, stored: Domain, path: Path, flags: StartFlag) -> DomainRef:
        """Go on from saved memory, which is used up by it.

        Raises:
            VirtError: it is damaged, or another machine's; it stays then.
        """
        saved = savefile.read_kept(path, stored)
        how = SaveFlag.PAUSED if flags & StartFlag.PAUSED else SaveFlag.NONE
        how |= SaveFlag.RESET_NVRAM if flags & StartFlag.RESET_NVRAM else SaveFlag.NONE
        how |= SaveFlag.BYPASS_CACHE if flags & StartFlag.BYPASS_CACHE else SaveFlag.NONE
        return self._restore(document.parse_stored(saved.xml), path, saved, how, use_up=True)

    def domain_suspend(self, domain: DomainRef) -> None:
        """Stop the virtual CPUs."""
        with self._running(domain, moving=True) as machine:
            awake(machine)
            machine.save(paused=int(PausedReason.USER))
            holding.stop(machine)

    def domain_resume(self, domain: DomainRef) -> None:
        """Let the virtual CPUs run on."""
        from hostel.drivers.qemu.migration.settling import take_back

        with self._running(domain) as machine:
            if awake(machine).get("running"):
                raise invalid("domain is already running")
            savefile.remove(self._machines.saved(domain.name))  # who restored it may have died before
            machine.save(running=int(RunningReason.UNPAUSED))  # which those who watch it tell as it runs
            if machine.status.migration is not None:  # whose end its owner decides now
                take_back(machine)
            holding.run(machine)
            machine.save(paused=0, migration=None)

    def domain_destroy(self, domain: DomainRef, flags: DestroyFlag = DestroyFlag.DEFAULT) -> None:
        """End QEMU now, also one that hangs; what was left of it is then as where QEMU has died."""
        from hostel.drivers.qemu.destroying import HELD_SECONDS, end_held

        try:
            self._destroy(domain, flags, wait=HELD_SECONDS)
        except DomainHeld:
            self._check_is(domain)
            if not end_held(self._machines, domain.name, flags):
                self._destroy(domain, flags)

    def _destroy(self, domain: DomainRef, flags: DestroyFlag, *, wait: float = LOCK_SECONDS) -> None:
        """End QEMU, with the domain's lock; ``wait`` is how many seconds an operation has to end that has it."""
        with self._running(domain, moving=True, ends=True, wait=wait, patience=2 * GLANCE) as machine:
            if is_switching(machine.status) and not flags & DestroyFlag.GRACEFUL:
                try:
                    settle_switches(machine)
                except VirtError:
                    machine.reread()
            status = machine.status
            with contextlib.suppress(VirtError):  # a disk that is full keeps nobody from ending a machine
                machine.save(ending="destroyed")
            if not process.end(status.pid, status.started, kill=not flags & DestroyFlag.GRACEFUL):
                machine.save(ending=status.ending if status.ending.startswith(SAVING) else "")
                raise failed(f"QEMU, process {status.pid}, does not end")
            process.exit_status(Path(status.run), 2)
            for file in unfinished(status):
                savefile.discard(file)
            machine.publish("lifecycle", event=int(Lifecycle.SHUTDOWN), detail=2)
            machine.forget(self._machines.arrived(domain.name, status, Ending(ShutoffReason.DESTROYED, "")))
            if flags & DestroyFlag.REMOVE_LOGS:
                self._machines.remove_logs(domain.name)

    def domain_undefine(self, domain: DomainRef, flags: UndefineFlag = UndefineFlag.NONE) -> None:
        """Drop the definition; a running domain becomes transient."""
        from hostel.drivers.qemu.backup.checkpoints import Checkpoints
        from hostel.drivers.qemu.firmware import nvram
        from hostel.drivers.qemu.helper import tpm
        from hostel.drivers.qemu.snapshot.catalog import Catalog

        if flags & UndefineFlag.NVRAM and flags & UndefineFlag.KEEP_NVRAM:
            raise invalid("cannot both keep and delete nvram")
        if flags & UndefineFlag.TPM and flags & UndefineFlag.KEEP_TPM:
            raise invalid("cannot both keep and delete TPM")
        with self._machines.locked(domain.name), self._machines.definitions.locked():
            live = self._machines.live(domain.name)
            self._check_is(domain)
            saved = self._machines.saved(domain.name)
            if live is None and savefile.is_kept(saved) and not flags & UndefineFlag.MANAGED_SAVE:
                raise invalid("Refusing to undefine while domain managed save image exists")
            snapshots = Catalog(self._machines, domain.name).names()
            if live is None and (count := len(snapshots)) and not flags & UndefineFlag.SNAPSHOTS_METADATA:
                raise invalid(f"cannot delete inactive domain with {count} snapshots")
            checkpoints = Checkpoints(self._machines, domain.name).all()
            if live is None and (count := len(checkpoints)) and not flags & UndefineFlag.CHECKPOINTS_METADATA:
                raise invalid(f"cannot delete inactive domain with {count} checkpoints")
            if not self._machines.definitions.has(domain.name):
                raise invalid("cannot undefine transient domain") if live else no_domain(f"name '{domain.name}'")
            readable = self._readable(domain.name)
            variables = None
            if readable is not None:
                variables = nvram.file_of(readable.os, self._machines.variables(domain.name))
            if variables is not None and not variables.exists():
                variables = None
            if variables is not None and not flags & (UndefineFlag.NVRAM | UndefineFlag.KEEP_NVRAM):
                raise invalid("cannot undefine domain with nvram; say --nvram to remove it, or --keep-nvram")
            # The definition goes last: who is killed before leaves nothing that another domain would take for its own.
            savefile.remove(saved)
            if live is None:
                self._machines.forget_moments(domain.name)
            self._machines.autostarts.remove(domain.name)
            self._machines.endings.remove(domain.name)
            self._machines.completed.remove(domain.name)
            self._machines.agent_timeouts.remove(domain.name)
            self._machines.speeds.remove(domain.name)
            if variables is not None and flags & UndefineFlag.NVRAM:
                _remove_variables(variables)
            if readable is not None and live is None:
                keeps, removes = bool(flags & UndefineFlag.KEEP_TPM), bool(flags & UndefineFlag.TPM)
                tpm.drop(readable, self._machines.tpm_state(readable.uuid or ""), remove=removes, keep=keeps)
            self._machines.definitions.remove(domain.name)
            event = Event(Subject.DOMAIN, "lifecycle", domain.name, domain.uuid, live.id if live else -1, _REMOVED)
            self._bus.publish(event)

    def _readable(self, name: str) -> Domain | None:
        """A domain's definition; None where it cannot be read, as what is to be dropped need not be."""
        try:
            return self._machines.definition(name)
        except VirtError:
            return None

    def domain_get_xml_desc(self, domain: DomainRef, flags: DomainXmlFlag = DomainXmlFlag.NONE) -> str:
        """The live document, or the persistent one; without passwords unless ``SECURE`` or ``MIGRATABLE``."""
        from hostel.drivers.qemu.migratable import migratable
        from hostel.drivers.qemu.ownership.label import drop_made

        live = self._live(domain)
        stored = self._machines.definition(domain.name)
        found = stored if flags & DomainXmlFlag.INACTIVE or live is None else live
        if found is None and live is not None:
            found = live
            drop_made(found)
            forget_run(found)
        if found is not None:
            name_volumes(found)
            hide_chains(found)
            if found is live and not flags & (DomainXmlFlag.INACTIVE | DomainXmlFlag.MIGRATABLE):
                self._show_ejected(found)
        if found is None:
            raise no_domain(f"name '{domain.name}'")
        if flags & DomainXmlFlag.UPDATE_CPU and (live is None or flags & DomainXmlFlag.INACTIVE):
            self._launcher.name_processor(found)
        if not flags & (DomainXmlFlag.SECURE | DomainXmlFlag.MIGRATABLE):
            hide_passwords(found)
        if flags & DomainXmlFlag.MIGRATABLE:
            return migratable(found, stored, self._machines, self._launcher.platform(found)).format()
        interfaces = found.devices.interfaces
        interfaces[:] = map(actual, interfaces)
        hide_finding(found)
        return found.format()

    def _show_ejected(self, live: Domain) -> None:
        """Write into a live document that is shown the numbers that drives have which had a medium before."""
        known = self._machines.seen(live.name)
        for disk in live.devices.disks if known is not None and known.ejected else ():
            number = known.ejected_number(disk.alias or "") if known is not None else None
            if number is not None and disk.source is None:
                disk.source = DiskSource(index=number)

    def _live(self, domain: DomainRef) -> Domain | None:
        """The live document as it is now; as it was last written down where QEMU does not answer."""

        def look(machine: Running | None) -> Domain | None:
            if machine is None:
                return None
            refresh(machine)
            ports.refresh(machine)
            return machine.domain

        return self._look(domain, look, lambda known: known.domain if known is not None else None)

    def domain_get_os_type(self, domain: DomainRef) -> str:
        """``hvm``: whole machines are all that QEMU runs."""
        if self._machines.seen(domain.name) is None and self._machines.definition(domain.name) is None:
            raise no_domain(f"name '{domain.name}'")
        return "hvm"

    def domain_get_security_label(self, domain: DomainRef) -> SecurityLabel:
        """By the first: see :meth:`node_get_security_model`."""
        return next(iter(self.domain_get_security_label_list(domain)), SecurityLabel("", enforcing=False))

    def domain_get_security_label_list(self, domain: DomainRef) -> list[SecurityLabel]:
        """That by each of the kernel's modules, or none, and the owner, while the domain runs."""
        from hostel.drivers.qemu.ownership import files

        is_running = self.domain_get_state(domain).state is not DomainState.SHUTOFF
        live = self._machines.seen(domain.name) if is_running else None
        if live is None:
            return []
        owner = files.label_of_running(self._machines, live)
        labels = [each.process_label(live.pid) for each in self._security_modules()]
        labels = labels or [SecurityLabel("", enforcing=False)]
        return labels if owner is None else [*labels, SecurityLabel(owner, enforcing=False)]

    def domain_get_info(self, domain: DomainRef) -> DomainInfo:
        """State, memory, CPUs, CPU time."""
        state = self.domain_get_state(domain).state
        live = self._machines.seen(domain.name)
        found = (self._live(domain) or live.domain) if live else self._machines.definition(domain.name)
        if found is None:
            raise no_domain(f"name '{domain.name}'")
        most = found.memory.to_kib() if found.memory is not None else 0
        current = found.current_memory.to_kib() if found.current_memory is not None else most
        vcpus = (found.vcpu.current or found.vcpu.value) if found.vcpu is not None else 1
        used = sum(procstat.cpu_times(live.pid) or ()) if live else 0
        return DomainInfo(state, most, current, vcpus, used)

    def domain_is_persistent(self, domain: DomainRef) -> bool:
        """Whether a definition exists."""
        return self._machines.definitions.has(domain.name)

    def domain_get_autostart(self, domain: DomainRef) -> bool:
        """Whether it starts with the driver."""
        return self._machines.autostarts.has(domain.name)

    def domain_set_autostart(self, domain: DomainRef, autostart: bool) -> None:
        """Set whether it starts with the driver."""
        with self._machines.locked(domain.name):
            self._check_is(domain)
            if self._machines.definition(domain.name) is None:
                if self._machines.live(domain.name) is None:
                    raise no_domain(f"name '{domain.name}'")
                raise invalid("cannot set autostart for transient domain")
            if autostart:
                self._machines.autostarts.write(domain.name, "")
            else:
                self._machines.autostarts.remove(domain.name)

    def connect_autostart(self, missed: Missed = nobody) -> list[DomainRef]:
        """Start every domain marked for it that is not running; one that fails does not keep the others.

        Why it did not start is in its log, too.
        """
        started: list[DomainRef] = []

        def note(what: str, why: str) -> None:
            process.write_log(self._machines.log(name), [f"not started by itself: {why}"])
            missed(what, why)

        for name in self._machines.autostarts.names():
            with noting(f"domain '{name}'", note):
                ref = self._machines.ref(name)
                if ref is None or ref.id >= 0:
                    continue
                bypasses = self._launcher.settings().autostart_bypass_cache
                started.append(self.domain_create(ref, StartFlag.BYPASS_CACHE if bypasses else StartFlag.NONE))
        return started

    def close(self) -> None:
        """Let go of files that were given for disks; machines run on."""
        self._machines.descriptors.close()
