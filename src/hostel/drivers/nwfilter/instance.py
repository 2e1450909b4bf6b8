"""The rules of a filter and of those it refers to, with the values of their variables (``nwfilter_params.c``)."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from hostel.errors import ErrorCode, ModelError
from hostel.model.nwfilter.filter import Filter, FilterReference, Rule
from hostel.model.nwfilter.value import ETHERNET_TYPES, OPCODES, PROTOCOLS

Variables = Mapping[str, Sequence[str]]

_ACCESS: Final = re.compile(r"\$([a-zA-Z0-9_]+)(?:\[(@?)([0-9]+)\])?")
_NAMED: Final = {
    "protocolid": ETHERNET_TYPES,
    "encap_protocol": ETHERNET_TYPES,
    "opcode": OPCODES,
    "protocol": PROTOCOLS,
}
_TEXTS: Final = ("comment", "ipset")


class Instance(NamedTuple):
    """A rule in its chain."""

    chain: str
    chain_priority: int
    rule: Rule
    variables: Variables


def instances(
    filter: Filter, variables: Variables, find: Callable[[str], Filter], inside: tuple[str, ...] = ()
) -> Iterator[Instance]:
    """The rules of a completed filter and, in their place, those of the filters that ``find`` has for its references.

    Raises:
        ModelError: a filter refers to itself.
    """
    for entry in filter.entries:
        if isinstance(entry, Rule):
            yield Instance(filter.chain or "root", int(filter.priority or 0), entry, variables)
        elif isinstance(entry, FilterReference):
            name = entry.filter or ""
            path = (*inside, filter.name or "")
            if name in path:
                reason = f"the filter '{name}' refers to itself: {' > '.join((*path, name))}"
                raise ModelError("/filter/filterref/@filter", reason, code=ErrorCode.OPERATION_FAILED)
            own: dict[str, list[str]] = {}
            for parameter in entry.parameters:
                own.setdefault(parameter.name or "", []).append(parameter.value or "")
            yield from instances(find(name), {**own, **variables}, find, path)


class Packet:
    """What a rule looks at, with one value for each of its variables."""

    def __init__(self, rule: Rule, chosen: Mapping[str, str]) -> None:
        self._chosen = chosen
        self._values = dict(_values(rule))

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def sign(self, name: str) -> list[str]:
        """What negates an option, where it is negated."""
        return ["!"] if self._values[name][1] else []

    def value(self, name: str) -> str:
        """A value; numbers in decimal."""
        written = self._values[name][0]
        if written.startswith("$"):
            return self._chosen[written]
        if name in _TEXTS:
            return written
        number = _NAMED.get(name, {}).get(written)
        if number is not None:
            return str(number)
        return str(int(written, 16)) if written.startswith("0x") else written

    def hexadecimal(self, name: str) -> str:
        """A number in hexadecimal; a variable's value as it is."""
        value = self.value(name)
        return value if self._values[name][0].startswith("$") else f"0x{int(value):x}"


def packets(instance: Instance) -> Iterator[Packet]:
    """What a rule looks at, once for every combination of its variables' values.

    Raises:
        ModelError: a variable has no value, or lists that are gone through together are not of one length.
    """
    written = dict.fromkeys(value for _, (value, _) in _values(instance.rule) if value.startswith("$"))
    for chosen in _combinations(list(written), instance.variables):
        yield Packet(instance.rule, chosen)


def missing(instances: Iterable[Instance]) -> list[str]:
    """The variables that have no value, or not so many of them, as rules write them, without the ``$``."""
    found: dict[str, None] = {}
    for instance in instances:
        for _, (value, _) in _values(instance.rule):
            access = _ACCESS.fullmatch(value)
            if access is None:
                continue
            name, at, number = access.groups()
            values = instance.variables.get(name)
            if not values or (number is not None and not at and int(number) >= len(values)):
                found[value.removeprefix("$")] = None
    return sorted(found)


def _values(rule: Rule) -> Iterator[tuple[str, tuple[str, bool]]]:
    """The attributes of all the matches, in the order in which the protocol has them, and whether they are negated."""
    found = {
        field.name: (value, match.match == "no")
        for match in rule.matches
        for field in match.FIELDS
        if field.name != "match" and (value := getattr(match, field.name)) is not None
    }
    names = [field.name for field in rule.matches[0].FIELDS] if rule.matches else []
    yield from ((name, found[name]) for name in names if name in found)


def _combinations(written: list[str], variables: Variables) -> Iterator[Mapping[str, str]]:
    """Variables of one iterator are gone through together, equal values once; the first iterator goes fastest."""
    together: dict[str, list[str]] = {"@0": []}
    for access in written:
        found = _ACCESS.fullmatch(access)
        if found is None:
            raise _wrong(f"'{access}' is no variable; write $NAME, $NAME[@iterator] or $NAME[index]")
        _, at, number = found.groups()
        key = access if number is not None and not at else f"@{number or 0}"
        together.setdefault(key, []).append(access)
    for choice in itertools.product(*reversed([_steps(accesses, variables) for accesses in together.values()])):
        yield {access: value for step in choice for access, value in step.items()}


def _steps(accesses: Iterable[str], variables: Variables) -> list[dict[str, str]]:
    lists = {access: _list(access, variables) for access in accesses}
    if len({len(values) for values in lists.values()}) > 1:
        raise _wrong("Cardinality of list items must be the same for processing them in parallel")
    steps = dict.fromkeys(zip(*lists.values(), strict=True)) if lists else {(): None}
    return [dict(zip(lists, step, strict=True)) for step in steps]


def _list(access: str, variables: Variables) -> Sequence[str]:
    found = _ACCESS.fullmatch(access)
    assert found is not None
    name, at, number = found.groups()
    values = variables.get(name)
    if not values:
        raise _wrong(f"Could not find value for variable '{name}'")
    if number is None or at:
        return values
    if int(number) >= len(values):
        raise _wrong(f"Could not get nth ({number}) value of variable '{name}': it has {len(values)}")
    return [values[int(number)]]


def _wrong(reason: str) -> ModelError:
    return ModelError("/filter/rule", reason, code=ErrorCode.INTERNAL_ERROR)
