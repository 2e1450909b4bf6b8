"""Commands about the properties of objects, of which throttle groups have some that can be changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from hostel.block import objects
from hostel.block.filters.throttle import PROPERTIES, ThrottleGroup
from hostel.cli.storage_daemon.monitor.command import Command
from hostel.cli.storage_daemon.monitor.parameter import Kind, Parameter, check, generic, needed
from hostel.errors import QmpError

if TYPE_CHECKING:
    from hostel.cli.storage_daemon.daemon import Daemon

_TYPE: Final = "throttle-group"
_ROOT: Final = "/objects/"
_LIMITS: Final = (Parameter("limits", Kind.OBJECT, members=tuple(Parameter(name, Kind.INT) for name in PROPERTIES)),)


def _get(daemon: Daemon, given: Mapping[str, Any]) -> Any:
    group, name = _group(given["path"]), given["property"]
    if name == "type":
        return _TYPE
    if name == "limits":
        return group.properties
    return group.properties[_single(name)]


def _set(daemon: Daemon, given: Mapping[str, Any]) -> None:
    group, name = _group(given["path"]), given["property"]
    if name == "limits":
        group.change(check(_LIMITS, {"limits": given["value"]})["limits"])
        return
    if name == "type":
        raise generic(f"Property '{_TYPE}.{name}' is not writable")
    _single(name)
    raise generic("Property cannot be set after initialization")


def _single(name: str) -> str:
    """Which limit a property is."""
    found: str = name.removeprefix("x-")
    if found == name or found not in PROPERTIES:
        raise generic(f"Property '{_TYPE}.{name}' not found")
    return found


def _group(path: str) -> ThrottleGroup:
    found = objects.find(path.removeprefix(_ROOT))
    if found is None:
        raise QmpError("DeviceNotFound", f"Device '{path}' not found")
    if not isinstance(found, ThrottleGroup):
        raise generic(f"'{path}' has no properties that can be told or changed here: only throttle groups have")
    return found


COMMANDS: Final = (
    Command("qom-set", _set, (needed("path"), needed("property"), needed("value", Kind.ANY))),
    Command("qom-get", _get, (needed("path"), needed("property"))),
)
