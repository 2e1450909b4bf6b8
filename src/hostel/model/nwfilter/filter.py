"""The document of a network filter (``virNWFilterDefFormat``)."""

from __future__ import annotations

import re
import uuid as uuids
from collections.abc import Iterator
from typing import Final

from hostel.codec.xml import UUID, Element, Unknown, attr, children, choice, text
from hostel.errors import ErrorCode, ModelError
from hostel.model.nwfilter.match import MATCHES, IpMatch, Ipv6Match, Match

_UNKNOWN: Final = "unknown rule {name} attribute value"
_ACTIONS: Final = choice(
    "drop", "accept", "reject", "return", "continue", code=ErrorCode.CONFIG_UNSUPPORTED, words=_UNKNOWN
)
_DIRECTIONS: Final = choice("in", "out", "inout", code=ErrorCode.CONFIG_UNSUPPORTED, words=_UNKNOWN)
_PRIORITY: Final = 1000  # of a rule and of a chain, up and down
_NORMAL: Final = 500
_NUMBER: Final = re.compile(r"\s*[+-]?0{0,99}[0-9]{1,9}", re.ASCII)
_CHAINS: Final = ("mac", "vlan", "stp", "arp", "rarp", "ipv4", "ipv6")
_CHAIN_PRIORITY: Final = {"mac": -800, "vlan": -750, "ipv4": -700, "ipv6": -600, "arp": -500, "rarp": -400}
_CHAIN_NAME: Final = re.compile(r"[a-zA-Z0-9_.:\-]{0,12}")
_PARAMETER_NAME: Final = re.compile("[a-zA-Z0-9_]*")
_PARAMETER_VALUE: Final = re.compile("[a-zA-Z0-9_.:]+")
_WITH_PORTS: Final = ("tcp", "udp", "sctp", "6", "17", "33", "132", "0x21")
_PORTS: Final = ("srcportstart", "srcportend", "dstportstart", "dstportend")
# Attributes that are negated as another one is, whatever is written beside them (virNWFilterRuleDefFixup).
_FOLLOWS: Final = {
    "srcmacmask": "srcmacaddr",
    "dstmacmask": "dstmacaddr",
    "srcipmask": "srcipaddr",
    "dstipmask": "dstipaddr",
    "srcipto": "srcipfrom",
    "dstipto": "dstipfrom",
    "typeend": "type",
    "code": "type",
    "codeend": "type",
    "root_address_mask": "root_address",
    "sender_address_mask": "sender_address",
    **{
        f"{name}_hi": name
        for name in (
            "root_priority", "root_cost", "sender_priority", "port", "age", "max_age", "hello_time", "forward_delay",
        )
    },
}  # fmt: skip
_FOLLOWS_PORTS: Final = dict.fromkeys(("srcportend", "dstportstart", "dstportend"), "srcportstart")
_AS_WRITTEN: Final = ("arp", "rarp")


class Parameter(Element, tag="parameter"):
    """A value of a variable; several of one name are a list."""

    name: str | None = attr(default=None)
    value: str | None = attr(default=None)


class FilterReference(Element, tag="filterref"):
    """Another filter's rules, with values for its variables."""

    filter: str | None = attr(default=None)
    parameters: list[Parameter] = children(Parameter, factory=list)


class Rule(Element, tag="rule"):
    """What becomes of packets that match; the matches of a rule are all about one protocol."""

    action: str | None = attr(_ACTIONS, default=None)
    direction: str | None = attr(_DIRECTIONS, default=None)
    priority: str | None = attr(default=None)
    statematch: str | None = attr(default=None)
    matches: list[Match] = children(*MATCHES, factory=list)


class Filter(Element, tag="filter"):
    """Rules, and other filters', in order."""

    name: str | None = attr(default=None)
    chain: str | None = attr(default=None)
    priority: str | None = attr(default=None)
    uuid: str | None = text(UUID.saying("malformed uuid element"), default=None)
    entries: list[Element] = children(Rule, FilterReference, factory=list)


def read_filter(xml: str) -> Filter:
    """Read a filter's document, and complete it.

    Raises:
        ModelError: it is none, or breaks a rule; the path says where.
    """
    filter = Filter.parse(xml, "nwfilter_definition")
    validate(filter)
    complete(filter)
    return filter


def validate(filter: Filter) -> None:
    """Hold a filter against the rules.

    Raises:
        ModelError: a rule is broken; the words are libvirt's.
    """
    if filter.name is None:
        raise ModelError("/filter/@name", "filter has no name", code=ErrorCode.INTERNAL_ERROR)
    if filter.priority is not None:
        _check_priority(filter.priority)
    if filter.chain is not None:
        _check_chain(filter.chain)
    counts = {"rule": 0, "filterref": 0}
    for entry in filter.entries:
        counts[entry.TAG] += 1
        path = f"/filter/{entry.TAG}[{counts[entry.TAG]}]"
        if isinstance(entry, FilterReference):
            check_reference(entry, path)
        elif isinstance(entry, Rule):
            _check_rule(entry, path)


def _check_priority(written: str) -> None:
    path = "/filter/@priority"
    if not _NUMBER.fullmatch(written):
        raise ModelError(path, f"Could not parse chain priority '{written}'", code=ErrorCode.INVALID_ARG)
    if abs(int(written)) > _PRIORITY:
        reason = f"Priority '{int(written)}' is outside valid range of [{-_PRIORITY},{_PRIORITY}]"
        raise ModelError(path, reason, code=ErrorCode.INVALID_ARG)


