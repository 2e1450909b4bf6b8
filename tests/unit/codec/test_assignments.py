"""Files of assignments: Xen's Python-like values, VMware's quoted ones, LXC's bare ones."""

from __future__ import annotations

import contextlib
import time

import pytest

from hostel.codec.assignments import Assignment, Dialect, format_assignments, parse
from hostel.errors import ErrorCode, ModelError


@pytest.mark.parametrize(
    ("dialect", "text", "pairs"),
    [(Dialect.XEN, "a = 1 # one\n\n#all\nb='x';c=\"y'\"", [("a", 1), ("b", "x"), ("c", "y'")]),
     (Dialect.XEN, 'a = [ "x",\n  [ 1, -2, ], ]\n', [("a", ["x", [1, -2]])]),
     (Dialect.XEN, 'a = """x\n"y"""\nb=""', [("a", 'x\n"y'), ("b", "")]),
     (Dialect.VMX, '.encoding = "UTF-8"\nscsi0:1.fileName = "a b"\r\n', [(".encoding", "UTF-8"),
                                                                       ("scsi0:1.fileName", "a b")]),
     (Dialect.LXC, "lxc.net.0.type = veth  \nlxc.autodev=1\n", [("lxc.net.0.type", "veth"), ("lxc.autodev", "1")]),
     (Dialect.LXC, "", [])],
)  # fmt: skip
def test_file_is_read_in_its_dialect(dialect: Dialect, text: str, pairs: list[tuple[str, object]]) -> None:
    assert [(item.name, item.value) for item in parse(text, dialect)] == pairs


@pytest.mark.parametrize(
    ("dialect", "text", "path", "reason"),
    [(Dialect.XEN, "a = 1\n1 = a", "line 2", "expecting a name"),
     (Dialect.XEN, "a", "line 1", "expecting an assignment"),
     (Dialect.XEN, "a = b", "line 1", "expecting a value"),
     (Dialect.XEN, "a = 'b", "line 1", "unterminated string"),
     (Dialect.XEN, "a = [1", "line 1", "list is not closed"),
     (Dialect.XEN, "a = [1 2]", "line 1", "expecting a separator in list"),
     (Dialect.XEN, "a = 1 b = 2", "line 1", "expecting a separator"),
     (Dialect.XEN, "a = " + "9" * 30, "line 1", "number too large"),
     (Dialect.VMX, "a = 1", "line 1", "expecting a value in quotes"),
     (Dialect.VMX, "a = [ ]", "line 1", "expecting a value in quotes")],
)  # fmt: skip
def test_what_is_no_assignment_is_refused_with_its_line(dialect: Dialect, text: str, path: str, reason: str) -> None:
    with pytest.raises(ModelError, match=reason) as refusal:
        parse(text, dialect)
    assert (refusal.value.path, refusal.value.code) == (path, ErrorCode.CONF_SYNTAX)


@pytest.mark.parametrize("text", ["a=" + "[" * 100_000, "a=[" + "1," * 100_000, 'a="""' + '"' * 100_000, "#" * 500_000])
def test_hostile_text_ends_soon(text: str) -> None:
    begin = time.process_time()
    with contextlib.suppress(ModelError):
        parse(text, Dialect.XEN)
    assert time.process_time() - begin < 5


@pytest.mark.parametrize("value", ["x", "it's", 'say "x"', 'it\'s "x" now', 512, ["a", ["b", 1]]])
def test_what_is_written_is_read_again(value: str | int | list[object]) -> None:
    written = [Assignment("name", value)]  # type: ignore[arg-type]
    assert parse(format_assignments(written), Dialect.XEN) == written


def test_text_that_has_no_spelling_is_refused() -> None:
    with pytest.raises(ModelError, match="cannot write"):
        format_assignments([Assignment("a", "'''\"\"\"")])
