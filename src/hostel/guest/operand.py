"""Operands of 16-bit x86 instructions: registers, memory, immediates, and the ModRM bytes that name them.

Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, section 2.1.5, table 2-1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from hostel.guest.expression import ExpressionError, Value, evaluate, unknown_names

_WIDTHS: Final = (
    (1, ("al", "cl", "dl", "bl", "ah", "ch", "dh", "bh")),
    (2, ("ax", "cx", "dx", "bx", "sp", "bp", "si", "di")),
    (4, ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")),
)
REGISTERS: Final = {name: (size, number) for size, names in _WIDTHS for number, name in enumerate(names)}
SEGMENTS: Final = {name: number for number, name in enumerate(("es", "cs", "ss", "ds"))}
SEGMENT_PREFIX: Final = {"es": 0x26, "cs": 0x2E, "ss": 0x36, "ds": 0x3E}
SIZES: Final = {"byte": 1, "word": 2, "dword": 4}
_BASES: Final = {
    frozenset(("bx", "si")): 0,
    frozenset(("bx", "di")): 1,
    frozenset(("bp", "si")): 2,
    frozenset(("bp", "di")): 3,
    frozenset(("si",)): 4,
    frozenset(("di",)): 5,
    frozenset(("bp",)): 6,
    frozenset(("bx",)): 7,
}
_SIZE_WORD: Final = re.compile(r"(byte|word|dword|short|near)\s+", re.IGNORECASE)
_TERM: Final = re.compile(r"([+-]?)\s*([^+-]+)")


class Register(NamedTuple):
    """A general register; ``size`` in bytes, ``number`` as ModRM counts."""

    size: int
    number: int


class Segment(NamedTuple):
    """A segment register."""

    number: int


class Memory(NamedTuple):
    """``[base + displacement]``; ``base`` is the r/m field, or None for an absolute address."""

    base: int | None
    displacement: Value
    size: int | None
    prefix: int | None


class Immediate(NamedTuple):
    """A constant or a label; ``reach`` is ``short`` or ``near`` where the source says so."""

    value: Value
    size: int | None
    reach: str | None


class Far(NamedTuple):
    """``segment:offset`` of a far jump."""

    segment: Value
    offset: Value


Operand = Register | Segment | Memory | Immediate | Far


def parse_operand(text: str, symbols: Mapping[str, Value], *, final: bool) -> Operand:
    """Read one operand.

    Args:
        text: the operand as written, such as ``word [bx + 4]``.
        symbols: names that have a value, and ``$``, ``$$``.
        final: in the last pass every name must have a value.

    Raises:
        ExpressionError: it cannot be read, or names something that does not exist.
    """
    text = text.strip()
    word = None
    match = _SIZE_WORD.match(text)
    if match is not None:
        word = match.group(1).lower()
        text = text[match.end() :].strip()
    name = text.lower()
    if name in REGISTERS:
        return Register(*REGISTERS[name])
    if name in SEGMENTS:
        return Segment(SEGMENTS[name])
    size = SIZES.get(word or "")
    if text.startswith("["):
        return _parse_memory(text, size, symbols, final=final)
    if ":" in text and "'" not in text and '"' not in text:
        segment, _, offset = text.partition(":")
        return Far(value_of(segment, symbols, final=final), value_of(offset, symbols, final=final))
    return Immediate(value_of(text, symbols, final=final), size, word if word in ("short", "near") else None)


def value_of(text: str, symbols: Mapping[str, Value], *, final: bool) -> Value:
    """Evaluate an expression; in the final pass a name without a value is an error.

    Raises:
        ExpressionError: see above.
    """
    value = evaluate(text, symbols)
    if final and not value.known:
        names = ", ".join(f"'{name}'" for name in unknown_names(text, symbols))
        raise ExpressionError(f"no label or constant is called {names}")
    return value


def _parse_memory(text: str, size: int | None, symbols: Mapping[str, Value], *, final: bool) -> Memory:
    if not text.endswith("]"):
        raise ExpressionError(f"the memory operand '{text}' has no closing ']'")
    inside = text[1:-1].strip()
    prefix = None
    if len(inside) > 2 and inside[2] == ":":
        if inside[:2].lower() not in SEGMENT_PREFIX:
            raise ExpressionError(f"'{inside[:2]}' is not a segment register")
        prefix = SEGMENT_PREFIX[inside[:2].lower()]
        inside = inside[3:].strip()
    bases: list[str] = []
    rest = ""
    for sign, term in _TERM.findall(inside):
        word = term.strip().lower()
        if word in REGISTERS and sign != "-":
            bases.append(word)
        else:
            rest += f"{sign or '+'}{term}"
    displacement = value_of(rest, symbols, final=final) if rest else Value(0)
    if not bases:
        return Memory(None, displacement, size, prefix)
    base = _BASES.get(frozenset(bases))
    if base is None or len(set(bases)) != len(bases):
        raise ExpressionError(f"16-bit code cannot address memory through '{'+'.join(bases)}'")
    return Memory(base, displacement, size, prefix)


def modrm(field: int, operand: Register | Memory) -> bytes:
    """Encode ModRM and displacement; ``field`` is the reg field, a register or an opcode extension."""
    if isinstance(operand, Register):
        return bytes((0xC0 | field << 3 | operand.number,))
    displacement = operand.displacement
    if operand.base is None:
        return bytes((field << 3 | 6,)) + little(displacement.number, 2)
    if displacement.fixed and displacement.number == 0 and operand.base != 6:
        return bytes((field << 3 | operand.base,))
    if displacement.fixed and -128 <= displacement.number <= 127:
        return bytes((0x40 | field << 3 | operand.base,)) + little(displacement.number, 1)
    return bytes((0x80 | field << 3 | operand.base,)) + little(displacement.number, 2)


def little(number: int, size: int) -> bytes:
    """Encode a signed or unsigned number in ``size`` bytes, little endian.

    Raises:
        ExpressionError: it does not fit.
    """
    limit = 1 << (8 * size)
    if not -(limit >> 1) <= number < limit:
        raise ExpressionError(f"{number:#x} does not fit in {size} byte{'s' if size > 1 else ''}")
    return (number & (limit - 1)).to_bytes(size, "little")
