"""Between the drivers' events and libvirt's messages, both ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from hostel.codec.xdr import Field, split_type
from hostel.drivers.adapters import typed_value, uuid_bytes, uuid_text
from hostel.drivers.events import DOMAIN_EVENTS, Event, Subject
from hostel.wire.rpc.procedure import Procedure
from hostel.wire.rpc.table.types import TYPES

# By libvirt's number for a domain's event: its message.
_DOMAIN_MESSAGES: Final = (
    "lifecycle", "reboot", "rtc_change", "watchdog", "io_error", "graphics", "io_error_reason", "control_error",
    "block_job", "disk_change", "tray_change", "pmwakeup", "pmsuspend", "balloon_change", "pmsuspend_disk",
    "device_removed", "domain_event_block_job_2", "tunable", "agent_lifecycle", "device_added", "migration_iteration",
    "job_completed", "device_removal_failed", "metadata_change", "domain_event_block_threshold",
    "domain_event_memory_failure", "domain_event_memory_device_size_change",
)  # fmt: skip
# What members of messages are called in an event's details, besides their own names.
_DETAILS: Final = {
    "dev_alias": ("alias", "devAlias"),
    "src_path": ("srcPath", "path"),
    "old_src_path": ("old", "oldSrcPath"),
    "new_src_path": ("new", "newSrcPath"),
    "auth_scheme": ("authScheme",),
    "offset": ("utcoffset",),
    "path": ("disk",),
    "dst": ("disk",),
    "nsuri": ("uri",),
}
# What a job tells that is no unsigned long long, by virTypedParameterType.
JOB_TYPES: Final = {"operation": 1, "success": 6}
# Messages whose members are called as in C.
_AS_IN_C: Final = frozenset({"io-error", "io-error-reason"})
_EMPTY: Final[dict[str, Any]] = {"str": "", "str?": None, "domain_event_graphics_address": (0, "", "")}
_PREFIXES: Final = {Subject.POOL: "storage_pool", Subject.NODE_DEVICE: "node_device"}


def message_of(subject: Subject, kind: str, *, legacy: bool = False) -> str:
    """The message of a kind of event; a ``legacy`` one has no number of a registration."""
    if subject is Subject.MONITOR:
        return "domain_monitor_event"
    if subject is Subject.DOMAIN:
        name = _DOMAIN_MESSAGES[DOMAIN_EVENTS.index(kind)]
        if name.startswith("domain_event_"):
            return name
        return f"domain_event_{name}" if legacy else f"domain_event_callback_{name}"
    return f"{_PREFIXES.get(subject, subject)}_event_{kind.replace('-', '_')}"


def message_values(procedure: Procedure, number: int, event: Event) -> Sequence[Any]:
    """The members of a message about an event, for the registration of a number."""
    return [_member(field, number, event) for field in procedure.arguments.fields]


def event_of(subject: Subject, kind: str, procedure: Procedure, values: Sequence[Any]) -> Event:
    """The event that a message tells."""
    name, uuid, number = "", "", -1
    detail: dict[str, Any] = {}
    for field, value in zip(procedure.arguments.fields, values, strict=True):
        item = split_type(field.type)[0]
        if field.name == "callback_id":
            continue
        if item in ("domain", "network", "pool"):
            name, uuid = value.name, uuid_text(value.uuid)
            number = value.id if item == "domain" else -1
        elif item in ("node_device", "secret"):
            name = value.name if item == "node_device" else value.usage_id
            uuid = uuid_text(value.uuid) if item == "secret" else ""
        elif item == "param":
            detail.update((parameter, inner) for parameter, (_, inner) in value)
        else:
            names = _DETAILS.get(field.name, (field.name,))
            as_in_c = next((name for name in names if not name.islower()), names[0])
            detail[as_in_c if kind in _AS_IN_C else names[0]] = _named(value, item)
    return Event(subject, kind, name, uuid, number, detail)


def _member(field: Field, number: int, event: Event) -> Any:
    if field.name == "callback_id":
        return number
    if field.type == "domain":
        return (event.name, uuid_bytes(event.uuid), event.id)
    if field.type in ("network", "pool"):
        return (event.name, uuid_bytes(event.uuid))
    if field.type == "node_device":
        return (event.name,)
    if field.type == "secret":
        return (uuid_bytes(event.uuid), event.detail.get("usage_type", 0), event.name)
    if field.type.startswith("param<"):
        kinds = JOB_TYPES if event.kind == "job-completed" else {}
        return [(name, typed_value(value, kinds.get(name))) for name, value in event.detail.items()]
    if event.subject is Subject.MONITOR and field.name == "event":
        return event.kind
    for name in (field.name, *_DETAILS.get(field.name, ())):
        if name in event.detail:
            return _packed(event.detail[name], field)
    return [] if field.type.endswith(">") else _EMPTY.get(field.type, 0)


def _packed(value: Any, field: Field) -> Any:
    """Structures, which are mappings in details, as their members in order."""
    if isinstance(value, list):
        return [_packed(item, field) for item in value]
    if isinstance(value, Mapping):
        return [value[member.name] for member in TYPES.fields(split_type(field.type)[0])]
    return value


def _named(value: Any, item: str) -> Any:
    if isinstance(value, list):
        return [_named(one, item) for one in value]
    return value._asdict() if hasattr(value, "_asdict") else value
