"""Commands about the object model: what objects there are, of which types, and their properties."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hostel.block import objects
from hostel.block.filters.throttle import ThrottleGroup
from hostel.cli.qemu.failure import Failure
from hostel.cli.qemu.object_rules import check_loop, read_property
from hostel.cli.qemu.object_types import INT, SPELLED, TYPES, Property, is_a, properties
from hostel.cli.qemu.objects import make_again
from hostel.cli.storage_daemon.chardev import CharacterDevice
from hostel.cli.storage_daemon.monitor.command import Command
from hostel.cli.storage_daemon.monitor.parameter import Kind, Parameter, generic, needed
from hostel.errors import QmpError

if TYPE_CHECKING:
    from hostel.cli.storage_daemon.daemon import Daemon

_CONTAINERS: Final = ("objects", "chardevs")
_CREATABLE: Final = "user-creatable"
_REMADE: Final = ("authz-simple", "authz-list")  # of which a changed property counts at once


class _Found(NamedTuple):
    """Something that a path leads to.

    Attributes:
        type: its type.
        name: its own name; empty for containers.
        value: the object.
        given: its properties as they were given.
        children: the types of what is in it, by their names, and their paths.
    """

    type: str
    name: str = ""
    value: object = None
    given: Mapping[str, Any] = {}
    children: Mapping[str, tuple[str, str]] = {}


def _objects(daemon: Daemon) -> dict[str, _Found]:
    return {
        name: _Found(SPELLED.get(made.type, made.type), name, objects.find(name), made.given)
        for name, made in objects.known().items()
    }


def _devices(daemon: Daemon) -> dict[str, _Found]:
    return {label: _Found(f"chardev-{each.kind}", label, each) for label, each in daemon.devices.items()}


def _resolve(daemon: Daemon, path: str, *, lists: bool = False) -> _Found:
    """What a path leads to; one that is not absolute is the name of something anywhere.

    Raises:
        QmpError: it leads nowhere, or to several; where that may not be told apart it leads nowhere.
    """
    inside = {"objects": _objects(daemon), "chardevs": _devices(daemon)}
    parts = [part for part in path.split("/") if part]
    matches: list[_Found] = []
    if not path.startswith("/"):
        matches = [found[path] for found in inside.values() if path in found]
        if path in _CONTAINERS:
            matches.append(_container(path, inside[path]))
    elif not parts:
        matches = [_Found("container", children={name: ("container", f"/{name}") for name in _CONTAINERS})]
    elif parts[0] in inside and len(parts) == 1:
        matches = [_container(parts[0], inside[parts[0]])]
    elif parts[0] in inside and len(parts) == 2 and parts[1] in inside[parts[0]]:
        matches = [inside[parts[0]][parts[1]]]
    if len(matches) == 1:
        return matches[0]
    if lists and (matches or not path):
        raise generic(f"Path '{path}' is ambiguous")
    raise QmpError("DeviceNotFound", f"Device '{path}' not found")


def _container(name: str, found: Mapping[str, _Found]) -> _Found:
    return _Found("container", children={key: (each.type, f"/{name}/{key}") for key, each in found.items()})


def _list(daemon: Daemon, given: Mapping[str, Any]) -> Any:
    found = _resolve(daemon, given["path"], lists=True)
    children = [{"name": name, "type": f"child<{kind}>"} for name, (kind, _) in found.children.items()]
    return [*_shown(found.type), *children]


def _shown(kind: str) -> list[dict[str, Any]]:
    return [{"name": each.name, "type": each.type} for each in properties(kind).values()]


def _list_types(daemon: Daemon, given: Mapping[str, Any]) -> Any:
    wanted, abstract = given.get("implements", "object"), given.get("abstract", False)
    found = []
    for name, row in TYPES.items():
        fits = row.creatable if wanted == _CREATABLE else wanted in TYPES and is_a(name, wanted)
        if fits and (abstract or not row.abstract):
            shown: dict[str, Any] = {"name": name} | ({"abstract": True} if row.abstract else {})
            found.append(shown if row.parent is None else {**shown, "parent": row.parent})
    return found


def _list_properties(daemon: Daemon, given: Mapping[str, Any]) -> Any:
    name = given["typename"]
    if name == _CREATABLE:
        raise generic("Parameter 'typename' expects a QOM type")
    if name not in TYPES:
        raise QmpError("DeviceNotFound", f"Class '{name}' not found")
    return _shown(name)


def _get(daemon: Daemon, given: Mapping[str, Any]) -> Any:
    found, name = _resolve(daemon, given["path"]), given["property"]
    if name in found.children:
        return found.children[name][1]
    declared = properties(found.type).get(name)
    if declared is None:
        raise generic(f"Property '{found.type}.{name}' not found")
    if name == "type":
        return found.type
    if isinstance(found.value, ThrottleGroup):
        return found.value.properties if name == "limits" else found.value.properties[name.removeprefix("x-")]
    if isinstance(found.value, CharacterDevice):
        return found.value.address if name == "addr" else found.value.connected
    return found.given.get(name, declared.default)


def _set(daemon: Daemon, given: Mapping[str, Any]) -> None:
    found, name, value = _resolve(daemon, given["path"]), given["property"], given["value"]
    declared = properties(found.type).get(name)
    if declared is None:
        raise generic(f"Property '{found.type}.{name}' not found")
    if isinstance(found.value, ThrottleGroup):
        if name == "limits":
            found.value.change(_read(declared, value))
            return
        if name != "type":
            raise generic("Property cannot be set after initialization")
    if not declared.settable:
        raise generic(f"Property '{found.type}.{name}' is not writable")
    made = objects.known()[found.name]
    value = _read(declared, value)
    changed = {**made.given, name: value}
    try:
        if declared.type == INT:
            check_loop(changed)
        if found.type in _REMADE:
            objects.replace(found.name, make_again(found.type, changed))
    except Failure as error:
        raise generic(error.message) from None
    made.given[name] = value


def _read(declared: Property, value: Any) -> Any:
    try:
        return read_property(declared, value)
    except Failure as error:
        raise generic(error.message) from None


COMMANDS: Final = (
    Command("qom-list-properties", _list_properties, (needed("typename"),)),
    Command("qom-list-types", _list_types, (Parameter("implements"), Parameter("abstract", Kind.BOOL))),
    Command("qom-set", _set, (needed("path"), needed("property"), needed("value", Kind.ANY))),
    Command("qom-get", _get, (needed("path"), needed("property"))),
    Command("qom-list", _list, (needed("path"),)),
)
