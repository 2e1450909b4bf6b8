"""Calls about running machines that are not a method of a driver with other words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from hostel.daemon.access import api_name
from hostel.drivers.adapters import check_flags, typed_value, uuid_bytes, uuid_text
from hostel.drivers.base import DomainRef, DomainState, StartFlag
from hostel.drivers.base.domain import Affect
from hostel.drivers.base.dumping import DumpFlag, DumpFormat
from hostel.drivers.base.machine import MEMORY_STATS, MachineDriver, MemoryFlag, StatsFlag, VcpuFlag
from hostel.drivers.base.saving import SaveFlag
from hostel.drivers.fault import fault
from hostel.drivers.messages import JOB_TYPES
from hostel.drivers.tuning.parameter import ParameterType, check
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.wire.rpc.connection import Call

if TYPE_CHECKING:
    from hostel.daemon.client import Client

_HUMAN: Final = 1  # of virDomainQemuMonitorCommandFlags
# virConnectGetAllDomainStatsFlags: which domains, and how.
_ACTIVE, _INACTIVE, _PERSISTENT, _TRANSIENT, _RUNNING, _PAUSED, _SHUTOFF, _OTHER = (1 << bit for bit in range(8))
_NOWAIT, _BACKING, _ENFORCE = 1 << 29, 1 << 30, 1 << 31
_DOMAINS: Final = 255
_COMPLETED, _KEEP = 1, 2  # of virDomainGetJobStatsFlags
_SAVED: Final = dict.fromkeys(("file", "dxml"), ParameterType.STRING)
_ULLONG = 4  # of virTypedParameterType
# virDomainJobInfo's members after the first, by the names that they have as parameters.
_JOB_NUMBERS: Final = (
    "time_elapsed", "time_remaining", "data_total", "data_processed", "data_remaining", "memory_total",
    "memory_processed", "memory_remaining", "disk_total", "disk_processed", "disk_remaining",
)  # fmt: skip


def driver_of(client: Client, call: Call, method: str) -> MachineDriver:
    """The driver, which must have a method.

    Raises:
        VirtError: ``NO_SUPPORT``.
    """
    assert client.host is not None
    driver: object = client.host.drivers.hypervisor
    if not hasattr(driver, method):
        raise fault(ErrorCode.NO_SUPPORT, api_name(call.procedure.name))
    return driver  # type: ignore[return-value]


def domain_of(wire: Any) -> DomainRef:
    """The reference of a domain on the wire."""
    return DomainRef(wire.name, uuid_text(wire.uuid), wire.id)


def _security_labels(client: Client, call: Call) -> Sequence[Any]:
    driver: Any = driver_of(client, call, "domain_get_security_label_list")
    labels = driver.domain_get_security_label_list(domain_of(call.arguments[0]))
    return [(label.label.encode() + b"\0", int(label.enforcing)) for label in labels], len(labels)


def _memory_stats(client: Client, call: Call) -> Sequence[Any]:
    domain, wanted, flags = call.arguments
    check_flags(flags, 0, "virDomainMemoryStats")
    stats = driver_of(client, call, "domain_memory_stats").domain_memory_stats(domain_of(domain))
    return ([(MEMORY_STATS.index(name), value) for name, value in stats.items() if name in MEMORY_STATS][:wanted],)


def _set_memory(client: Client, call: Call) -> Sequence[Any]:
    driver = driver_of(client, call, "domain_set_memory_flags")
    driver.domain_set_memory_flags(domain_of(call.arguments[0]), call.arguments[1], Affect.LIVE)
    return ()


def _set_max_memory(client: Client, call: Call) -> Sequence[Any]:
    driver = driver_of(client, call, "domain_set_memory_flags")
    driver.domain_set_memory_flags(domain_of(call.arguments[0]), call.arguments[1], Affect.CURRENT, MemoryFlag.MAXIMUM)
    return ()


def _set_vcpus(client: Client, call: Call) -> Sequence[Any]:
    driver = driver_of(client, call, "domain_set_vcpus_flags")
    driver.domain_set_vcpus_flags(domain_of(call.arguments[0]), call.arguments[1], Affect.LIVE, VcpuFlag.NONE)
    return ()


def _all_stats(client: Client, call: Call) -> Sequence[Any]:
    domains, stats, flags = call.arguments
    check_flags(flags, _DOMAINS | _NOWAIT | _BACKING | _ENFORCE, "virConnectGetAllDomainStats")
    if flags & _ENFORCE:
        check_flags(stats, sum(StatsFlag), "virConnectGetAllDomainStats")
    driver = driver_of(client, call, "connect_get_all_domain_stats")
    refs = [domain_of(domain) for domain in domains]
    known = StatsFlag(stats & sum(StatsFlag))
    is_unknown = bool(stats) and not known  # of which every domain has nothing to say
    records = driver.connect_get_all_domain_stats(
        refs, StatsFlag.STATE if is_unknown else known, backing=bool(flags & _BACKING), enforce=bool(flags & _ENFORCE)
    )
    chosen = [
        (ref, {} if is_unknown else values) for ref, values in records if _is_wanted(client, ref, flags & _DOMAINS)
    ]
    return (
        [
            ((ref.name, uuid_bytes(ref.uuid), ref.id), [(name, typed_value(value)) for name, value in values.items()])
            for ref, values in chosen
        ],
    )


def _is_wanted(client: Client, ref: DomainRef, flags: int) -> bool:
    """Whether a domain passes libvirt's filters, which are those of lists."""
    assert client.host is not None
    driver = client.host.drivers.hypervisor
    if flags & (_ACTIVE | _INACTIVE) and not flags & (_ACTIVE if ref.id != -1 else _INACTIVE):
        return False
    try:
        if flags & (_PERSISTENT | _TRANSIENT):
            kept = driver.domain_is_persistent(ref)
            if not flags & (_PERSISTENT if kept else _TRANSIENT):
                return False
        if flags & (_RUNNING | _PAUSED | _SHUTOFF | _OTHER):
            bits = {DomainState.RUNNING: _RUNNING, DomainState.PAUSED: _PAUSED, DomainState.SHUTOFF: _SHUTOFF}
            return bool(flags & bits.get(driver.domain_get_state(ref).state, _OTHER))
    except VirtError as error:
        if error.code is not ErrorCode.NO_DOMAIN:
            raise
        return False
    return True


