r"""A small two-pass assembler for 16-bit x86, enough for the guest's boot program.

The language is the part of NASM's that ``boot.asm`` uses: one instruction, label or directive a line, ``;`` starts a
comment. Directives: ``org``, ``name equ value``, ``db dw dd dq``, ``times count …``, ``align``. A label that starts
with a dot belongs to the last label without one.

    >>> assemble("org 0x7c00\nstart: jmp short start").code.hex()
    'ebfe'
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from hostel.errors import HostelError
from hostel.guest.expression import ExpressionError, Value
from hostel.guest.instruction import PREFIXES, encode
from hostel.guest.operand import little, parse_operand, value_of

_LABEL: Final = re.compile(r"(\.?[A-Za-z_]\w*)\s*:\s*")
_EQU: Final = re.compile(r"([A-Za-z_]\w*)\s+equ\s+(.+)$", re.IGNORECASE)
_WORD: Final = re.compile(r"([A-Za-z]+)\b\s*")
_LOCAL: Final = re.compile(r"(?<![\w.])\.([A-Za-z_]\w*)")
_QUOTED: Final = re.compile(r"('[^']*'|\"[^\"]*\")")
_DATA: Final = {"db": 1, "dw": 2, "dd": 4, "dq": 8}
MAX_SIZE: Final = 1 << 16


class AssemblyError(HostelError):
    """The source has an error; the message starts with ``name:line:``."""


class Assembly(NamedTuple):
    """What came out: the bytes and the address of each label (local ones as ``label.local``)."""

    code: bytes
    origin: int
    symbols: dict[str, int]

    def offset(self, label: str) -> int:
        """Return a label's offset in ``code``, in bytes.

        Raises:
            KeyError: there is no such label.
        """
        return self.symbols[label] - self.origin


class _Pass:
    """One walk over the source; the second one knows every label from the first."""

    def __init__(self, symbols: dict[str, Value], *, final: bool) -> None:
        self.symbols = symbols
        self.final = final
        self.defined: set[str] = set()
        self.code = bytearray()
        self.origin = 0
        self.scope = ""

    @property
    def here(self) -> int:
        return self.origin + len(self.code)

    def line(self, text: str) -> None:
        text = _strip_comment(text)
        while (match := _LABEL.match(text)) is not None:
            self.define_label(match.group(1))
            text = text[match.end() :]
        if not text:
            return
        equ = _EQU.match(text)
        if equ is not None:
            self.define(equ.group(1), value_of(self.scoped(equ.group(2)), self.names(), final=self.final))
            return
        self.statement(text)

    def statement(self, text: str) -> None:
        match = _WORD.match(text)
        if match is None:
            raise ExpressionError(f"'{text}' is not an instruction")
        word = match.group(1).lower()
        rest = self.scoped(text[match.end() :])
        if word == "org":
            self.set_origin(value_of(rest, self.names(), final=True).number)
        elif word == "times":
            self.repeat(rest)
        elif word == "align":
            boundary = value_of(rest, self.names(), final=True).number
            if boundary < 1:
                raise ExpressionError(f"cannot align to {boundary}")
            self.emit(bytes(-self.here % boundary))
        elif word in _DATA:
            for item in _split(rest):
                self.data(item, _DATA[word])
        elif word in PREFIXES and rest:
            self.emit(PREFIXES[word])
            self.statement(rest)
        else:
            names = self.names()
            operands = [parse_operand(item, names, final=self.final) for item in _split(rest)] if rest else []
            self.emit(encode(word, operands, here=self.here, final=self.final))

    def set_origin(self, address: int) -> None:
        if self.code:
            raise ExpressionError("org must come before the first byte")
        self.origin = address

    def repeat(self, rest: str) -> None:
        match = re.match(r"(.+?)\s+((?:db|dw|dd|dq)\s.+|[a-z]+)$", rest, re.IGNORECASE)
        if match is None:
            raise ExpressionError("times needs a count and an instruction or data")
        count = value_of(match.group(1), self.names(), final=True).number
        if not 0 <= count <= MAX_SIZE:
            raise ExpressionError(f"times cannot repeat {count} times; what comes before has grown too long")
        for _ in range(count):
            self.statement(match.group(2))

    def data(self, item: str, size: int) -> None:
        if len(item) >= 2 and item[0] in "'\"" and item.endswith(item[0]) and item[0] not in item[1:-1]:
            text = item[1:-1].encode("ascii")
            self.emit(text + bytes(-len(text) % size))
        else:
            self.emit(little(value_of(item, self.names(), final=self.final).number, size))

    def emit(self, code: bytes) -> None:
        if len(self.code) + len(code) > MAX_SIZE:
            raise ExpressionError("the program is longer than a segment of 64 KiB")
        self.code += code

    def define_label(self, name: str) -> None:
        if name.startswith("."):
            name = self.scope + name
        else:
            self.scope = name
        self.define(name, Value(self.here, fixed=False))

    def define(self, name: str, value: Value) -> None:
        if name in self.defined:
            raise ExpressionError(f"'{name}' is defined twice")
        if self.final and self.symbols[name].number != value.number and not value.fixed and self.symbols[name].known:
            raise ExpressionError(f"'{name}' moved between the passes")
        self.defined.add(name)
        self.symbols[name] = value

    def scoped(self, text: str) -> str:
        """Give local labels their full names, outside of quoted text."""
        parts = _QUOTED.split(text)
        return "".join(part if i % 2 else _LOCAL.sub(self.scope + r".\1", part) for i, part in enumerate(parts))

    def names(self) -> dict[str, Value]:
        self.symbols["$"] = Value(self.here, fixed=False)
        self.symbols["$$"] = Value(self.origin, fixed=False)
        return self.symbols


def assemble(source: str, *, name: str = "source") -> Assembly:
    """Assemble a program.

    Args:
        source: the text.
        name: what error messages call it.

    Raises:
        AssemblyError: with the line, what is wrong there and what would be right.
    """
    symbols: dict[str, Value] = {}
    result = _Pass(symbols, final=False)
    for final in (False, True):
        result = _Pass(symbols, final=final)
        for number, line in enumerate(source.splitlines(), 1):
            try:
                result.line(line)
            except (ExpressionError, UnicodeEncodeError) as exc:
                raise AssemblyError(f"{name}:{number}: {exc}") from exc
    addresses = {label: value.number for label, value in symbols.items() if label not in ("$", "$$")}
    return Assembly(bytes(result.code), result.origin, addresses)


def _strip_comment(text: str) -> str:
    parts = _QUOTED.split(text)
    kept = []
    for index, part in enumerate(parts):
        if index % 2 == 0 and ";" in part:
            kept.append(part[: part.index(";")])
            break
        kept.append(part)
    return "".join(kept).strip()


def _split(text: str) -> list[str]:
    """Split operands at commas that are not quoted."""
    items = [""]
    for index, part in enumerate(_QUOTED.split(text)):
        if index % 2:
            items[-1] += part
            continue
        first, *others = part.split(",")
        items[-1] += first
        items.extend(others)
    return [item.strip() for item in items]
