from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostel.block.options import Kind, Option, OptionError, Options, split_options

OPTIONS = Options(
    Option("size", Kind.SIZE, "Virtual disk size"),
    Option("lazy", Kind.BOOL, "Postpone", "off"),
    Option("bits", Kind.NUMBER, "Width", "16"),
    Option("backing_file", Kind.STRING, ""),
)


def test_double_comma_is_a_comma() -> None:
    assert split_options("backing_file=a,,b,size=1G") == {"backing_file": "a,b", "size": "1G"}


def test_bare_name_is_on_and_the_last_value_wins() -> None:
    assert split_options("lazy,size=1,size=2,") == {"lazy": "on", "size": "2"}


def test_bare_name_that_begins_with_no_is_off() -> None:
    assert split_options("nolazy,node=1") == {"lazy": "off", "node": "1"}


@given(st.dictionaries(st.from_regex(r"[a-z_.]{1,8}", fullmatch=True), st.text(max_size=12), max_size=5))
def test_split_is_the_inverse_of_join(values: dict[str, str]) -> None:
    joined = ",".join(f"{name}={value.replace(',', ',,')}" for name, value in values.items())
    assert split_options(joined) == values


def test_values_get_their_kind_and_the_defaults() -> None:
    assert OPTIONS.convert({"size": "1.5k", "backing_file": "1"}) == {
        "size": 1536,
        "lazy": False,
        "bits": 16,
        "backing_file": "1",
    }


@pytest.mark.parametrize(("words", "value"), [(("on", "yes", "true", "y"), True), (("off", "no", "false", "n"), False)])
def test_a_switch_has_several_words(words: tuple[str, ...], value: bool) -> None:
    assert [OPTIONS["lazy"].convert(word) for word in words] == [value] * 4


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"nosuch": "1"}, "Invalid parameter 'nosuch'"),
        ({"lazy": "maybe"}, "Parameter 'lazy' expects 'on' or 'off'"),
        ({"lazy": "True"}, "Parameter 'lazy' expects 'on' or 'off'"),
        ({"bits": "x"}, "Parameter 'bits' expects a number"),
        ({"bits": "09"}, "Parameter 'bits' expects a number"),
        ({"bits": "18446744073709551616"}, "Value '18446744073709551616' is too large for parameter 'bits'"),
        ({"size": "big"}, "Parameter 'size' expects a non-negative number below 2^64"),
        ({"size": "8E"}, "Value '8E' is out of range for parameter 'size'"),
    ],
)
def test_bad_option_is_named(given_: dict[str, str], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        OPTIONS.convert(given_)
    assert str(caught.value) == message


@pytest.mark.parametrize(("text", "number"), [("0x10", 16), ("010", 8), ("0", 0), (" +7", 7), ("-1", 2**64 - 1)])
def test_numbers_are_read_as_c_reads_them(text: str, number: int) -> None:
    assert OPTIONS["bits"].convert(text) == number


def test_value_without_a_name_is_refused_by_who_takes_it() -> None:
    with pytest.raises(OptionError, match="Invalid parameter ''"):
        OPTIONS.convert(split_options("=5"))


def test_help_is_sorted_and_aligned() -> None:
    assert OPTIONS.describe() == (
        "  backing_file=<str>\n"
        "  bits=<num>             - Width\n"
        "  lazy=<bool (on/off)>   - Postpone\n"
        "  size=<size>            - Virtual disk size\n"
    )


def test_sets_of_options_add_up() -> None:
    more = OPTIONS + Options(Option("extra", Kind.NUMBER, "x"))
    assert [option.name for option in more] == ["size", "lazy", "bits", "backing_file", "extra"]
    assert "extra" in more
    assert "extra" not in OPTIONS
    assert more["extra"].kind is Kind.NUMBER