def _monitor_command(client: Client, call: Call) -> Sequence[Any]:
    domain, command, flags = call.arguments
    check_flags(flags, _HUMAN, api_name(call.procedure.name))
    if len(call.fds) > 1:
        what = "at most 1 fd can be passed to qemu along with a command"
        raise fault(ErrorCode.INVALID_ARG, what, ErrorDomain.QEMU)
    driver = driver_of(client, call, "domain_qemu_monitor_command")
    human = bool(flags & _HUMAN)
    return (driver.domain_qemu_monitor_command(domain_of(domain), command, human=human, files=call.fds),)


def _agent_command(client: Client, call: Call) -> Sequence[Any]:
    domain, command, timeout, flags = call.arguments
    check_flags(flags, 0, "virDomainQemuAgentCommand")
    driver: Any = driver_of(client, call, "domain_qemu_agent_command")
    return (driver.domain_qemu_agent_command(domain_of(domain), command, timeout),)


def _plug_live(method: str) -> Callable[[Client, Call], Sequence[Any]]:
    """Calls from before there were flags: they are about what runs."""

    def answer(client: Client, call: Call) -> Sequence[Any]:
        domain, xml = call.arguments
        getattr(driver_of(client, call, method), method)(domain_of(domain), xml, Affect.LIVE)
        return ()

    return answer


def _core_dump(client: Client, call: Call) -> Sequence[Any]:
    domain, to, flags = call.arguments
    check_flags(flags, sum(DumpFlag), "virDomainCoreDump")
    driver: Any = driver_of(client, call, "domain_core_dump_with_format")
    driver.domain_core_dump_with_format(domain_of(domain), to, DumpFormat.RAW, DumpFlag(flags))
    return ()


def _create_with_files(client: Client, call: Call) -> Sequence[Any]:
    domain, flags = call.arguments
    driver: Any = driver_of(client, call, "domain_create_with_files")
    return (_started(driver.domain_create_with_files(domain_of(domain), call.fds, _start_flags(flags))),)


