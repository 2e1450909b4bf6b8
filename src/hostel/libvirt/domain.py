"""Domains."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

from hostel.drivers.adapters import uuid_text
from hostel.libvirt import shape
from hostel.libvirt.argument import TEXT_OKAY
from hostel.libvirt.constants.domain_job import VIR_MIGRATE_PEER2PEER
from hostel.libvirt.method import Handle, call, call_with_files, install, kind, wired
from hostel.libvirt.stream import begin, virStream

_PARAMETERS = 16  # asked for of each CPU
_CPUS = 128  # asked for in one call; libvirt's bound


@kind
class virDomain(Handle):
    """A domain: a virtual machine."""

    KIND = "domain"

    def name(self) -> str:
        """The name."""
        return str(self._wire.name)

    def UUID(self) -> bytes:
        """The UUID's sixteen bytes."""
        return bytes(self._wire.uuid)

    def UUIDString(self) -> str:
        """The UUID as it is written."""
        return uuid_text(self._wire.uuid)

    def ID(self) -> int:
        """The number of a running domain, as far as this handle knows; else -1."""
        return int(self._wire.id)

    def openConsole(self, dev_name: str | None, st: virStream, flags: int = 0) -> int:
        """Let ``st`` be a serial port or console: the first, or the one with this alias."""
        begin(st, "domain_open_console", self._wire, dev_name, flags)
        return 0

    def openChannel(self, name: str | None, st: virStream, flags: int = 0) -> int:
        """Let ``st`` be a channel: the first, or the one with this name."""
        begin(st, "domain_open_channel", self._wire, name, flags)
        return 0

    def screenshot(self, stream: virStream, screen: int, flags: int = 0) -> str | None:
        """Let ``stream`` receive a picture of a screen; its media type."""
        (media,) = begin(stream, "domain_screenshot", self._wire, screen, flags)
        return None if media is None else str(media)

    def sendKey(self, codeset: int, holdtime: int, keycodes: Sequence[int], nkeycodes: int, flags: int = 0) -> int:
        """Press the first ``nkeycodes`` keys at once, and hold them for ``holdtime`` milliseconds."""
        call(self, "domain_send_key", self._wire, codeset, holdtime, list(keycodes[:nkeycodes]), flags)
        return 0

    def setTime(self, time: dict[str, int] | None = None, flags: int = 0) -> int:
        """Set the guest's clock to ``seconds`` and ``nseconds``; with flags it may take the time from elsewhere.

        Raises:
            TypeError: ``time`` is no dictionary, and left out without flags.
            LookupError: ``seconds`` are missing, or there is more.
        """
        if not isinstance(time, dict) and (time is not None or not flags):
            raise TypeError("time must be a dictionary or None with flags set")
        given = time or {}
        if time is not None and "seconds" not in time:
            raise LookupError("Dictionary must contains 'seconds'")
        call(self, "domain_set_time", self._wire, given.get("seconds", 0), given.get("nseconds", 0), flags)
        return 0

    def revertToSnapshot(self, snap: Any, flags: int = 0) -> int:
        """Go back to a snapshot."""
        call(self, "domain_revert_to_snapshot", wired(snap, "snapshot", "snap"), flags)
        return 0

    def fsFreeze(self, mountpoints: Sequence[str] | None = None, flags: int = 0) -> int:
        """Let the guest's agent freeze file systems; how many it froze."""
        return int(call(self, "domain_fsfreeze", self._wire, list(mountpoints or ()), flags)[0])

    def fsThaw(self, mountpoints: Sequence[str] | None = None, flags: int = 0) -> int:
        """Let the guest's agent thaw file systems; how many it thawed."""
        return int(call(self, "domain_fsthaw", self._wire, list(mountpoints or ()), flags)[0])

    def fSTrim(self, mountPoint: str | None, minimum: int, flags: int = 0) -> int:
        """Let the guest's agent give unused space of file systems back."""
        call(self, "domain_fstrim", self._wire, mountPoint, minimum, flags)
        return 0

    def fsInfo(self, flags: int = 0) -> list[tuple[Any, ...]]:
        """The guest's file systems: mount point, device, type, and the disks' targets."""
        return [tuple(each) for each in call(self, "domain_get_fsinfo", self._wire, flags)[0]]

    def injectNMI(self, flags: int = 0) -> int:
        """Send the guest an interrupt that it cannot mask."""
        call(self, "domain_inject_nmi", self._wire, flags)
        return 0

    def vcpus(self) -> tuple[list[tuple[int, int, int, int]], list[tuple[bool, ...]]]:
        """Of each virtual CPU its number, state, time in nanoseconds and CPU; and which CPUs it may be on."""
        count, width = call(self, "domain_get_info", self._wire)[3], shape.cpu_count(self)
        size = -(-width // 8)
        info, raw = call(self, "domain_get_vcpus", self._wire, count, size)
        maps = [shape.bits(raw[at : at + size], width) for at in range(0, len(raw), size)]
        return [tuple(each) for each in info], maps

    def vcpuPinInfo(self, flags: int = 0) -> list[tuple[bool, ...]]:
        """Which CPUs each virtual CPU may be on."""
        count, width = call(self, "domain_get_info", self._wire)[3], shape.cpu_count(self)
        size = -(-width // 8)
        raw, found = call(self, "domain_get_vcpu_pin_info", self._wire, count, size, flags)
        return [shape.bits(raw[at : at + size], width) for at in range(0, found * size, size)]

    def emulatorPinInfo(self, flags: int = 0) -> tuple[bool, ...]:
        """Which CPUs the emulator's own threads may be on."""
        width = shape.cpu_count(self)
        raw, _ = call(self, "domain_get_emulator_pin_info", self._wire, -(-width // 8), flags)
        return shape.bits(raw, width)

    def schedulerParameters(self) -> dict[str, Any]:
        """The parameters of its scheduler, which is asked for first, as libvirt-python does."""
        _, count = call(self, "domain_get_scheduler_type", self._wire)
        (params,) = call(self, "domain_get_scheduler_parameters", self._wire, count)
        return shape.typed(params)

    def getCPUStats(self, total: bool, flags: int = 0) -> list[dict[str, Any]]:
        """Times that CPUs have worked for the domain, in nanoseconds: of all together, or one by one."""
        if total:
            params, _ = call(self, "domain_get_cpu_stats", self._wire, _PARAMETERS, -1, 1, flags | TEXT_OKAY)
            return [shape.typed(params)]
        _, cpus = call(self, "domain_get_cpu_stats", self._wire, 0, 0, 0, flags | TEXT_OKAY)
        _, width = call(self, "domain_get_cpu_stats", self._wire, 0, 0, 1, flags | TEXT_OKAY)
        found: list[dict[str, Any]] = []
        for first in range(0, cpus, _CPUS):
            count = min(_CPUS, cpus - first)
            params, _ = call(self, "domain_get_cpu_stats", self._wire, width, first, count, flags | TEXT_OKAY)
            found += [shape.typed(params[width * cpu : width * (cpu + 1)]) for cpu in range(count)]
        return found

    def createWithFiles(self, files: Sequence[int], flags: int = 0) -> int:
        """Start a domain that is given open files."""
        (self._wire,) = call_with_files(self, "domain_create_with_files", files, self._wire, flags)
        return 0

    def FDAssociate(self, name: str, files: Sequence[int], flags: int = 0) -> int:
        """Let open files stand for a disk's."""
        call_with_files(self, "domain_fd_associate", files, self._wire, name, flags)
        return 0

    def openGraphics(self, idx: int, fd: int, flags: int = 0) -> int:
        """Connect a descriptor to a screen."""
        call_with_files(self, "domain_open_graphics", [fd], self._wire, idx, flags)
        return 0

    def openGraphicsFD(self, idx: int, flags: int = 0) -> int:
        """A descriptor that is connected to a screen, and the caller's to close."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self.openGraphics(idx, theirs.fileno(), flags)
            return ours.detach()

    def migrate(
        self, dconn: Any, flags: int = 0, dname: str | None = None, uri: str | None = None, bandwidth: int = 0
    ) -> Any:
        """Move the domain to another host; its handle there."""
        return self.migrate2(dconn, None, flags, dname, uri, bandwidth)

    def migrate2(
        self,
        dconn: Any,
        dxml: str | None = None,
        flags: int = 0,
        dname: str | None = None,
        uri: str | None = None,
        bandwidth: int = 0,
    ) -> Any:
        """Likewise, with another document there."""
        if flags & VIR_MIGRATE_PEER2PEER:
            self.migrateToURI2(uri or dconn.getURI(), None, dxml, flags, dname, bandwidth)
            return dconn.lookupByName(dname or self.name())
        return self.migrate3(dconn, _migration().given(dname, uri, bandwidth, dxml), flags)

    def migrate3(self, dconn: Any, params: dict[str, Any], flags: int = 0) -> Any:
        """Likewise, with libvirt's parameters by name."""
        found = _migration().move(self, dconn, params, flags, "virDomainMigrate3")
        return dconn.lookupByUUIDString(found.uuid)

    def migrateToURI(self, duri: str, flags: int = 0, dname: str | None = None, bandwidth: int = 0) -> int:
        """Let the domain's daemon move it to another host."""
        return self.migrateToURI3(duri, _migration().given(dname, None, bandwidth), flags)

    def migrateToURI2(
        self,
        dconnuri: str | None = None,
        miguri: str | None = None,
        dxml: str | None = None,
        flags: int = 0,
        dname: str | None = None,
        bandwidth: int = 0,
    ) -> int:
        """Likewise, with another document there."""
        return self.migrateToURI3(dconnuri, _migration().given(dname, miguri, bandwidth, dxml), flags)

    def migrateToURI3(self, dconnuri: str | None, params: dict[str, Any], flags: int = 0) -> int:
        """Likewise, with libvirt's parameters by name."""
        _migration().let_move(self, dconnuri, params, flags, "virDomainMigrateToURI3")
        return 0


def _migration() -> Any:
    """What migration needs, which only those load who use it."""
    from hostel.libvirt import migration

    return migration


install(
    virDomain,
    """
abortJob() domain_abort_job
abortJobFlags(flags=0) domain_abort_job_flags
addIOThread(iothread_id, flags=0) domain_add_iothread
agentSetResponseTimeout(timeout, flags=0) domain_agent_set_response_timeout
attachDevice(xml) domain_attach_device
attachDeviceFlags(xml, flags=0) domain_attach_device_flags
authorizedSSHKeysGet(user, flags=0) domain_authorized_ssh_keys_get
authorizedSSHKeysSet(user, keys=None, flags=0) domain_authorized_ssh_keys_set
autostart() domain_get_autostart
backupBegin(backupXML, checkpointXML, flags=0) domain_backup_begin
backupGetXMLDesc(flags=0) domain_backup_get_xml_desc
blkioParameters(flags=0) domain_get_blkio_parameters
blockCommit(disk, base, top, bandwidth=0, flags=0) domain_block_commit
blockCopy(disk, destxml, params=None, flags=0) domain_block_copy
blockInfo(path, flags=0) domain_get_block_info block_info
blockIoTune(disk, flags=0) domain_get_block_io_tune
blockJobAbort(disk, flags=0) domain_block_job_abort
blockJobInfo(path, flags=0) domain_get_block_job_info block_job
blockJobSetSpeed(disk, bandwidth, flags=0) domain_block_job_set_speed
blockPeek(disk, offset, size, flags=0) domain_block_peek
blockPull(disk, bandwidth=0, flags=0) domain_block_pull
blockRebase(disk, base, bandwidth=0, flags=0) domain_block_rebase
blockResize(disk, size, flags=0) domain_block_resize
blockStats(path) domain_block_stats tuple
blockStatsFlags(path, flags=0) domain_block_stats_flags
checkpointCreateXML(xmlDesc, flags=0) domain_checkpoint_create_xml
checkpointLookupByName(name, flags=0) domain_checkpoint_lookup_by_name
controlInfo(flags=0) domain_get_control_info list
coreDump(to, flags=0) domain_core_dump
coreDumpWithFormat(to, dumpformat, flags=0) domain_core_dump_with_format
create() domain_create started
createWithFlags(flags=0) domain_create_with_flags started
delIOThread(iothread_id, flags=0) domain_del_iothread
destroy() domain_destroy stopped
destroyFlags(flags=0) domain_destroy_flags stopped
detachDevice(xml) domain_detach_device
detachDeviceAlias(alias, flags=0) domain_detach_device_alias
detachDeviceFlags(xml, flags=0) domain_detach_device_flags
diskErrors(flags=0) domain_get_disk_errors disk_errors
getTime(flags=0) domain_get_time time
guestInfo(types=0, flags=0) domain_get_guest_info
guestVcpus(flags=0) domain_get_guest_vcpus
hasCurrentSnapshot(flags=0) domain_has_current_snapshot
hasManagedSaveImage(flags=0) domain_has_managed_save_image
hostname(flags=0) domain_get_hostname
info() domain_get_info list
interfaceAddresses(source, flags=0) domain_interface_addresses interface_addresses
interfaceParameters(device, flags=0) domain_get_interface_parameters
interfaceStats(path) domain_interface_stats tuple
ioThreadInfo(flags=0) domain_get_iothread_info iothreads
isActive() domain_is_active
isPersistent() domain_is_persistent
isUpdated() domain_is_updated
jobInfo() domain_get_job_info list
jobStats(flags=0) domain_get_job_stats job_stats
launchSecurityInfo(flags=0) domain_get_launch_security_info
listAllCheckpoints(flags=0) domain_list_all_checkpoints
listAllSnapshots(flags=0) domain_list_all_snapshots
managedSave(flags=0) domain_managed_save
managedSaveDefineXML(dxml, flags=0) domain_managed_save_define_xml
managedSaveGetXMLDesc(flags=0) domain_managed_save_get_xml_desc
managedSaveRemove(flags=0) domain_managed_save_remove
maxMemory() domain_get_max_memory
maxVcpus() domain_get_max_vcpus
memoryParameters(flags=0) domain_get_memory_parameters
memoryPeek(start, size, flags=0) domain_memory_peek
memoryStats() domain_memory_stats memory_stats
messages(flags=0) domain_get_messages
metadata(type, uri, flags=0) domain_get_metadata
migrateGetCompressionCache(flags=0) domain_migrate_get_compression_cache
migrateGetMaxDowntime(flags=0) domain_migrate_get_max_downtime
migrateGetMaxSpeed(flags=0) domain_migrate_get_max_speed
migrateSetCompressionCache(cacheSize, flags=0) domain_migrate_set_compression_cache
migrateSetMaxDowntime(downtime, flags=0) domain_migrate_set_max_downtime
migrateSetMaxSpeed(bandwidth, flags=0) domain_migrate_set_max_speed
migrateStartPostCopy(flags=0) domain_migrate_start_post_copy
numaParameters(flags=0) domain_get_numa_parameters
OSType() domain_get_os_type
perfEvents(flags=0) domain_get_perf_events
pinEmulator(cpumap, flags=0) domain_pin_emulator
pinIOThread(iothread_val, cpumap, flags=0) domain_pin_iothread
pinVcpu(vcpu, cpumap) domain_pin_vcpu
pinVcpuFlags(vcpu, cpumap, flags=0) domain_pin_vcpu_flags
pMSuspendForDuration(target, duration, flags=0) domain_pm_suspend_for_duration
pMWakeup(flags=0) domain_pm_wakeup
reboot(flags=0) domain_reboot
rename(new_name, flags=0) domain_rename renamed
reset(flags=0) domain_reset
resume() domain_resume
save(to) domain_save
saveFlags(to, dxml=None, flags=0) domain_save_flags
saveParams(params, flags=0) domain_save_params
schedulerParametersFlags(flags=0) domain_get_scheduler_parameters_flags
schedulerType() domain_get_scheduler_type tuple
securityLabel() domain_get_security_label label
securityLabelList() domain_get_security_label_list labels
sendProcessSignal(pid_value, signum, flags=0) domain_send_process_signal
setAutostart(autostart) domain_set_autostart
setBlkioParameters(params, flags=0) domain_set_blkio_parameters
setBlockIoTune(disk, params, flags=0) domain_set_block_io_tune
setBlockThreshold(dev, threshold, flags=0) domain_set_block_threshold
setGuestVcpus(cpumap, state, flags=0) domain_set_guest_vcpus
setInterfaceParameters(device, params, flags=0) domain_set_interface_parameters
setIOThreadParams(iothread_val, params, flags=0) domain_set_iothread_params
setLaunchSecurityState(params, flags=0) domain_set_launch_security_state
setLifecycleAction(type, action, flags=0) domain_set_lifecycle_action
setMaxMemory(memory) domain_set_max_memory
setMemory(memory) domain_set_memory
setMemoryFlags(memory, flags=0) domain_set_memory_flags
setMemoryParameters(params, flags=0) domain_set_memory_parameters
setMemoryStatsPeriod(period, flags=0) domain_set_memory_stats_period
setMetadata(type, metadata, key, uri, flags=0) domain_set_metadata
setNumaParameters(params, flags=0) domain_set_numa_parameters
setPerfEvents(params, flags=0) domain_set_perf_events
setSchedulerParameters(params) domain_set_scheduler_parameters
setSchedulerParametersFlags(params, flags=0) domain_set_scheduler_parameters_flags
setUserPassword(user, password, flags=0) domain_set_user_password
setVcpu(vcpumap, state, flags=0) domain_set_vcpu
setVcpus(nvcpus) domain_set_vcpus
setVcpusFlags(nvcpus, flags=0) domain_set_vcpus_flags
shutdown() domain_shutdown
shutdownFlags(flags=0) domain_shutdown_flags
snapshotCreateXML(xmlDesc, flags=0) domain_snapshot_create_xml
snapshotCurrent(flags=0) domain_snapshot_current
snapshotListNames(flags=0) domain_snapshot_list_names
snapshotLookupByName(name, flags=0) domain_snapshot_lookup_by_name
snapshotNum(flags=0) domain_snapshot_num
startDirtyRateCalc(seconds, flags=0) domain_start_dirty_rate_calc
state(flags=0) domain_get_state list
suspend() domain_suspend
undefine() domain_undefine
undefineFlags(flags=0) domain_undefine_flags
updateDeviceFlags(xml, flags=0) domain_update_device_flags
vcpusFlags(flags=0) domain_get_vcpus_flags
XMLDesc(flags=0) domain_get_xml_desc
""",
)
