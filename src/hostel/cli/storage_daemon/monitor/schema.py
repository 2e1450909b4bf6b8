"""``query-qmp-schema``: what commands take and events tell, drawn from the declarations that check and send them.

Types have numbers for names, as in QEMU; clients follow them from the names of commands and events. Answers, but for
empty ones, are told as ``any``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from hostel.block import registry
from hostel.block.blockdev import FILE_OPTIONS, NODE_OPTIONS
from hostel.block.driver import Supports
from hostel.block.options import Kind as OptionKind
from hostel.block.options import Options
from hostel.block.schema import NEEDED
from hostel.cli.qemu.object_types import INT, OF_DAEMONS, SWITCH, TEXT, WORDS, Property, sayable
from hostel.cli.storage_daemon import exports, place
from hostel.cli.storage_daemon.monitor import creation, export
from hostel.cli.storage_daemon.monitor.command import Command
from hostel.cli.storage_daemon.monitor.parameter import Kind, Parameter, needed
from hostel.cli.storage_daemon.monitor.session import CAPABILITIES, NEGOTIATION

if TYPE_CHECKING:
    from hostel.cli.storage_daemon.daemon import Daemon

_JSON: Final = {"str": "string", "int": "int", "bool": "boolean", "any": "value", "null": "null"}
_KINDS: Final = {Kind.STRING: "str", Kind.BOOL: "bool", Kind.OBJECT: "any", Kind.ANY: "any"}
_OPTION_KINDS: Final = {OptionKind.STRING: "str", OptionKind.BOOL: "bool"}
# The commands that answer nothing.
_VALUES: Final = (
    "blockdev-snapshot-delete-internal-sync",
    "chardev-add",
    "chardev-change",
    "qom-get",
    "qom-list",
    "qom-list-properties",
    "qom-list-types",
    "ringbuf-read",
    "x-debug-block-dirty-bitmap-sha256",
)
_JOB: Final = (needed("type"), needed("device"), *(needed(name, Kind.INT) for name in ("len", "offset", "speed")))
_SECTORS: Final = (needed("sector-num", Kind.INT), needed("sectors-count", Kind.INT))
_EVENTS: Final[Mapping[str, Sequence[Parameter]]] = {
    "BLOCK_EXPORT_DELETED": (needed("id"),),
    "BLOCK_IMAGE_CORRUPTED": (
        needed("device"),
        Parameter("node-name"),
        needed("msg"),
        Parameter("offset", Kind.INT),
        Parameter("size", Kind.INT),
        needed("fatal", Kind.BOOL),
    ),
    "BLOCK_JOB_CANCELLED": _JOB,
    "BLOCK_JOB_COMPLETED": (*_JOB, Parameter("error")),
    "BLOCK_JOB_ERROR": (needed("device"), needed("operation"), needed("action")),
    "BLOCK_JOB_PENDING": (needed("type"), needed("id")),
    "BLOCK_JOB_READY": _JOB,
    "BLOCK_WRITE_THRESHOLD": (
        needed("node-name"),
        needed("amount-exceeded", Kind.INT),
        needed("write-threshold", Kind.INT),
    ),
    "JOB_STATUS_CHANGE": (needed("id"), needed("status")),
    "QUORUM_FAILURE": (needed("reference"), *_SECTORS),
    "QUORUM_REPORT_BAD": (needed("type"), Parameter("error"), needed("node-name"), *_SECTORS),
}
# Options that only names stand for, or that every driver has.
_IMPLIED: Final = ("driver", "=keyvalue-pairs")
_NODE: Final = (
    Parameter("node-name"),
    Parameter("discard", values=("ignore", "unmap")),
    Parameter("cache", Kind.OBJECT, members=(Parameter("direct", Kind.BOOL), Parameter("no-flush", Kind.BOOL))),
    Parameter("read-only", Kind.BOOL),
    Parameter("auto-read-only", Kind.BOOL),
    Parameter("force-share", Kind.BOOL),
    Parameter("detect-zeroes", values=("off", "on", "unmap")),
)


_OBJECT_KINDS: Final = {TEXT: Kind.STRING, SWITCH: Kind.BOOL, INT: Kind.INT, "int32_t": Kind.INT}


def _said(declared: Property) -> Parameter:
    kind = Kind.ARRAY if declared.many else _OBJECT_KINDS.get(declared.type, Kind.ANY)
    if declared.type in WORDS:
        kind = Kind.STRING
    return Parameter(declared.name, kind, declared.needed, WORDS.get(declared.type, ()))


class _Schema:
    """The entities, each told once."""

    def __init__(self) -> None:
        self.entities: list[dict[str, Any]] = []
        self._names: dict[object, str] = {}
        self._node = ""

    def type_of(self, parameter: Parameter) -> str:
        """The type of a parameter."""
        if parameter.values:
            return self.enum(parameter.values)
        if parameter.members:
            return self.record(parameter.members)
        if parameter.kind is Kind.ARRAY:
            return self.array("any")
        return self.builtin(_KINDS.get(parameter.kind, "int"))

    def builtin(self, name: str) -> str:
        """One of JSON's own types."""
        if name not in self._names:
            self._names[name] = name
            self.entities.append({"name": name, "meta-type": "builtin", "json-type": _JSON[name]})
        return name

    def array(self, element: str) -> str:
        """An array of a type."""
        name = f"[{element}]"
        if name not in self._names:
            self._names[name] = name
            if element in _JSON:
                self.builtin(element)
            self.entities.append({"name": name, "meta-type": "array", "element-type": element})
        return name

    def enum(self, values: Iterable[str]) -> str:
        """One of several words."""
        values = tuple(values)
        return self.add(
            values, {"meta-type": "enum", "members": [{"name": value} for value in values], "values": list(values)}
        )

    def record(self, members: Sequence[Parameter]) -> str:
        """An object that has these members."""
        return self.add(tuple(members), {"meta-type": "object", "members": self.members(members)})

    def union(self, tag: Parameter, common: Sequence[Parameter], variants: Mapping[str, Sequence[Parameter]]) -> str:
        """An object whose members depend on one of them."""
        cases = [{"case": case, "type": self.record(members)} for case, members in variants.items()]
        shown = {"meta-type": "object", "members": self.members((tag, *common)), "tag": tag.name, "variants": cases}
        return self.add((tag, *common, *variants), shown)

    def members(self, parameters: Iterable[Parameter]) -> list[dict[str, Any]]:
        """Members of an object; those that may be left out have a default, which is not told."""
        return [
            {"name": each.name, "type": self.type_of(each)} | ({} if each.required else {"default": None})
            for each in parameters
        ]

    def add(self, key: object, entity: dict[str, Any]) -> str:
        """An entity that nothing here has a method for; ``key`` says which ones are the same."""
        if key not in self._names:
            self._names[key] = self._number()
            self.entities.append({"name": self._names[key], **entity})
        return self._names[key]

    def _number(self) -> str:
        """The next name."""
        return str(sum(1 for name in self._names.values() if name.isdigit()))

    def node(self) -> str:
        """What ``blockdev-add`` takes; children are such an object, or the name of a node."""
        if self._node:
            return self._node
        self._node = self._names["node"] = self._number()
        either = [{"type": self._node}, {"type": self.builtin("str")}]
        reference = self.add("reference", {"meta-type": "alternate", "members": either})
        drivers = ("file", "host_device", *registry.FORMATS, *registry.PROTOCOLS, *registry.FILTERS)
        cases = [{"case": name, "type": self._driver(name, reference)} for name in drivers]
        tag = needed("driver", values=tuple(drivers))
        members = self.members((tag, *_NODE))
        self.entities.append(
            {"name": self._node, "meta-type": "object", "members": members, "tag": "driver", "variants": cases}
        )
        return self._node

    def _driver(self, name: str, reference: str) -> str:
        """What a driver takes beside what every node does."""
        options, edges, lists, required = _declared(name)
        shown = [each for each in options if each.name not in (*_IMPLIED, *edges) and each.name not in NODE_OPTIONS]
        members = self._nested([(option.name, option.kind) for option in shown])
        for edge in edges:
            members.append({"name": edge, "type": self.array(reference) if lists else reference, "default": None})
        for member in members:
            if member["name"] in required:
                del member["default"]
        return self.add(("driver", name), {"meta-type": "object", "members": members})

    def _nested(self, options: Sequence[tuple[str, OptionKind]]) -> list[dict[str, Any]]:
        """Members out of dotted names."""
        groups: dict[str, list[tuple[str, OptionKind]]] = {}
        for name, kind in options:
            head, _, tail = name.partition(".")
            groups.setdefault(head, []).append((tail, kind))
        found = []
        for head, parts in groups.items():
            if parts[0][0]:
                shown = self.add(tuple(parts), {"meta-type": "object", "members": self._nested(parts)})
            else:
                shown = self.builtin(_OPTION_KINDS.get(parts[0][1], "int"))
            found.append({"name": head, "type": shown, "default": None})
        return found