def _create_xml_with_files(client: Client, call: Call) -> Sequence[Any]:
    xml, flags = call.arguments
    driver: Any = driver_of(client, call, "domain_create_xml_with_files")
    return (_started(driver.domain_create_xml_with_files(xml, call.fds, _start_flags(flags))),)


def _start_flags(flags: int) -> StartFlag:
    check_flags(flags, sum(StartFlag), "virDomainCreateWithFiles")
    return StartFlag(flags)


def _started(ref: DomainRef) -> tuple[str, bytes, int]:
    return ref.name, uuid_bytes(ref.uuid), ref.id


def _saved_where(call: Call) -> tuple[str | None, str | None, SaveFlag]:
    """The file and the document of a save, which are parameters; and how the machine goes on."""
    parameters, flags = call.arguments[-2:]
    given = {name: value for name, (_, value) in parameters}
    if call.procedure.name == "domain_save_params":
        check_flags(flags, sum(SaveFlag), api_name(call.procedure.name))
        check(given, _SAVED)
    else:
        check(given, _SAVED)
        check_flags(flags, sum(SaveFlag), api_name(call.procedure.name))
    return given.get("file"), given.get("dxml"), SaveFlag(flags)


def _save_params(client: Client, call: Call) -> Sequence[Any]:
    file, xml, flags = _saved_where(call)
    driver: Any = driver_of(client, call, "domain_save_flags")
    domain = domain_of(call.arguments[0])
    if file is not None:
        driver.domain_save_flags(domain, file, xml, flags)
        return ()
    driver.domain_managed_save(domain, flags)
    if xml is not None:
        driver.domain_managed_save_define_xml(domain, xml, flags)
    return ()


def _restore_params(client: Client, call: Call) -> Sequence[Any]:
    file, xml, flags = _saved_where(call)
    if file is None:
        raise fault(ErrorCode.INVALID_ARG, "missing path to restore from")
    driver: Any = driver_of(client, call, "domain_restore_flags")
    driver.domain_restore_flags(file, xml, flags)
    return ()


def _rename(client: Client, call: Call) -> Sequence[Any]:
    domain, new_name, flags = call.arguments
    check_flags(flags, 0, "virDomainRename")
    driver: Any = driver_of(client, call, "domain_rename")
    driver.domain_rename(domain_of(domain), new_name or "")
    return (0,)


def _job_stats(client: Client, call: Call) -> Sequence[Any]:
    domain, flags = call.arguments
    check_flags(flags, _COMPLETED | _KEEP, "virDomainGetJobStats")
    driver: Any = driver_of(client, call, "domain_get_job_stats")
    kind, stats = driver.domain_get_job_stats(domain_of(domain), flags)
    params = [(name, (JOB_TYPES.get(name, _ULLONG), value)) for name, value in stats.items()]
    return int(kind), params


def _job_info(client: Client, call: Call) -> Sequence[Any]:
    driver: Any = driver_of(client, call, "domain_get_job_stats")
    kind, stats = driver.domain_get_job_stats(domain_of(call.arguments[0]), 0)
    return int(kind), *(stats.get(name, 0) for name in _JOB_NUMBERS)


ANSWERS: Final[dict[str, Callable[[Client, Call], Sequence[Any]]]] = {
    "domain_attach_device": _plug_live("domain_attach_device_flags"),
    "domain_detach_device": _plug_live("domain_detach_device_flags"),
    "domain_core_dump": _core_dump,
    "domain_create_with_files": _create_with_files,
    "domain_create_xml_with_files": _create_xml_with_files,
    "domain_save_params": _save_params,
    "domain_restore_params": _restore_params,
    "domain_rename": _rename,
    "domain_get_job_stats": _job_stats,
    "domain_get_job_info": _job_info,
    "domain_get_security_label_list": _security_labels,
    "domain_memory_stats": _memory_stats,
    "domain_set_memory": _set_memory,
    "domain_set_max_memory": _set_max_memory,
    "domain_set_vcpus": _set_vcpus,
    "connect_get_all_domain_stats": _all_stats,
}
# Those of the program QEMU.
QEMU_ANSWERS: Final[dict[str, Callable[[Client, Call], Sequence[Any]]]] = {
    "domain_monitor_command": _monitor_command,
    "domain_monitor_command_with_files": _monitor_command,
    "domain_agent_command": _agent_command,
}
