"""Writes the Python functions that pack and unpack XDR: statements that a type's shape asks for, in order.

Numbers and bytes of a fixed size that follow each other become one call of :mod:`struct`. The names in what is written:
``data`` and ``at`` are the bytes and the offset, ``end`` is where they end; ``put`` takes the next packed piece.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NoReturn, cast

_PADDING: Final = (b"", b"\0\0\0", b"\0\0", b"\0")  # by the length modulo four
_JOINED: Final = 4 << 20  # bytes that are copied once more rather than put apart
# A byte as C's signed char in four bytes.
_WIDE: Final = tuple(struct.pack(">i", byte - 256 if byte > 127 else byte) for byte in range(256))


class Source:
    """The source of one function while it is written."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._indent = "    "
        self._count = 0
        self._codes = ""  # of the fixed part that is being gathered
        self._parts: list[str] = []  # what it is read into, or packed from
        self._names: dict[str, Any] = {
            "PADDING": _PADDING,
            "WIDE": _WIDE,
            "fail": _fail,
            "refuse": _refuse,
            "nul": _nul,
        }

    def constant(self, name: str, value: Any) -> str:
        """Let what is written name a value."""
        self._names[name] = value
        return name

    def compile_unpacker(self, values: Sequence[str]) -> Callable[[bytes, int], tuple[Any, ...]]:
        """End the function that reads: ``(data, at)`` to a tuple of the values."""
        self._flush_reading()
        self._line("if at != end: fail('%d bytes are left over' % (end - at) if at < end else 'it ends too early')")
        body = [
            "def unpack(data, at):",
            "    end = len(data)",
            *self._lines,
            f"    return ({''.join(f'{v}, ' for v in values)})",
        ]
        return cast("Callable[[bytes, int], tuple[Any, ...]]", self._compiled(body, "unpack"))

    def compile_packer(self) -> Callable[[Sequence[Any]], bytes]:
        """End the function that writes: a sequence of values to bytes."""
        self._flush_writing()
        body = ["def pack(values):", "    out = []", "    put = out.append", *self._lines, "    return b''.join(out)"]
        return cast("Callable[[Sequence[Any]], bytes]", self._compiled(body, "pack"))

    def _compiled(self, lines: list[str], name: str) -> Any:
        exec("\n".join(lines), self._names)
        return self._names[name]

    def _line(self, text: str) -> None:
        self._lines.append(self._indent + text)

    def _new(self) -> str:
        self._count += 1
        return f"v{self._count}"

    def _struct(self, codes: str, method: str) -> str:
        name = f"{method}_{codes}"
        self._names.setdefault(name, getattr(struct.Struct(">" + codes), method))
        return name

    # Reading.

    def _flush_reading(self) -> None:
        if self._parts:
            unpack = self._struct(self._codes, "unpack_from")
            self._line(f"{', '.join(self._parts)}, = {unpack}(data, at)")
            self._line(f"at += {struct.calcsize('>' + self._codes)}")
        self._codes, self._parts = "", []

    def read_number(self, code: str) -> str:
        """A number of a :mod:`struct` code."""
        value = self._new()
        self._codes += code
        self._parts.append(value)
        return value

    def _read_count(self, bound: int, width: int = 0) -> str:
        """A count that precedes what it counts, each of at least ``width`` bytes."""
        count = self.read_number("I")
        self._flush_reading()
        self._line(f"if {count} > {bound}: fail('%d are more than the {bound} that there may be' % {count})")
        if width:
            self._line(f"if {count} * {width} > end - at: fail('it ends too early')")
        return count

    def read_bytes(self, bound: int, width: int) -> str:
        """Counted bytes, each in ``width`` bytes."""
        count, value = self._read_count(bound, width), self._new()
        if width == 1:
            self._line(f"{value} = data[at:at + {count}]")
            self._line(f"at += {count} + 3 & -4")
        else:
            self._line(f"{value} = data[at + 3:at + 4 * {count}:4]")
            self._line(f"at += 4 * {count}")
        return value

    def read_fixed_bytes(self, length: int, width: int) -> str:
        """``length`` bytes, each in ``width`` bytes."""
        value = self._new()
        if width == 1:
            self._codes += f"{length}s{-length % 4}x" if length % 4 else f"{length}s"
            self._parts.append(value)
            return value
        self._flush_reading()
        self._line(f"if {length * width} > end - at: fail('it ends too early')")
        self._line(f"{value} = data[at + 3:at + {4 * length}:4]")
        self._line(f"at += {4 * length}")
        return value

    def read_text(self, bound: int) -> str:
        """Counted UTF-8 without a NUL: C would end it there, and we would not."""
        count, value = self._read_count(bound, 1), self._new()
        self._line(f"{value} = str(data[at:at + {count}], 'utf-8', 'surrogateescape')")
        self._line(f"if '\\0' in {value}: fail('a text holds a NUL byte')")
        self._line(f"at += {count} + 3 & -4")
        return value

    def read_optional(self, read: Callable[[], str]) -> str:
        """A value that a number before it says to be there."""
        there, value = self.read_number("I"), self._new()
        self._flush_reading()
        self._line(f"if {there}:")
        with self._nested():
            self._line(f"{value} = {self._finished(read())}")
        self._line(f"else: {value} = None")
        return value

    def read_list(self, read: Callable[[], str], least: int, bound: int, *, fixed: bool, code: str | None) -> str:
        """Values of one type, each of at least ``least`` bytes; of numbers ``code`` is the :mod:`struct` code."""
        if fixed:
            self._flush_reading()
            count = str(bound)
        else:
            count = self._read_count(bound, least)
        values = self._new()
        if code is not None:
            unpack = self.constant("unpack_from", struct.unpack_from)
            self._line(f"{values} = list({unpack}('>%d{code}' % {count}, data, at))")
            self._line(f"at += {struct.calcsize('>' + code)} * {count}")
            return values
        self._line(f"{values} = []")
        self._line(f"for _ in range({count}):")
        with self._nested():
            self._line(f"{values}.append({self._finished(read())})")
        return values

    def read_union(self, cases: Mapping[int, str], read: Callable[[str], str]) -> str:
        """A number, and the value of the type that it stands for."""
        number, value = self.read_number("i"), self._new()
        self._flush_reading()
        for position, (case, kind) in enumerate(cases.items()):
            self._line(f"{'elif' if position else 'if'} {number} == {case}:")
            with self._nested():
                self._line(f"{value} = {self._finished(read(kind))}")
        self._line(f"else: fail('%d is no case of the union' % {number})")
        return f"({number}, {value})"

    def made(self, structure: str, values: Sequence[str]) -> str:
        """A named tuple of the values."""
        return f"{structure}({', '.join(values)})"

    def _finished(self, value: str) -> str:
        self._flush_reading()
        return value

    @contextlib.contextmanager
    def _nested(self) -> Iterator[None]:
        indent, self._indent = self._indent, self._indent + "    "
        yield
        self._indent = indent

    # Writing.

    def _flush_writing(self) -> None:
        if self._parts:
            self._line(f"put({self._struct(self._codes, 'pack')}({', '.join(self._parts)}))")
        self._codes, self._parts = "", []

    def taken_apart(self, value: str, count: int) -> list[str]:
        """The ``count`` members of a value."""
        names = [self._new() for _ in range(count)]
        self._line(f"{', '.join(names)}, = {value}" if names else f"() = {value}")
        return names

    def write_number(self, code: str, value: str) -> None:
        """A number of a :mod:`struct` code."""
        self._codes += code
        self._parts.append(value)

    def write_bytes(self, value: str, bound: int, width: int) -> None:
        """Counted bytes, each in ``width`` bytes."""
        size = self._new()
        self._line(f"{size} = len({value})")
        self._line(f"if {size} > {bound}: refuse({size}, {bound})")
        self.write_number("I", size)
        if width == 1 and bound <= _JOINED:
            # Short as most are, it is put together with its length at once.
            pack = self._struct(self._codes, "pack")
            self._line(f"put({pack}({', '.join(self._parts)}) + {value} + PADDING[{size} & 3])")
            self._codes, self._parts = "", []
            return
        self._flush_writing()
        if width == 1:
            self._line(f"put({value})")
            self._line(f"put(PADDING[{size} & 3])")
        else:
            self._line(f"put(b''.join([WIDE[byte] for byte in {value}]))")

    def write_fixed_bytes(self, value: str, length: int, width: int) -> None:
        """``length`` bytes, each in ``width`` bytes."""
        if width == 1:
            self._line(f"if len({value}) != {length}: refuse(len({value}), {length})")
            self.write_number(f"{length}s{-length % 4}x" if length % 4 else f"{length}s", value)
            return
        self._flush_writing()
        self._line(f"if len({value}) > {length}: refuse(len({value}), {length})")
        self._line(f"put(b''.join([WIDE[byte] for byte in {value}.ljust({length}, b'\\0')]))")

    def write_text(self, value: str, bound: int) -> None:
        """Counted UTF-8; without a NUL, which the other side would not take."""
        encoded = self._new()
        self._line(f"if '\\0' in {value}: nul()")
        self._line(f"{encoded} = {value}.encode('utf-8', 'surrogateescape')")
        self.write_bytes(encoded, bound, 1)

    def write_optional(self, value: str, write: Callable[[str], None]) -> None:
        """A value, or none, and before it whether it is there."""
        name = self._new()
        self._flush_writing()
        self._line(f"{name} = {value}")
        self._line(f"if {name} is None: put(b'\\0\\0\\0\\0')")
        self._line("else:")
        with self._nested():
            self._line("put(b'\\0\\0\\0\\1')")
            write(name)
            self._flush_writing()

    def write_list(self, value: str, write: Callable[[str], None], bound: int, *, fixed: bool) -> None:
        """Values of one type."""
        test = "!=" if fixed else ">"
        self._line(f"if len({value}) {test} {bound}: refuse(len({value}), {bound})")
        if not fixed:
            self.write_number("I", f"len({value})")
        self._flush_writing()
        item = self._new()
        self._line(f"for {item} in {value}:")
        with self._nested():
            write(item)
            self._flush_writing()

    def write_union(self, value: str, cases: Mapping[int, str], write: Callable[[str, str], None]) -> None:
        """A pair of a number and what it says that follows."""
        number, inner = self.taken_apart(value, 2)
        self.write_number("i", number)
        self._flush_writing()
        for position, (case, kind) in enumerate(cases.items()):
            self._line(f"{'elif' if position else 'if'} {number} == {case}:")
            with self._nested():
                write(kind, inner)
                self._flush_writing()
        self._line(f"else: raise ValueError('%d is no case of the union' % {number})")


def _fail(reason: str) -> NoReturn:
    raise OverflowError(reason)


def _nul() -> NoReturn:
    raise ValueError("embedded null character")


def _refuse(length: int, bound: int) -> NoReturn:
    raise ValueError(f"{length} are more than the {bound} that there may be, or fewer than there must be")
