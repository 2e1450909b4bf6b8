"""Values in the rules of network filters, each in the one spelling that libvirt writes (``nwfilter_conf.c``).

Where a value is expected there may be a variable instead: ``$IP``, ``$IP[@1]`` or ``$IP[2]``.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Final

from hostel.codec.xml import Kind
from hostel.errors import ErrorCode
from hostel.model.address import format_address, read_mac

_VARIABLE: Final = re.compile(r"\$([a-zA-Z0-9_]+)(?:\[\s*(@?)\s*(0{0,99}[0-9]{1,9})\s*\]\s*)?")
_MOST_ITERATORS: Final = 1000
_DECIMAL: Final = re.compile(r"\s*\+?(0{0,99}[0-9]{1,20})", re.ASCII)
_HEXADECIMAL: Final = re.compile(r"\s*\+?(?:0[xX])?(0{0,99}[0-9a-fA-F]{1,16})", re.ASCII)
_BITS: Final = re.compile("(0{0,99}[0-9]{1,3})")
_SET_NAME: Final = re.compile(r"[a-zA-Z0-9_.:\-+ ]{1,31}")
_SET_FLAGS: Final = re.compile(r"(?:src|dst)(?:,(?:src|dst)){0,5}", re.IGNORECASE)
_LONGEST_COMMENT: Final = 256  # bytes
_TCP_FLAGS: Final = ("FIN", "SYN", "RST", "PSH", "ACK", "URG")
_STATES: Final = ("NEW", "ESTABLISHED", "RELATED", "INVALID")

ETHERNET_TYPES: Final = {"arp": 0x806, "rarp": 0x8035, "ipv4": 0x800, "ipv6": 0x86DD, "vlan": 0x8100}
PROTOCOLS: Final = {
    "tcp": 6, "udp": 17, "udplite": 136, "esp": 50, "ah": 51, "icmp": 1, "igmp": 2, "sctp": 132, "icmpv6": 58,
}  # fmt: skip
OPCODES: Final = {
    "Request": 1, "Reply": 2, "Request_Reverse": 3, "Reply_Reverse": 4, "DRARP_Request": 5, "DRARP_Reply": 6,
    "DRARP_Error": 7, "InARP_Request": 8, "ARP_NAK": 9,
}  # fmt: skip


def _canonical_variable(text: str) -> str:
    found = _VARIABLE.fullmatch(text)
    if found is None:
        raise ValueError("Write a variable as $NAME, $NAME[@iterator] or $NAME[index]")
    name, at, number = found.groups()
    if number is None:
        return f"${name}"
    if at and int(number) > _MOST_ITERATORS:
        raise ValueError(f"The most is {_MOST_ITERATORS} for an iterator")
    # The iterator 0 is what is meant where none is said.
    return f"${name}" if at and int(number) == 0 else f"${name}[{at}{int(number)}]"


def _value(read: Callable[[str], str]) -> Kind[str]:
    def parse(text: str) -> str:
        return _canonical_variable(text) if text.startswith("$") else read(text)

    return Kind(parse, str, code=ErrorCode.INTERNAL_ERROR, words="{name} has illegal value {}")


def _number(text: str, bits: int) -> tuple[int, bool] | None:
    """A number, and whether it is written in hexadecimal; None where it is none."""
    if found := _DECIMAL.fullmatch(text):
        value, is_hexadecimal = int(found[1]), False
    elif found := _HEXADECIMAL.fullmatch(text):
        value, is_hexadecimal = int(found[1], 16), True
    else:
        return None
    if value >= 1 << bits:
        raise ValueError(f"The most is {(1 << bits) - 1}")
    return value, is_hexadecimal


def number(bits: int, *, maximum: int | None = None, decimal: bool = False) -> Kind[str]:
    """A whole number; it stays in the base in which it is written."""

    def read(text: str) -> str:
        found = _number(text, bits)
        if found is None or (decimal and found[1]):
            raise ValueError("Write a decimal number" if decimal else "Write a decimal or hexadecimal number")
        value, is_hexadecimal = found
        if maximum is not None and value > maximum:
            raise ValueError(f"The most is {maximum}")
        return f"0x{value:x}" if is_hexadecimal else str(value)

    return _value(read)


def named(names: Mapping[str, int], bits: int, *, minimum: int = 0, keeps_base: bool = True) -> Kind[str]:
    """One of some names, in any case, or a number; a number that has a name becomes it."""
    by_name = {name.lower(): value for name, value in names.items()}
    by_value = {value: name for name, value in names.items()}

    def read(text: str) -> str:
        known = by_name.get(text.lower())
        found = (known, False) if known is not None else _number(text, bits)
        if found is None or found[0] < minimum:
            raise ValueError(f"Write one of {', '.join(names)} or a number from {minimum}")
        value, is_hexadecimal = found
        return by_value.get(value) or (f"0x{value:x}" if is_hexadecimal and keeps_base else str(value))

    return _value(read)


def _address(cls: type[ipaddress.IPv4Address] | type[ipaddress.IPv6Address]) -> Kind[str]:
    def read(text: str) -> str:
        try:
            return format_address(cls(text))
        except ValueError:
            raise ValueError(f"Write an {cls.__name__.removesuffix('Address')} address") from None

    return _value(read)


def _mask(cls: type[ipaddress.IPv4Address] | type[ipaddress.IPv6Address], bits: int) -> Kind[str]:
    def read(text: str) -> str:
        if (found := _BITS.fullmatch(text)) and int(found[1]) <= bits:
            return str(int(found[1]))
        try:
            value = int(cls(text))
        except ValueError:
            raise ValueError(f"Write a mask, or the number of its bits, up to {bits}") from None
        return str(_length_of_mask(value, bits))

    return _value(read)


def _length_of_mask(value: int, bits: int) -> int:
    rest = value ^ ((1 << bits) - 1)
    if rest & (rest + 1):
        raise ValueError("The bits of a mask are ones first, then zeros")
    return bits - rest.bit_length()


def _read_hardware(text: str) -> str:
    mac = read_mac(text)
    if mac is None:
        raise ValueError("Write a hardware address, such as 52:54:00:12:34:56")
    return mac


def _read_hardware_mask(text: str) -> str:
    mac = _read_hardware(text)
    _length_of_mask(int(mac.replace(":", ""), 16), 48)
    return mac


def _words(text: str, names: tuple[str, ...]) -> set[str]:
    words = {word.upper() for word in re.split(r"[,\s]+", text) if word}
    if strangers := words - set(names):
        raise ValueError(f"{min(strangers)} is unknown; write some of {', '.join(names)}")
    return words


def _read_state(text: str) -> str:
    words = _words(text, (*_STATES, "NONE"))
    return "NONE" if "NONE" in words else ",".join(name for name in _STATES if name in words)


def _read_tcp_flags(text: str) -> str:
    mask, slash, flags = text.partition("/")
    if not slash:
        raise ValueError("Write mask/flags, such as SYN,ACK/SYN")
    return f"{_some_tcp_flags(mask)}/{_some_tcp_flags(flags)}"


def _some_tcp_flags(text: str) -> str:
    words = _words(text, (*_TCP_FLAGS, "ALL", "NONE"))
    if "ALL" in words or words >= set(_TCP_FLAGS):
        return "ALL"
    return ",".join(name for name in _TCP_FLAGS if name in words) or "NONE"


def _read_set_name(text: str) -> str:
    if not _SET_NAME.fullmatch(text):
        raise ValueError("Write the name of an ipset: letters, digits and _.:-+, 31 of them at most")
    return text


def _read_set_flags(text: str) -> str:
    if not _SET_FLAGS.fullmatch(text):
        raise ValueError("Write up to six times src or dst, with commas between")
    return text.lower()


def _read_comment(text: str) -> str:
    return text.encode()[:_LONGEST_COMMENT].decode(errors="ignore")


def _read_truth(text: str) -> str:
    return "true" if text in ("true", "1", "yes") else "false"


# Whatever is not "no" is "yes" to libvirt.
NEGATION: Final = Kind(lambda text: "no" if text == "no" else "yes", str, ("yes", "no"))
BYTE: Final = number(8)
SHORT: Final = number(16)
WORD: Final = number(32)
CONNECTIONS: Final = number(16, decimal=True)
DSCP: Final = number(8, maximum=63)
VLAN: Final = number(16, maximum=4095)
IPV4: Final = _address(ipaddress.IPv4Address)
IPV6: Final = _address(ipaddress.IPv6Address)
IPV4_MASK: Final = _mask(ipaddress.IPv4Address, 32)
IPV6_MASK: Final = _mask(ipaddress.IPv6Address, 128)
HARDWARE: Final = _value(_read_hardware)
HARDWARE_MASK: Final = _value(_read_hardware_mask)
ETHERNET_TYPE: Final = named(ETHERNET_TYPES, 16, minimum=0x600)
VLAN_TYPE: Final = named(ETHERNET_TYPES, 16, minimum=0x3C)
OPCODE: Final = named(OPCODES, 16, keeps_base=False)
PROTOCOL: Final = named(PROTOCOLS, 8)
STATE: Final = _value(_read_state)
TCP_FLAGS: Final = _value(_read_tcp_flags)
SET_NAME: Final = _value(_read_set_name)
SET_FLAGS: Final = _value(_read_set_flags)
COMMENT: Final = _value(_read_comment)
TRUTH: Final = _value(_read_truth)
