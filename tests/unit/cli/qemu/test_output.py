"""Errors, hints and what is printed for people."""

from __future__ import annotations

import io

from hostel.cli.qemu.output import Output, dump
from hostel.errors import BlockError


def output() -> tuple[Output, io.StringIO, io.StringIO]:
    out, err = io.StringIO(), io.StringIO()
    return Output("qemu-img", out, err), out, err


def test_every_line_of_an_error_has_the_name_and_the_hint_has_not() -> None:
    told, out, err = output()
    told.error("one\ntwo", "do this\n")
    assert (out.getvalue(), err.getvalue()) == ("", "qemu-img: one\nqemu-img: two\ndo this\n")


def test_errors_of_the_host_are_told_in_its_words() -> None:
    told, _, err = output()
    told.failed(OSError(28, "No space left on device", "/x"), "a: ")
    told.failed(BlockError("broken", hint="repair it"))
    assert err.getvalue() == "qemu-img: a: No space left on device\nqemu-img: broken\nrepair it\n"


def test_quiet_drops_notes_alone() -> None:
    told, out, err = output()
    told.quiet = True
    told.note("note")
    told.line("line")
    told.warning("careful")
    assert (out.getvalue(), err.getvalue()) == ("line\n", "qemu-img: warning: careful\n")


def test_nested_values_are_indented() -> None:
    assert dump({"compat": "1.1", "lazy-refcounts": False, "list": [1, {"a": "b"}]}, 1) == (
        "    compat: 1.1\n    list:\n        [0]: 1\n        [1]:\n            a: b\n    lazy refcounts: false\n"
    )


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_names_cannot_steer_a_terminal() -> None:
    out, err = Terminal(), Terminal()
    told = Output("qemu-img", out, err)
    told.line("image: \x1b[2Jé\udcff")
    told.error("a\x07")
    assert (out.getvalue(), err.getvalue()) == ("image: \\x1b[2Jé\\xff\n", "qemu-img: a\\x07\n")


def test_programs_get_names_as_they_are() -> None:
    told, out, _ = output()
    told.line("image: \x1b[2J")
    assert out.getvalue() == "image: \x1b[2J\n"