def _declared(name: str) -> tuple[Options, tuple[str, ...], bool, tuple[str, ...]]:
    """A driver's options, its children's edges, whether there are several of each, and which must be there."""
    if name in registry.FILES:
        return FILE_OPTIONS, (), False, NEEDED.get(name, ())
    if name in registry.PROTOCOLS:
        return registry.protocol_driver(name).options, (), False, NEEDED.get(name, ())
    if name in registry.FILTERS:
        row = registry.FILTERS[name]
        return registry.filter_driver(name).options, row.edges, row.lists, (*row.edges, *NEEDED.get(name, ()))
    driver = registry.format_driver(name)
    more: tuple[str, ...] = ("backing",) if driver.supports & Supports.BACKING else ()
    more += ("data-file",) if name == "qcow2" else ()
    return driver.options, ("file", *more, *registry.FORMATS[name].parts), False, ("file",)


def _arguments(schema: _Schema, command: Command) -> str:
    if command.name == "blockdev-add":
        return schema.node()
    if command.name == "blockdev-reopen":
        options = {"name": "options", "type": schema.array(schema.node())}
        return schema.add("reopen", {"meta-type": "object", "members": [options]})
    if command.name == "block-export-add":
        tag, *common = exports.COMMON
        tag = tag._replace(values=tuple(exports.KINDS))
        return schema.union(tag, common, {name: row.parameters for name, row in exports.KINDS.items()})
    if command.name == "object-add":
        kinds = {kind: tuple(map(_said, sayable(kind))) for kind in OF_DAEMONS}
        return schema.union(needed("qom-type", values=tuple(kinds)), (needed("id"),), kinds)
    if command.name == "nbd-server-start":
        data = {kind: (needed("data", Kind.OBJECT)._replace(members=parts),) for kind, parts in place.PARTS.items()}
        address = schema.union(needed("type", values=tuple(data)), (), data)
        members = [{"name": "addr", "type": address}, *schema.members(export.SERVER[1:])]
        return schema.add("server", {"meta-type": "object", "members": members})
    if command.name in creation.CHOICES:
        choices = creation.CHOICES[command.name]
        options = {"name": "options", "type": schema.union(needed("driver", values=tuple(choices)), (), choices)}
        rest = [each for each in command.parameters or () if each.name != "options"]
        return schema.add(command.name, {"meta-type": "object", "members": [*schema.members(rest), options]})
    return schema.record(command.parameters or ())


def _query(daemon: Daemon, _: Mapping[str, Any]) -> Any:
    from hostel.cli.storage_daemon.monitor import registry as commands

    schema = _Schema()
    negotiation = Command(NEGOTIATION, _query, (Parameter("enable", Kind.ARRAY, values=()),))
    for command in (negotiation, *commands.commands().values()):
        answers = command.name.startswith(("query-", "x-debug-query")) or command.name in _VALUES
        returned = schema.builtin("any") if answers else schema.record(())
        schema.entities.append(
            {
                "name": command.name,
                "meta-type": "command",
                "arg-type": _arguments(schema, command),
                "ret-type": returned,
            }
        )
    for name, members in _EVENTS.items():
        schema.entities.append({"name": name, "meta-type": "event", "arg-type": schema.record(members)})
    schema.enum(CAPABILITIES)
    return schema.entities


COMMANDS: Final = (Command("query-qmp-schema", _query),)
