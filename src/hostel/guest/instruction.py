"""Encoding of the 16-bit x86 instructions that a boot sector needs.

Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2. Operands of four bytes take the operand-size
prefix 66h; addresses are 16 bits always. Where an instruction has several encodings the general one is used, except
that short immediates are sign-extended when their value cannot change between the passes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from hostel.guest.expression import ExpressionError
from hostel.guest.operand import Far, Immediate, Memory, Operand, Register, Segment, little, modrm

SIMPLE: Final[dict[str, bytes]] = {
    "cbw": b"\x98",
    "cld": b"\xfc",
    "clc": b"\xf8",
    "cli": b"\xfa",
    "cmpsb": b"\xa6",
    "cmpsd": b"\x66\xa7",
    "cmpsw": b"\xa7",
    "cwd": b"\x99",
    "hlt": b"\xf4",
    "iret": b"\xcf",
    "lodsb": b"\xac",
    "lodsd": b"\x66\xad",
    "lodsw": b"\xad",
    "movsb": b"\xa4",
    "movsd": b"\x66\xa5",
    "movsw": b"\xa5",
    "nop": b"\x90",
    "popa": b"\x61",
    "popad": b"\x66\x61",
    "popf": b"\x9d",
    "pusha": b"\x60",
    "pushad": b"\x66\x60",
    "pushf": b"\x9c",
    "ret": b"\xc3",
    "retf": b"\xcb",
    "scasb": b"\xae",
    "std": b"\xfd",
    "stc": b"\xf9",
    "sti": b"\xfb",
    "stosb": b"\xaa",
    "stosd": b"\x66\xab",
    "stosw": b"\xab",
}
PREFIXES: Final[dict[str, bytes]] = {"rep": b"\xf3", "repe": b"\xf3", "repne": b"\xf2"}
ARITHMETIC: Final = {name: i for i, name in enumerate(("add", "or", "adc", "sbb", "and", "sub", "xor", "cmp"))}
UNARY: Final = {"not": 2, "neg": 3, "mul": 4, "imul": 5, "div": 6, "idiv": 7}
SHIFTS: Final = {"rol": 0, "ror": 1, "rcl": 2, "rcr": 3, "shl": 4, "shr": 5, "sar": 7}
_CONDITIONS: Final = (
    ("o",),
    ("no",),
    ("c", "b", "nae"),
    ("nc", "ae", "nb"),
    ("z", "e"),
    ("nz", "ne"),
    ("na", "be"),
    ("a", "nbe"),
    ("s",),
    ("ns",),
    ("p", "pe"),
    ("np", "po"),
    ("l", "nge"),
    ("ge", "nl"),
    ("le", "ng"),
    ("g", "nle"),
)
JUMPS: Final = {f"j{name}": code for code, names in enumerate(_CONDITIONS) for name in names}
LOOPS: Final = {"loopne": 0xE0, "loope": 0xE1, "loop": 0xE2, "jcxz": 0xE3}


def encode(name: str, operands: Sequence[Operand], *, here: int, final: bool) -> bytes:
    """Encode one instruction.

    Args:
        name: the mnemonic, lower case.
        operands: its operands.
        here: the address of its first byte, in bytes.
        final: labels have their addresses, so distances are checked.

    Raises:
        ExpressionError: there is no such instruction or no such form of it, or a number does not fit.
    """
    if name in SIMPLE and not operands:
        return SIMPLE[name]
    if name in JUMPS or name in LOOPS or name in ("jmp", "call"):
        return _branch(name, operands, here, final=final)
    encoder = _ENCODERS.get(name)
    if encoder is None:
        raise ExpressionError(f"there is no instruction '{name}' here")
    code = encoder(name, operands)
    if code is None:
        raise ExpressionError(f"'{name}' has no form with these operands")
    segment = next((o.prefix for o in operands if isinstance(o, Memory) and o.prefix is not None), None)
    return code if segment is None else bytes((segment,)) + code


def _size_of(operands: Sequence[Operand]) -> int:
    """Find the operand size in bytes that registers or size words settle."""
    sizes = {o.size for o in operands if isinstance(o, Register)} or {
        o.size for o in operands if isinstance(o, Memory | Immediate) and o.size is not None
    }
    if not sizes:
        raise ExpressionError("the operand size is not clear; write byte, word or dword before the memory operand")
    if len(sizes) > 1:
        raise ExpressionError("the operands have different sizes")
    size = sizes.pop()
    if any(isinstance(o, Memory) and o.size not in (None, size) for o in operands):
        raise ExpressionError("the operands have different sizes")
    return size


def _wide(size: int) -> int:
    return 0 if size == 1 else 1


def _prefix(size: int) -> bytes:
    return b"\x66" if size == 4 else b""


def _arithmetic(name: str, operands: Sequence[Operand]) -> bytes | None:
    base = ARITHMETIC[name] << 3
    match operands:
        case [(Register() | Memory()) as target, Register() as source]:
            size = _size_of(operands)
            return _prefix(size) + bytes((base | _wide(size),)) + modrm(source.number, target)
        case [Register() as target, Memory() as memory]:
            size = _size_of([target, memory])
            return _prefix(size) + bytes((base | 2 | _wide(size),)) + modrm(target.number, memory)
        case [(Register() | Memory()) as target, Immediate(value=value)]:
            size = _size_of([target])
            short = size > 1 and value.fixed and -128 <= value.number <= 127
            opcode = 0x83 if short else 0x80 | _wide(size)
            number = little(value.number, 1 if short else size)
            return _prefix(size) + bytes((opcode,)) + modrm(ARITHMETIC[name], target) + number
    return None


def _mov(name: str, operands: Sequence[Operand]) -> bytes | None:
    match operands:
        case [(Register(size=2) | Memory()) as target, Segment() as segment]:
            return b"\x8c" + modrm(segment.number, target)
        case [Segment() as segment, (Register(size=2) | Memory()) as source]:
            return b"\x8e" + modrm(segment.number, source)
        case [(Register() | Memory()) as target, Register() as source]:
            size = _size_of(operands)
            return _prefix(size) + bytes((0x88 | _wide(size),)) + modrm(source.number, target)
        case [Register() as target, Memory() as memory]:
            size = _size_of([target, memory])
            return _prefix(size) + bytes((0x8A | _wide(size),)) + modrm(target.number, memory)
        case [Register(size=size, number=number), Immediate(value=value)]:
            return _prefix(size) + bytes((0xB0 | _wide(size) << 3 | number,)) + little(value.number, size)
        case [Memory() as memory, Immediate(value=value)]:
            size = _size_of(operands)
            return _prefix(size) + bytes((0xC6 | _wide(size),)) + modrm(0, memory) + little(value.number, size)
    return None


def _unary(name: str, operands: Sequence[Operand]) -> bytes | None:
    match operands:
        case [(Register() | Memory()) as target]:
            size = _size_of(operands)
            return _prefix(size) + bytes((0xF6 | _wide(size),)) + modrm(UNARY[name], target)
    return None


def _test(name: str, operands: Sequence[Operand]) -> bytes | None:
    match operands:
        case [(Register() | Memory()) as target, Register() as source]:
            size = _size_of(operands)
            return _prefix(size) + bytes((0x84 | _wide(size),)) + modrm(source.number, target)
        case [(Register() | Memory()) as target, Immediate(value=value)]:
            size = _size_of([target])
            return _prefix(size) + bytes((0xF6 | _wide(size),)) + modrm(0, target) + little(value.number, size)
    return None


def _step(name: str, operands: Sequence[Operand]) -> bytes | None:
    extension = 0 if name == "inc" else 1
    match operands:
        case [Register(size=size, number=number)] if size > 1:
            return _prefix(size) + bytes((0x40 | extension << 3 | number,))
        case [(Register() | Memory()) as target]:
            size = _size_of(operands)
            return _prefix(size) + bytes((0xFE | _wide(size),)) + modrm(extension, target)
    return None


def _shift(name: str, operands: Sequence[Operand]) -> bytes | None:
    match operands:
        case [(Register() | Memory()) as target, Register(size=1, number=1)]:
            size = _size_of([target])
            return _prefix(size) + bytes((0xD2 | _wide(size),)) + modrm(SHIFTS[name], target)
        case [(Register() | Memory()) as target, Immediate(value=value)]:
            size = _size_of([target])
            return _prefix(size) + bytes((0xC0 | _wide(size),)) + modrm(SHIFTS[name], target) + little(value.number, 1)
    return None


def _push(name: str, operands: Sequence[Operand]) -> bytes | None:
    pop = name == "pop"
    match operands:
        case [Register(size=size, number=number)] if size > 1:
            return _prefix(size) + bytes(((0x58 if pop else 0x50) | number,))
        case [Segment(number=number)] if not (pop and number == 1):
            return bytes(((7 if pop else 6) | number << 3,))
        case [Memory() as memory]:
            size = _size_of(operands)
            return _prefix(size) + (b"\x8f" + modrm(0, memory) if pop else b"\xff" + modrm(6, memory))
        case [Immediate(value=value)] if not pop:
            return b"\x68" + little(value.number, 2)
    return None


def _extend(name: str, operands: Sequence[Operand]) -> bytes | None:
    opcode = 0xB6 if name == "movzx" else 0xBE
    match operands:
        case [Register(size=size, number=number), (Register() | Memory()) as source] if size > 1:
            return _prefix(size) + bytes((0x0F, opcode | _wide(_size_of([source])))) + modrm(number, source)
    return None


def _exchange(name: str, operands: Sequence[Operand]) -> bytes | None:
    match operands:
        case [(Register() | Memory()) as target, Register() as source]:
            size = _size_of(operands)
            return _prefix(size) + bytes((0x86 | _wide(size),)) + modrm(source.number, target)
    return None


def _address(name: str, operands: Sequence[Operand]) -> bytes | None:
    match operands:
        case [Register(size=size, number=number), Memory() as memory] if size > 1:
            return _prefix(size) + b"\x8d" + modrm(number, memory)
    return None


def _interrupt(name: str, operands: Sequence[Operand]) -> bytes | None:
    match operands:
        case [Immediate(value=value)]:
            return b"\xcd" + little(value.number, 1)
    return None


def _port(name: str, operands: Sequence[Operand]) -> bytes | None:
    out = name == "out"
    match list(reversed(operands)) if out else operands:
        case [Register(size=size, number=0), Register(size=2, number=2)]:
            return _prefix(size) + bytes(((0xEE if out else 0xEC) | _wide(size),))
        case [Register(size=size, number=0), Immediate(value=value)]:
            return _prefix(size) + bytes(((0xE6 if out else 0xE4) | _wide(size),)) + little(value.number, 1)
    return None


def _branch(name: str, operands: Sequence[Operand], here: int, *, final: bool) -> bytes:
    match operands:
        case [Far(segment=segment, offset=offset)] if name == "jmp":
            return b"\xea" + little(offset.number, 2) + little(segment.number, 2)
        case [(Register(size=2) | Memory()) as target] if name in ("jmp", "call"):
            return b"\xff" + modrm(4 if name == "jmp" else 2, target)
        case [Immediate(value=value, reach=reach)]:
            pass
        case _:
            raise ExpressionError(f"'{name}' has no form with these operands")
    if name in LOOPS or reach == "short" or (name in JUMPS and reach != "near"):
        opcode = LOOPS.get(name, 0xEB if name == "jmp" else 0x70 | JUMPS.get(name, 0))
        if name == "call":
            raise ExpressionError("a call is never short")
        distance = value.number - (here + 2)
        if final and not -128 <= distance <= 127:
            raise ExpressionError(
                f"the target of '{name}' is {distance} bytes away, too far for a short jump; use near"
            )
        return bytes((opcode, distance & 0xFF))
    opcodes = b"\xe8" if name == "call" else b"\xe9" if name == "jmp" else bytes((0x0F, 0x80 | JUMPS[name]))
    distance = value.number - (here + len(opcodes) + 2)
    return opcodes + (distance & 0xFFFF).to_bytes(2, "little")


_Encoder = Callable[[str, Sequence[Operand]], bytes | None]
_ENCODERS: Final[dict[str, _Encoder]] = {
    **dict.fromkeys(ARITHMETIC, _arithmetic),
    **dict.fromkeys(UNARY, _unary),
    **dict.fromkeys(SHIFTS, _shift),
    **dict.fromkeys(("inc", "dec"), _step),
    **dict.fromkeys(("push", "pop"), _push),
    **dict.fromkeys(("movzx", "movsx"), _extend),
    **dict.fromkeys(("in", "out"), _port),
    "int": _interrupt,
    "lea": _address,
    "mov": _mov,
    "test": _test,
    "xchg": _exchange,
}
