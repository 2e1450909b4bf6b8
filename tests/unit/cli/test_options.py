"""Declared options: assignment, messages, quoting."""

from __future__ import annotations

import pytest

from hostel.cli.options import Args, Command, Option, data, flag, number, rest, split_line, split_list, value
from hostel.errors import UsageError


def command(*options: Option, name: str = "cmd") -> Command:
    return Command(name, "do it", options, lambda _session, _args: None)


def test_data_fills_declared_values_in_order() -> None:
    args = command(data("vol", ""), data("capacity", ""), value("pool", "")).parse(["v", "--pool", "p", "1G"])
    assert (args["vol"], args["pool"], args["capacity"]) == ("v", "p", "1G")


def test_a_value_that_must_be_named_takes_no_data() -> None:
    with pytest.raises(UsageError, match=r"^unexpected data 'x'$"):
        command(value("mode", "", positional=False)).parse(["x"])


def test_after_two_dashes_everything_is_data() -> None:
    assert command(data("name", ""), flag("all", "")).parse(["--", "--all"])["name"] == "--all"


def test_rest_takes_all_that_is_left() -> None:
    assert command(flag("xml", ""), rest("string", "")).parse(["a", "--xml", "b"]).rest == ("a", "b")


def test_every_missing_value_is_named() -> None:
    with pytest.raises(UsageError, match="requires <a> option\ncommand 'cmd' requires <b> option"):
        command(data("a", ""), data("b", "")).parse([])


@pytest.mark.parametrize("text", ["-1", "x", "1.5", "", "0x10", "1_0", "٣", "18446744073709551616", "1 "])
def test_a_malformed_number_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="malformed or out of range"):
        command(number("offset", "")).parse([f"--offset={text}"]).number("offset")


@pytest.mark.parametrize(("text", "value"), [("0", 0), (" +7", 7), ("18446744073709551615", 2**64 - 1)])
def test_a_number_is_decimal_and_unsigned(text: str, value: int) -> None:
    assert Args({"offset": text}).number("offset") == value


def test_a_length_of_minus_one_is_all_there_is() -> None:
    assert Args({"length": "-1"}).number("length", wraps=True) == 2**64 - 1


def test_an_empty_value_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match=r"^Failed to get option 'pool': Option argument is empty$"):
        Args({"pool": ""}).get("pool")


def test_excluded_options_are_refused_together_only() -> None:
    Args({"all": None}).exclude("all", "inactive")
    with pytest.raises(UsageError, match=r"^Options --all and --inactive are mutually exclusive$"):
        Args({"all": None, "inactive": None}).exclude("all", "inactive")


@pytest.mark.parametrize(
    ("text", "parts"),
    [("a", ["a"]), ("a,b", ["a", "b"]), ("a,,b,c", ["a,b", "c"]), ("a,", ["a", ""]), ("", []), (",a", ["", "a"])],
)
def test_a_list_splits_at_single_commas(text: str, parts: list[str]) -> None:
    assert split_list(text) == parts


def test_the_synopsis_shows_how_each_option_is_given() -> None:
    shown = command(data("vol", ""), flag("bytes", ""), value("pool", ""), number("offset", ""), rest("word", ""))
    assert shown.synopsis() == "cmd <vol> [--bytes] [--pool <string>] [--offset <number>] [[--word] <string>]..."
    assert command(flag("err", ""), rest("word", "")).synopsis() == "cmd [--err] [<word>]..."


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("a b;c", [["a", "b"], ["c"]]),
        ('a \'b ; c\' "d\\"e" f\\ g', [["a", "b ; c", 'd"e', "f g"]]),
        ("a '' b", [["a", "", "b"]]),
        (" # all comment", []),
        ("a # rest ; b\nc", [["a"], ["c"]]),
        ("a '\\' b", [["a", "\\", "b"]]),
        (";;", []),
    ],
)
def test_a_line_splits_by_virshs_quoting(line: str, words: list[list[str]]) -> None:
    assert split_line(line) == words


@pytest.mark.parametrize(("line", "message"), [('a "b', 'missing "'), ("a \\", r"dangling \\")])
def test_an_open_quote_is_refused(line: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        split_line(line)


def test_another_name_of_an_option_is_that_option() -> None:
    aliased = command(value("mode", ""), value("size", ""))._replace(
        aliases={"kb": "size", "shareable": "mode=shareable"}
    )
    args = aliased.parse(["--shareable", "--kb", "5"])
    assert (args["mode"], args["size"]) == ("shareable", "5")
    for words, reason in (
        (["--kb", "5", "--size", "6"], "option --size already seen"),
        (["--shareable=no"], "invalid '=' after option --shareable"),
        (["--kb"], "expected syntax: --size <string>"),
    ):
        with pytest.raises(UsageError, match=f"^{reason}$"):
            aliased.parse(words)
    assert "shareable" not in aliased.help()