def _check_chain(chain: str) -> None:
    path = "/filter/@chain"
    if not _CHAIN_NAME.fullmatch(chain):
        reason = "Chain name contains invalid characters" if len(chain) <= 12 else "longer than 12 characters"
        raise ModelError(path, f"Name of chain '{chain}': {reason}", code=ErrorCode.INVALID_ARG)
    if chain != "root" and (chain.startswith("root") or not chain.startswith(_CHAINS)):
        reason = f"Invalid chain name '{chain}'. Please use a chain name called 'root' or any of the following prefixes"
        raise ModelError(path, f"{reason}: {', '.join(_CHAINS)}", code=ErrorCode.INVALID_ARG)


def check_reference(reference: FilterReference, path: str) -> None:
    """A reference names a filter.

    Raises:
        ModelError: it does not.
    """
    if reference.filter is None:
        raise ModelError(f"{path}/@filter", "filterref has no filter", code=ErrorCode.INTERNAL_ERROR)


def _check_rule(rule: Rule, path: str) -> None:
    for name in ("action", "direction"):
        if getattr(rule, name) is None:
            reason = f"rule node requires {name} attribute"
            raise ModelError(f"{path}/@{name}", reason, code=ErrorCode.INTERNAL_ERROR)
    _check_ports(rule, path)


def _check_ports(rule: Rule, path: str) -> None:
    """Each match is looked at together with those before it."""
    protocol: str | None = None
    has_ports = False
    for match in rule.matches:
        if not isinstance(match, IpMatch | Ipv6Match) or match.TAG != rule.matches[0].TAG:
            continue
        protocol = match.protocol or protocol
        has_ports = has_ports or any(getattr(match, name) is not None for name in _PORTS)
        if has_ports and protocol not in _WITH_PORTS:
            reason = (
                f"{'IP' if match.TAG == 'ip' else 'IPv6'} rule with port specification requires protocol specification "
                "with protocol to be either one of tcp(6), udp(17), dccp(33), or sctp(132)"
            )
            raise ModelError(f"{path}/{match.TAG}", reason, code=ErrorCode.INTERNAL_ERROR)


def complete(filter: Filter) -> None:
    """Say what was left out, and put what a rule looks at in libvirt's order."""
    filter.uuid = filter.uuid or str(uuids.uuid4())
    chain = filter.chain or "root"
    usual = next((value for name, value in _CHAIN_PRIORITY.items() if chain.startswith(name)), 0)
    if filter.chain is None:
        filter.chain, priority = chain, 0
    elif filter.priority is not None:
        priority = int(filter.priority)
    else:
        priority = usual
    # libvirt leaves out a 0 that was written, and reads it back as what is usual.
    filter.priority = str(priority) if priority or usual else None
    for entry in filter.entries:
        if isinstance(entry, FilterReference):
            complete_reference(entry)
        elif isinstance(entry, Rule):
            _complete_rule(entry)


def complete_reference(reference: FilterReference) -> None:
    """Sort the parameters by name, and leave out those that are none."""
    valid = [
        parameter
        for parameter in reference.parameters
        if parameter.name is not None
        and _PARAMETER_NAME.fullmatch(parameter.name)
        and parameter.value is not None
        and _PARAMETER_VALUE.fullmatch(parameter.value)
    ]
    reference.parameters = sorted(valid, key=lambda parameter: parameter.name or "")


def _complete_rule(rule: Rule) -> None:
    written = rule.priority or ""
    is_number = _NUMBER.fullmatch(written) is not None
    rule.priority = str(int(written)) if is_number and abs(int(written)) <= _PRIORITY else str(_NORMAL)
    stateless = rule.statematch is not None and (rule.statematch == "0" or rule.statematch.lower() == "false")
    rule.statematch = "false" if stateless else None
    if rule.matches:
        rule.matches = _joined([match for match in rule.matches if match.TAG == rule.matches[0].TAG])


def _joined(matches: list[Match]) -> list[Match]:
    """All that the matches of one protocol say, in as few elements as can say it."""
    cls = type(matches[0])
    names = [field.name for field in cls.FIELDS if field.name != "match"]
    values: dict[str, tuple[str, bool]] = {}
    for match in matches:
        for name in names:
            value = getattr(match, name)
            if value is not None:
                values[name] = value, match.match == "no"
    if "ipset" in values and "ipsetflags" not in values and cls.TAG not in ("all", "all-ipv6"):
        values["ipsetflags"] = "src", False
    follows = {} if cls.TAG in _AS_WRITTEN else _FOLLOWS
    if cls.TAG.split("-")[0] in ("tcp", "udp", "sctp"):
        follows = {**follows, **_FOLLOWS_PORTS}
    joined: list[Match] = []
    is_negated: bool | None = None
    for name in names:
        if name not in values:
            continue
        value, negated = values[name]
        if name in follows:
            negated = values.get(follows[name], ("", False))[1]
        if not joined or negated is not is_negated:
            joined.append(cls(match="no" if negated else None))
            is_negated = negated
        setattr(joined[-1], name, value)
    joined = joined or [cls()]
    joined[0].unknown.extend(_joined_unknown(matches))
    return joined


def _joined_unknown(matches: list[Match]) -> Iterator[Unknown]:
    """What is undeclared in any; of attributes of one name, and of text, the last."""
    leaves: dict[str, Unknown] = {}
    for item in (item for match in matches for item in match.unknown):
        if item.name == "text()" or item.name.startswith("@"):
            leaves[item.name] = item
        else:
            yield item
    yield from leaves.values()
