"""What ``blkdebug`` does at which event: rules, from options (``inject-error.0.event=``) and a configuration file."""

from __future__ import annotations

import errno as codes
import os
import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from hostel.block.options import Kind, Option, OptionError, Options, Value
from hostel.errors import BlockError
from hostel.units import INT64_MAX, SECTOR

_EVENTS: Final = """
    l1_update l1_grow_alloc_table l1_grow_write_table l1_grow_activate_table l2_load l2_update l2_update_compressed
    l2_alloc_cow_read l2_alloc_write read_aio read_backing_aio read_compressed write_aio write_compressed vmstate_load
    vmstate_save cow_read cow_write reftable_load reftable_grow reftable_update refblock_load refblock_update
    refblock_update_part refblock_alloc refblock_alloc_hookup refblock_alloc_write refblock_alloc_write_blocks
    refblock_alloc_write_table refblock_alloc_switch_table cluster_alloc cluster_alloc_bytes cluster_free flush_to_os
    flush_to_disk pwritev_rmw_head pwritev_rmw_after_head pwritev_rmw_tail pwritev_rmw_after_tail pwritev pwritev_zero
    pwritev_done empty_image_prepare l1_shrink_write_table l1_shrink_free_l2_clusters cor_write cluster_alloc_space
    none
"""
EVENTS: Final = frozenset(_EVENTS.split())
IO_TYPES: Final = ("read", "write", "write-zeroes", "discard", "flush", "block-status")
_DEFAULT_IO_TYPES: Final = frozenset(IO_TYPES) - {"block-status"}

_EVENT: Final = Option("event", Kind.STRING, "the event that makes the rule active")
_STATE: Final = Option("state", Kind.NUMBER, "the state in which it does; 0 for any", "0")
GROUPS: Final = {
    "inject-error": Options(
        _EVENT,
        _STATE,
        Option("iotype", Kind.STRING, "the kind of request that fails; all but block-status where not given"),
        Option("errno", Kind.NUMBER, "how it fails", str(codes.EIO)),
        Option("sector", Kind.NUMBER, "the sector that a request must touch to fail; -1 for any", "-1"),
        Option("once", Kind.BOOL, "fail once only", "off"),
        Option("immediately", Kind.BOOL, "fail before the request was queued", "off"),
    ),
    "set-state": Options(
        _EVENT,
        _STATE,
        Option("new_state", Kind.NUMBER, "the state that follows", "0"),
    ),
}


class Injection(NamedTuple):
    """Requests fail from the event on.

    Attributes:
        state: the state in which the event counts; 0 for any.
        offset: bytes; only requests that touch it fail, -1 for all.
    """

    event: str
    state: int
    errno: int
    once: bool
    offset: int
    io_types: frozenset[str]

    def hits(self, io_type: str, offset: int, length: int) -> bool:
        """Whether a request fails."""
        return io_type in self.io_types and (self.offset < 0 or offset <= self.offset < offset + length)


class StateChange(NamedTuple):
    """The event leads to another state."""

    event: str
    state: int
    new_state: int


class Breakpoint(NamedTuple):
    """The request that comes to the event is suspended."""

    event: str
    tag: str
    state: int = 0


Rule = Injection | StateChange | Breakpoint


def rules(options: Mapping[str, Value], config: str | None) -> list[Rule]:
    """The rules of a configuration file, then those of the options, in the order in which they are written.

    Raises:
        BlockError: the file cannot be read.
        OptionError: a rule is wrong.
    """
    groups = _read_config(config) if config else []
    groups += _from_options(options)
    found: list[Rule] = []
    # All rules of one kind come before those of the other, however they are mixed.
    for kind in GROUPS:
        found += [_rule(name, given) for name, given in groups if name == kind]
    return found


def _rule(kind: str, given: Mapping[str, str]) -> Rule:
    values = GROUPS[kind].convert(given)
    if "event" not in values:
        raise OptionError("Missing event name for rule")
    event = str(values["event"])
    if event not in EVENTS:
        raise OptionError(f"invalid parameter value: {event}")
    state = int(values["state"])
    if kind == "set-state":
        return StateChange(event, state, int(values["new_state"]))
    io_type = values.get("iotype")
    if io_type is not None and io_type not in IO_TYPES:
        raise OptionError(f"invalid parameter value: {io_type}")
    sector = int(values["sector"])
    return Injection(
        event,
        state,
        int(values["errno"]),
        bool(values["once"]),
        -1 if sector > INT64_MAX else sector * SECTOR,  # -1 is read as the largest unsigned number
        _DEFAULT_IO_TYPES if io_type is None else frozenset((str(io_type),)),
    )


def _from_options(options: Mapping[str, Value]) -> list[tuple[str, dict[str, str]]]:
    """Groups from ``kind.key`` or ``kind.number.key``."""
    numbered: dict[tuple[str, int], dict[str, str]] = {}
    for name, value in options.items():
        kind, _, rest = name.partition(".")
        if kind not in GROUPS:
            continue
        number, dot, key = rest.partition(".")
        if not dot or not number.isascii() or not number.isdigit() or len(number) > 9:
            number, key = "0", rest
        if key not in GROUPS[kind]:
            raise OptionError(f"Invalid parameter '{key}'")
        numbered.setdefault((kind, int(number)), {})[key] = str(value)
    return [(kind, numbered[kind, number]) for kind, number in sorted(numbered)]


_GROUP: Final = re.compile(r'\[\s*(\S+?)(?:\s+"[^"]*")?\s*\]')
_ASSIGNMENT: Final = re.compile(r'\s*(\S+)\s*=\s*"([^"]*)"')
_MAX_CONFIG: Final = 1 << 20  # bytes


def _read_config(path: str) -> list[tuple[str, dict[str, str]]]:
    """Read ``[group]`` headers and ``key = "value"`` lines."""
    try:
        with open(path, "rb") as stream:
            text = stream.read(_MAX_CONFIG + 1)
    except (OSError, ValueError) as error:
        code = (error.errno if isinstance(error, OSError) else None) or codes.EINVAL
        raise BlockError(f"Could not read blkdebug config file: {os.strerror(code)}", errno=code) from None
    if len(text) > _MAX_CONFIG:
        raise BlockError(f"The blkdebug config file '{path}' has more than {_MAX_CONFIG} bytes", errno=codes.EFBIG)
    groups: list[tuple[str, dict[str, str]]] = []
    for number, line in enumerate(text.decode(errors="surrogateescape").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        if match := _GROUP.match(line):
            if match[1] not in GROUPS:
                raise OptionError(f"{path}:{number}: There is no option group '{match[1]}'")
            groups.append((match[1], {}))
        elif match := _ASSIGNMENT.match(line):
            if not groups:
                raise OptionError(f"{path}:{number}: no group defined")
            kind, given = groups[-1]
            if match[1] not in GROUPS[kind]:
                raise OptionError(f"{path}:{number}: Invalid parameter '{match[1]}'")
            given[match[1]] = match[2]
        else:
            raise OptionError(f"{path}:{number}: parse error")
    return groups
