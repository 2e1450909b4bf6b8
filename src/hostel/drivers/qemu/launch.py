"""Starting a machine: from a document to a QEMU that runs its guest, or to an error that says why not."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hostel.drivers import procstat
from hostel.drivers.base import NetworkDriver, RunningReason, ShutoffReason, StorageDriver
from hostel.drivers.cgroup.group import Group
from hostel.drivers.events import Lifecycle, Resumed
from hostel.drivers.fault import printable, system_fault
from hostel.drivers.link import tap
from hostel.drivers.qemu import (
    actions,
    balloon,
    certificates,
    document,
    emulator,
    failure,
    features,
    hostdevs,
    keeper,
    locking,
    monitor,
    perf,
    ports,
    probe,
    process,
    screens,
    source,
    taint,
    transient,
    vsock,
    watch,
)
from hostel.drivers.qemu.alias import assign_aliases
from hostel.drivers.qemu.architecture import find_emulator
from hostel.drivers.qemu.assignment import Assignment
from hostel.drivers.qemu.block import switching
from hostel.drivers.qemu.command import firmware, hostdev, memory, security
from hostel.drivers.qemu.command.context import Context, Wire, alias_of
from hostel.drivers.qemu.command.host import large_pages
from hostel.drivers.qemu.command.machine import build
from hostel.drivers.qemu.command.objects import Needed, passphrases, secrets, specs, value_of
from hostel.drivers.qemu.completing import complete
from hostel.drivers.qemu.confinement import module
from hostel.drivers.qemu.confinement.selinux import kernel
from hostel.drivers.qemu.environment import environment
from hostel.drivers.qemu.firmware import choice, nvram
from hostel.drivers.qemu.firmware.descriptor import Firmware, installed
from hostel.drivers.qemu.helper.serving import Helpers
from hostel.drivers.qemu.loading import take_memory
from hostel.drivers.qemu.lockmanager import holding
from hostel.drivers.qemu.lockmanager.entry import registered
from hostel.drivers.qemu.machines import Machines
from hostel.drivers.qemu.origin import BOOT, Origin
from hostel.drivers.qemu.output.sinks import Sinks, settle
from hostel.drivers.qemu.ownership import files
from hostel.drivers.qemu.ownership import run as owned_run
from hostel.drivers.qemu.private import unlink, write_private
from hostel.drivers.qemu.settings import Settings
from hostel.drivers.qemu.settings import read as read_settings
from hostel.drivers.qemu.status import Ending, Status
from hostel.drivers.qemu.tuning import access, cores, groups, numad, shares, threads
from hostel.drivers.qemu.vcpu import plug_in
from hostel.drivers.qemu.wiring import Wiring
from hostel.drivers.tuning import limits
from hostel.errors import ErrorCode, ErrorDomain, QmpError, VirtError
from hostel.model.authentication import SecretReference
from hostel.model.domain.devices.disk import Disk
from hostel.model.domain.domain import Domain, DomainType
from hostel.model.domain.platform import X86, Platform, arch_of
from hostel.model.domain.volumes import name_volumes
from hostel.model.network import Network

if TYPE_CHECKING:
    from hostel.drivers.qemu.running import Running

_GOES_ON: Final = (RunningReason.RESTORED, RunningReason.FROM_SNAPSHOT)
_LINES: Final = 20  # of a log, in which the reason is


class Launcher:
    """Starts machines for one driver."""

    def __init__(
        self,
        machines: Machines,
        cache: Path,
        storage: StorageDriver | None,
        network: NetworkDriver | None,
        secrets: Callable[[SecretReference, str], bytes],
        descriptors: Sequence[Path],
        wiring: Wiring,
    ) -> None:
        self._machines = machines
        self._cache = cache
        self._storage = storage
        self._network = network
        self._secrets = secrets
        self._descriptors = descriptors
        self.wiring = wiring
        self.assignment = Assignment(machines)
        self.helpers = Helpers(machines, secrets)

    @property
    def storage(self) -> StorageDriver | None:
        """Who knows pools and volumes."""
        return self._storage

    def platform(self, domain: Domain | None = None) -> Platform:
        """What a document's QEMU brings to it; without its machine types where it is not installed."""
        arch, named = (arch_of(domain) or None, domain.devices.emulator) if domain is not None else (None, None)
        found, settings = features.platform(self._cache, arch, named), self.settings()
        return found._replace(
            features=found.features - settings.filtered, nvram_directory=str(self._machines.variables_directory),
            security_model=module.first_model(self._machines, settings), spice_tls=settings.spice.tls,
        )  # fmt: skip

    def finish(self, domain: Domain, *, is_given: bool = True) -> Platform:
        """Complete a document that was read, and hold it against the rules and its emulator; what QEMU brought to it.

        Raises:
            VirtError: in libvirt's words.
        """
        emulator.check(domain, self._cache)
        platform = self.platform(domain)
        document.finish(domain, platform, is_given=is_given)
        return platform

    def start(self, domain: Domain, *, paused: bool, origin: Origin = BOOT) -> Status:
        """Run a document's machine; the caller holds the domain's lock and has found it not running.

        Args:
            domain: what to run.
            paused: leave its CPUs stopped.
            origin: where it goes on from.

        Raises:
            VirtError: it does not run; nothing is left but the log.
        """
        switching.check(self._machines, domain)
        settings = self.settings()
        if settings.refused:
            raise document.unsupported(settings.refused)
        cores.check(settings.cores)
        live = domain.copy()
        name_volumes(live)  # a snapshot's document has found them; its pool may have them elsewhere now
        platform = self.finish(live, is_given=False)
        document.check_startable(live, platform)
        self.choose_firmware(live, reset_nvram=origin.reset_nvram)
        program = find_emulator(live)
        if live.type == DomainType.KVM:
            emulator.check_kvm(program, self._cache)
        self.name_processor(live)
        if live.cpu is not None and live.cpu.features and arch_of(live) in X86:
            from hostel.drivers.qemu.cpu.guest import drop_unknown

            drop_unknown(live.cpu, program, self._cache, kvm=live.type == DomainType.KVM)
        assign_aliases(live)
        notes = self._prepare_disks(live)
        if live.os is not None:
            known = {} if installed(self._descriptors) else self.settings().variables
            nvram.prepare(live.os, reset=origin.reset_nvram, known=known)
        memory.align(live)
        security.settle(live, platform.sev)
        vsock.choose(live)
        return self._run(live, program, notes, paused=paused, origin=origin)

    def name_processor(self, domain: Domain) -> None:
        """Write into a document what a processor as the host's is here; others stay.

        Raises:
            VirtError: the document's emulator is not there.
        """
        if domain.cpu is not None and domain.cpu.mode == "host-model":
            from hostel.drivers.qemu.cpu.guest import name_host_model

            name_host_model(domain, domain.cpu, find_emulator(domain), self._cache)

    def _prepare_disks(self, live: Domain) -> list[str]:
        """Resolve and check every disk, and tell of what is left out; returns notes on that."""
        dropped = source.prepare(live, self._storage)
        for disk in live.devices.disks:
            source.encrypt_by_default(disk, self.settings())
        live.devices.disks = [transient.put_over(disk, live.name) for disk in live.devices.disks]
        for each in dropped:
            detail = {"alias": each.alias, "old": each.path, "new": None, "reason": int(each.whole)}
            self._machines.publish(live, "disk-change", **detail)
        return [f"dropped: {each.why} (startupPolicy='optional')" for each in dropped]

    def _run(self, live: Domain, program: str, notes: list[str], *, paused: bool, origin: Origin) -> Status:
        """Run a document that is ready to be run."""
        machines, name, advice = self._machines, live.name, numad.ask(live)
        identity = files.settled_identity(machines, live)
        module.label(machines, live, identity, self.settings())
        run, log = machines.run_directory(name), machines.log(name)
        notes = [*notes, *owned_run.make_ground(machines, live, run, identity)]
        context = self.context(live, run)._replace(
            is_confined=probe.sandboxes(program, self._cache), has_spice=probe.has_spice(program, self._cache)
        )
        status = Status(live, machines.next_id(), 0, 0, str(run), 0, speed=machines.speed_of(name), **advice._asdict())
        live.id = status.id
        privileged, moved = 0 in (process.user_of(run) or (os.geteuid(),)), origin.migration is not None
        found = taint.findings(live, program, self._cache, privileged=privileged, moved=moved)
        notes = [*notes, *(taint.note(status.id, finding) for finding in found)]
        notes += [f"qemu.conf: '{name}' is not acted on" for name in context.settings.unknown]
        status = status._replace(**taint.kept(found))
        values: list[Path] = []
        with contextlib.ExitStack() as given:
            given.callback(unlink, values)
            try:
                manager = holding.manager_for(context.settings.lock_manager, machines.directories, live)
                status = status._replace(lock_manager=manager.name if manager is not None else "")
                status = self._make_overlays(status)
                group = groups.choose(live, status.id, context.settings, machines.directories)
                screens.choose_listeners(live, process.ground(run), context.settings, self._host_address)
                screens.choose_render_nodes(live)
                screens.reserve(live, context.settings, given)
                context = context._replace(wires=self._connect(status, given, moves=moved))
                notes += self._assign(status, origin)
                sinks = given.enter_context(Sinks(context.settings.stdio, machines.directories, live, run))
                context = self._open(context, live, sinks, given)
                argv = build(numad.advised(live, advice), context)
                if origin.memory is not None or origin.migration is not None:
                    argv += ["-incoming", "defer"]
                wanted = (*_needed(live), *passphrases(specs(argv), context.settings))
                values += self.give_secrets(wanted, context)
                values += [write_private(path, text.encode(), run) for path, text in security.files(live, context)]
                last = max((image.index or 0 for image in source.images_of(live)), default=0)
                begins = process.write_log(log, notes, argv)
                status = status._replace(log_start=begins, nodes=last, group=group, stdio=context.settings.stdio)
                output = sinks.open(str(log))
                sinks.begin()
                helpers = self.helpers.prepare(live, run, values)
                machines.statuses.write(name, status.format())
                shares.begin(live)
                files.give(machines, status)
            except BaseException:
                self._abandon(status, run)
                raise
            try:
                command = owned_run.command(machines, argv, live, run)
                entered = registered(command, manager, machines.directories, status)
                passed = (context.files(), output)
                kernel.label_pipes(process.ground(run), *passed[0], output)
                return self._launch(argv, entered, status, log, helpers, passed, paused=paused, origin=origin)
            except BaseException as error:
                self._undo(name, run, error)
                raise

    def _open(self, context: Context, live: Domain, sinks: Sinks, given: contextlib.ExitStack) -> Context:
        """Open the files that QEMU gets in place of names.

        Raises:
            VirtError: there is none of them, or it cannot be opened.
        """
        named = [image.fdgroup for image in source.sources_of(live) if image.fdgroup is not None]
        images = self._machines.descriptors.take(live.uuid or "", named, given)
        return context._replace(descriptors=images, outputs=sinks.characters())

    def _abandon(self, status: Status, run: Path) -> None:
        """Forget a machine for which no QEMU was started."""
        machines, name = self._machines, status.domain.name
        files.take_all_back(machines, name)
        self.release(status.domain)
        shares.remove(status.domain)
        transient.discard(status.overlays)
        machines.statuses.remove(name)
        shutil.rmtree(run, ignore_errors=True)

    def _make_overlays(self, status: Status) -> Status:
        """Make what transient disks are on; written down before, so that it is removed whatever happens here.

        Raises:
            VirtError: an overlay cannot be made; none is there then.
        """
        paths = tuple(transient.overlays(status.domain))
        if not paths:
            return status
        found = status._replace(overlays=paths)
        self._machines.statuses.write(status.domain.name, found.format())
        transient.make_all(status.domain)
        return found

    def _connect(self, status: Status, given: contextlib.ExitStack, *, moves: bool) -> dict[str, Wire]:
        """Make the host's ends of those interfaces whose ends are not made by QEMU; the files are closed in the end.

        Raises:
            VirtError: one cannot be had.
        """
        domain = status.domain
        for interface in domain.devices.interfaces:
            self.wiring.look_up(interface)
        interfaces = [interface for interface in domain.devices.interfaces if self.wiring.makes(interface)]
        for interface in interfaces:
            self.wiring.reserve(interface)
        if interfaces:
            self._machines.statuses.write(domain.name, status.format())
        wires: dict[str, Wire] = {}
        for interface in interfaces:
            wire = wires[alias_of(interface)] = self.wiring.connect(domain, interface, moves=moves)
            given.callback(tap.close, [int(file) for file in (*wire.taps, *wire.vhosts)])
        return wires

    def _assign(self, status: Status, origin: Origin) -> list[str]:
        """Take the devices of the host that a machine is given; returns notes on what was left out.

        Raises:
            VirtError: one cannot be had.
        """
        domain, is_cold = status.domain, origin.memory is None and origin.migration is None
        write = functools.partial(self._machines.statuses.write, domain.name)
        return self.assignment.take(domain, hostdevs.of_host(domain), lambda: write(status.format()), is_cold=is_cold)

    def release(self, domain: Domain) -> None:
        """Let go of what of the host's a machine had."""
        self.wiring.release_all(domain)
        self.assignment.release(domain)

    def firmware(self) -> list[Firmware]:
        """The firmware that machines may be given.

        Raises:
            VirtError: ``INTERNAL_ERROR``: a descriptor is broken.
        """
        return installed(self._descriptors)

    def choose_firmware(self, live: Domain, *, reset_nvram: bool = False) -> None:
        """Write into a complete document which firmware it gets, where it asks for a kind of it.

        Raises:
            VirtError: none fits.
        """
        choice.choose(live, self._descriptors, self._machines.variables(live.name), reset=reset_nvram)

    def certificates(self) -> dict[str, str]:
        """The folders of certificates, by what they are for."""
        return certificates.folders(self.settings(), self._machines.directories.config / "pki/qemu")

    def settings(self) -> Settings:
        """What the host says for all machines.

        Raises:
            VirtError: the file with it cannot be read as one.
        """
        return read_settings(self._machines.directories)

    def _host_address(self, name: str) -> str:
        """The host's address in a network."""
        if self._network is None:
            raise document.unsupported("network-based listen isn't possible, network driver isn't present")
        found = self._network.network_get_xml_desc(self._network.network_lookup_by_name(name))
        return screens.host_address(Network.parse(found))

    def context(self, live: Domain, run: Path) -> Context:
        """What building command lines of a run needs besides the document."""
        from hostel.drivers.host.smbios import host_sysinfo

        settings = self.settings()
        pages = owned_run.large_pages(self._machines, large_pages(only=settings.hugetlbfs), live, run)
        memory_folder = owned_run.memory_files(
            self._machines, Path(settings.memory_folder or self._cache / "ram"), live, run
        )
        return Context(
            find_emulator(live), process.ground(run) / "monitor", self.bridge,
            memory_files=str(memory_folder), pages=pages, smbios=host_sysinfo,
            certificates=self.certificates(), settings=settings,
        )  # fmt: skip

    def find_secret(self, reference: SecretReference, usage: str) -> bytes:
        """A secret's value.

        Raises:
            VirtError: there is no such secret, it has no value, or it is for something else.
        """
        return value_of(Needed("", reference, usage), self._secrets)

    def give_secrets(self, wanted: Iterable[Needed], context: Context) -> list[Path]:
        """Write the values that QEMU reads, each into a file of its owner's alone; returns the files.

        Raises:
            VirtError: there is no such secret, it has no value, or it is for something else.
        """
        given: list[Path] = []
        for needed in wanted:
            value = value_of(needed, self._secrets)
            given.append(write_private(Path(context.secret(needed.name)), value, context.run))
        return given

    def _launch(
        self,
        argv: list[str],
        entered: list[str],
        status: Status,
        log: Path,
        helpers: list[process.Helper],
        passed: tuple[list[int], int],
        *,
        paused: bool,
        origin: Origin,
    ) -> Status:
        name, run = status.domain.name, Path(status.run)
        try:
            settings = self.settings()
            group = groups.make(status.domain, status.group, settings) if status.group else None
            status = access.begin(group, status, settings, log)
            pid = process.spawn(
                locking.limited(entered, status.domain, settings.limits), run, log, helpers=helpers, files=passed[0],
                environment=environment(status.domain, settings, process.home(run)),
                entrances=group.entrances() if group is not None else (), output=passed[1],
            )  # fmt: skip
        except OSError as error:
            raise _no_start(name, str(error)) from error
        started = procstat.start_time(pid)
        path = process.ground(run) / "monitor"
        ready = started is not None and monitor.wait_for_socket(path, lambda: process.exit_status(run) is not None)
        try:
            if not ready:
                raise QmpError("Disconnected", "QEMU did not come up")
            with watch.kept_off(run):  # what is to be said of the start is told by us
                with monitor.connect(path) as qmp:
                    self._set_up(qmp, status, settings, group, pid, origin)
                    status = status._replace(
                        pid=pid, started=started or 0, paused=int(origin.paused) if paused else 0,
                        running=int(origin.reason), ending=origin.ending, migration=origin.migration,
                    )  # fmt: skip
                    self._machines.statuses.write(name, status.format())
                status = self._prepare(status, origin)
                if not origin.ending:
                    self.keep(status.domain, run)
                if not paused:
                    status = self._let_run(status)
            self._tell(status, paused=paused, origin=origin)
        except QmpError as error:
            hung_up = error.error_class == "Disconnected"
            is_gone = started is None or process.ended(pid, started, 2 if hung_up else 0)
            code = process.exit_status(run, process.RECORDING if is_gone else 0)
            if code is not None and code > 128:  # then the last line is the supervising shell's
                raise _no_start(name, process.describe(code)) from error
            said = None if error.error_class == "Timeout" else self._said(argv, status, log, error)
            raise _no_start(name, said or error.desc) from error
        return status

    def _set_up(
        self, qmp: monitor.Monitor, status: Status, settings: Settings, group: Group | None, pid: int, origin: Origin
    ) -> None:
        """Tell a QEMU that has come up what it is told before its guest runs, and give it the memory that that had."""
        complete(status.domain, qmp, settings)
        balloon.begin(status.domain, qmp, comes=origin.memory is not None or origin.migration is not None)
        # As libvirt has it: whoever listens is told of each pass over the memory, by snapshots too.
        qmp.execute("migrate-set-capabilities", capabilities=[{"capability": "events", "state": True}])
        actions.apply(status.domain, qmp)
        plug_in(status.domain, qmp)
        threads.settle(numad.advised(status.domain, status.advice), qmp, pid, group, apart=settings.cores)
        if origin.memory is not None:
            with module.lent(self._machines, status, origin.memory):
                take_memory(qmp, origin.memory, origin.offset, origin.unpack)

    def _said(self, argv: list[str], status: Status, log: Path, error: QmpError) -> str | None:
        """Why QEMU did not come up, as it wrote; None where it wrote nothing, or gave the reason by its answer."""
        run = Path(status.run)
        settle(status.stdio, self._machines.directories, run, log)
        lines = process.last_lines(log, _LINES, since=status.log_start)
        why = failure.explained(lines, argv, status.domain, owned_run.user_of(run))
        if why is None and error.error_class == "Disconnected":
            why = next(reversed(lines), None)
        return printable(why) if why is not None else None

    def keep(self, domain: Domain, run: Path) -> None:
        """See to it that somebody is there who does what follows when the guest ends by itself.

        Raises:
            VirtError: ``SYSTEM_ERROR``: the host starts no process for it.
        """
        if actions.needs_keeper(domain):
            try:
                keeper.start(self._machines.directories, domain.name, run, self._machines.log(domain.name))
            except (OSError, subprocess.SubprocessError) as error:
                reason = error if isinstance(error, OSError) else OSError(str(error))
                raise system_fault(reason, "cannot start what restarts the machine", ErrorDomain.QEMU) from error

    def _prepare(self, status: Status, origin: Origin) -> Status:
        if begin := limits.enabled(status.domain):
            perf.change(Path(status.run), status.pid, self._machines.log(status.domain.name), begin=begin)
        return self._handed(status, origin.prepare) if origin.prepare is not None else status

    def _let_run(self, status: Status) -> Status:
        """Have its locks, and let the guest run."""
        status = self._handed(status, holding.hold)
        with monitor.connect(process.ground(Path(status.run)) / "monitor") as qmp:
            qmp.execute("cont")
            if ports.agent_state(status.domain) is not None:  # it is there already where the guest was restored
                with contextlib.suppress(QmpError):  # whoever looks next asks again
                    ports.note(status.domain, qmp.execute("query-chardev"))
        return status

    def _handed(self, status: Status, do: Callable[[Running], None]) -> Status:
        """Have something done to a machine; its state then."""
        from hostel.drivers.qemu.running import Running

        machine = Running(self._machines, status, self)
        try:
            do(machine)
            return machine.status
        finally:
            machine.close()

    def _tell(self, status: Status, *, paused: bool, origin: Origin) -> None:
        """In libvirt's order: it runs before it was started, but where it goes on from saved memory or a snapshot."""
        agent = ports.agent_state(status.domain)
        if agent is not None:
            self._machines.publish(status.domain, "agent-lifecycle", state=ports.DISCONNECTED, reason=ports.STARTED)
        started, goes_on = (Lifecycle.STARTED, int(origin.event)), origin.reason in _GOES_ON
        if not paused:
            resumed = (Lifecycle.RESUMED, int(Resumed.FROM_SNAPSHOT if goes_on else Resumed.UNPAUSED))
            told = [started, resumed] if goes_on else [resumed, started]
        elif origin.migration is None:
            told = [started, (Lifecycle.SUSPENDED, int(origin.suspended))]
        else:
            told = [started]
        for event, detail in told:
            self._machines.publish(status.domain, "lifecycle", event=int(event), detail=detail)
        if agent == ports.CONNECTED or (agent is not None and origin.memory is not None and not paused):
            self._machines.publish(status.domain, "agent-lifecycle", state=agent, reason=ports.CHANNEL)

    def _undo(self, name: str, run: Path, error: BaseException) -> None:
        if (found := process.supervised_qemu(run, 5)) is not None:
            process.end(*found, grace=1)
        self._machines.forget(name, run, Ending(ShutoffReason.FAILED, str(error)))

    def prepare(self, disk: Disk) -> None:
        """Resolve and check a disk that is about to be plugged in.

        Raises:
            VirtError: it cannot be used.
        """
        if disk.source is not None and disk.source.fdgroup is not None:
            raise document.unsupported(f"disk '{disk.target.dev}': open files are taken when the machine starts only")
        source.prepare_disk(disk, self._storage)
        source.encrypt_by_default(disk, self.settings())

    def bridge(self, name: str) -> str | None:
        """The host bridge of a virtual network that is active; None where it is user-mode."""
        if self._network is None:
            raise document.unsupported(f"interface of network '{name}': this connection has no network driver")
        network = self._network.network_lookup_by_name(name)
        if not self._network.network_is_active(network):
            message = f"Requested operation is not valid: network '{name}' is not active"
            raise VirtError(ErrorCode.OPERATION_INVALID, message, domain=ErrorDomain.NETWORK)
        try:
            return self._network.network_get_bridge_name(network)
        except VirtError as error:
            if error.code == ErrorCode.INTERNAL_ERROR:
                return None
            raise


def _needed(domain: Domain) -> Iterator[Needed]:
    yield from firmware.secrets(domain)
    yield from hostdev.secrets(domain)
    for disk in domain.devices.disks:
        yield from secrets(disk)


def _no_start(name: str, why: str) -> VirtError:
    message = f"internal error: domain '{name}' could not be started: {why}"
    return VirtError(ErrorCode.INTERNAL_ERROR, message, domain=ErrorDomain.QEMU)
