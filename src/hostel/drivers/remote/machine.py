"""What is done to running machines in a daemon, where the calls are not the methods in other words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from hostel.codec.xdr import Field
from hostel.drivers.adapters import from_wire, to_wire, uuid_text
from hostel.drivers.base import DomainRef
from hostel.drivers.base.address import GuestAddress, InterfaceAddresses
from hostel.drivers.base.agent import FilesystemInfo
from hostel.drivers.base.backup import CheckpointRef, JobType
from hostel.drivers.base.block import BlockJobInfo, DiskError
from hostel.drivers.base.machine import MEMORY_STATS, Screenshot, StatsFlag
from hostel.drivers.base.network import AddressType
from hostel.drivers.base.snapshot import SnapshotRef
from hostel.drivers.remote.client import RpcClient
from hostel.wire.rpc.connection import StreamData
from hostel.wire.rpc.programs import QEMU, REMOTE

_NEEDED: Final = 1  # of a list: the objects, and not only how many
_IN_BYTES: Final = 1
_MOST: Final = 1024  # of the numbers about memory
_BACKING: Final = 1 << 30
_ENFORCE: Final = 1 << 31
_HUMAN: Final = 1
_BOOLEAN: Final = 6  # of virTypedParameterType


class RemoteMachines:
    """Methods of :class:`hostel.drivers.base.machine.MachineDriver` and others beside it."""

    _client: RpcClient

    def domain_memory_stats(self, domain: DomainRef) -> Mapping[str, int]:
        """The guest's memory in numbers."""
        (stats,) = self._client.call("domain_memory_stats", wire("domain", domain), _MOST, 0)
        return {MEMORY_STATS[tag]: value for tag, value in stats if tag < len(MEMORY_STATS)}

    def domain_fd_associate(self, domain: DomainRef, name: str, files: Sequence[int]) -> None:
        """Give open files for the images of a domain."""
        self._client.call_with_files("domain_fd_associate", files, wire("domain", domain), name, 0)

    def connect_get_all_domain_stats(
        self,
        domains: Sequence[DomainRef],
        stats: StatsFlag = StatsFlag.ALL,
        *,
        backing: bool = False,
        enforce: bool = False,
    ) -> list[tuple[DomainRef, Mapping[str, int | str]]]:
        """Statistics of domains; of all of them where none is given."""
        given = [wire("domain", domain) for domain in domains]
        flags = (_BACKING if backing else 0) | (_ENFORCE if enforce else 0)
        (records,) = self._client.call("connect_get_all_domain_stats", given, int(stats), flags)
        return [
            (
                DomainRef(record.dom.name, uuid_text(record.dom.uuid), record.dom.id),
                {name: value for name, (_, value) in record.params},
            )
            for record in records
        ]

    def connect_get_cpu_model_names(self, arch: str) -> list[str]:
        """The models of an architecture."""
        return list(self._client.call("connect_get_cpu_model_names", arch, _NEEDED, 0)[0])

    def domain_get_fsinfo(self, domain: DomainRef) -> list[FilesystemInfo]:
        """The file systems that are mounted in the guest."""
        return [FilesystemInfo(*each) for each in self._client.call("domain_get_fsinfo", wire("domain", domain), 0)[0]]

    def domain_get_guest_info(self, domain: DomainRef, types: int = 0) -> Mapping[str, int | bool | str]:
        """What the guest tells of itself."""
        (params,) = self._client.call("domain_get_guest_info", wire("domain", domain), int(types), 0)
        return {name: bool(value) if kind == _BOOLEAN else value for name, (kind, value) in params}

    def domain_interface_addresses(self, domain: DomainRef, source: int) -> list[InterfaceAddresses]:
        """The interfaces of a running domain with their addresses."""
        (found,) = self._client.call("domain_interface_addresses", wire("domain", domain), source, 0)
        return [
            InterfaceAddresses(
                one.name, one.hwaddr, [GuestAddress(AddressType(it.type), it.addr, it.prefix) for it in one.addrs]
            )
            for one in found
        ]

    def node_get_sev_info(self) -> Mapping[str, int | str]:
        """What SEV can do on the host."""
        (params, _) = self._client.call("node_get_sev_info", 0, 0)
        return {name: value for name, (_, value) in params}

    def domain_rename(self, domain: DomainRef, new_name: str) -> None:
        """Give a domain another name."""
        self._client.call("domain_rename", wire("domain", domain), new_name, 0)

    def domain_get_job_stats(self, domain: DomainRef, flags: int = 0) -> tuple[JobType, Mapping[str, int]]:
        """How far the job is that runs, or how the last one went."""
        kind, stats = self._client.call("domain_get_job_stats", wire("domain", domain), flags)
        known = JobType(kind) if kind in set(JobType) else JobType.UNBOUNDED
        return known, {name: value for name, (_, value) in stats}

    def domain_screenshot(self, domain: DomainRef, screen: int = 0) -> Screenshot:
        """A picture of the guest's screen."""
        stream = self._client.open_stream("domain_screenshot", wire("domain", domain), screen, 0)
        content = bytearray()
        while isinstance(event := stream.receive(), StreamData) and event.data:
            content += event.data
        stream.finish()
        return Screenshot(str(stream.result[0] or ""), bytes(content))

    def domain_qemu_monitor_command(
        self, domain: DomainRef, command: str, *, human: bool = False, files: Sequence[int] = ()
    ) -> str:
        """Give QEMU a command as it is."""
        called = wire("domain", domain), command, _HUMAN if human else 0
        if files:
            name = "domain_monitor_command_with_files"
            return str(self._client.call_with_files(name, files, *called, program=QEMU)[0])
        return str(self._client.call("domain_monitor_command", *called, program=QEMU)[0])

    def domain_qemu_agent_command(self, domain: DomainRef, command: str, timeout: int = -1) -> str | None:
        """Give the guest's agent a command as it is."""
        called = wire("domain", domain), command, timeout, 0
        answer: str | None = self._client.call("domain_agent_command", *called, program=QEMU)[0]
        return answer

    def domain_list_all_snapshots(self, domain: DomainRef, flags: int = 0) -> list[SnapshotRef]:
        """The snapshots of a domain."""
        return self._moments("domain_list_all_snapshots", wire("domain", domain), flags)

    def domain_snapshot_list_all_children(self, snapshot: SnapshotRef, flags: int = 0) -> list[SnapshotRef]:
        """The children of a snapshot."""
        return self._moments("domain_snapshot_list_all_children", wire("snapshot", snapshot), flags)

    def domain_list_all_checkpoints(self, domain: DomainRef, flags: int = 0) -> list[CheckpointRef]:
        """The checkpoints of a domain."""
        return self._moments("domain_list_all_checkpoints", wire("domain", domain), flags)

    def domain_checkpoint_list_all_children(self, checkpoint: CheckpointRef, flags: int = 0) -> list[CheckpointRef]:
        """The children of a checkpoint."""
        return self._moments("domain_checkpoint_list_all_children", wire("checkpoint", checkpoint), flags)

    def _moments(self, procedure: str, of: Any, flags: int) -> list[Any]:
        convert = from_wire(REMOTE.by_name[procedure].result.fields[0])
        assert convert is not None
        return [convert(item) for item in self._client.call(procedure, of, _NEEDED, int(flags))[0]]

    def domain_get_block_job_info(self, domain: DomainRef, disk: str) -> BlockJobInfo | None:
        """How far the disk's job is; None where there is none."""
        found, *values = self._client.call("domain_get_block_job_info", wire("domain", domain), disk, _IN_BYTES)
        return BlockJobInfo(*values) if found else None

    def domain_block_job_set_speed(self, domain: DomainRef, disk: str, bandwidth: int) -> None:
        """Limit a job, in bytes a second; 0 takes the limit off."""
        self._client.call("domain_block_job_set_speed", wire("domain", domain), disk, bandwidth, _IN_BYTES)

    def domain_get_disk_errors(self, domain: DomainRef) -> list[DiskError]:
        """Disks that an error has stopped."""
        errors = self._client.call("domain_get_disk_errors", wire("domain", domain), 256, 0)[0]
        return [DiskError(*error) for error in errors]

    def domain_block_copy(
        self,
        domain: DomainRef,
        disk: str,
        xml: str,
        bandwidth: int = 0,
        granularity: int = 0,
        buf_size: int = 0,
        flags: int = 0,
    ) -> None:
        """Copy a disk; see :class:`hostel.drivers.base.block.BlockDriver`."""
        settings = (("bandwidth", 4, bandwidth), ("granularity", 2, granularity), ("buf-size", 4, buf_size))
        given = [(name, (kind, value)) for name, kind, value in settings if value]
        self._client.call("domain_block_copy", wire("domain", domain), disk, xml, given, int(flags))


def wire(kind: str, reference: Sequence[Any]) -> Any:
    """A reference as it goes over the wire."""
    convert = to_wire(Field("", kind))
    return reference if convert is None else convert(reference)
