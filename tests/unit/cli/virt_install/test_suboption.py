"""The grammar of options with options of their own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostel.cli.virt_install.part import Part
from hostel.cli.virt_install.suboption import Kind, Refusal, Sub, SubOptions, split
from hostel.errors import HostelError, UsageError

OPTIONS = SubOptions(
    "--thing",
    (
        Sub("path", "source/@path"),
        Sub("label", "label", comma=True),
        Sub("count", "@count", Kind.NUMBER),
        Sub("on", "@on", Kind.YES_NO),
        Sub("power", "@power", Kind.ON_OFF, aliases=("pw",)),
        Sub("ro", "readonly", Kind.FLAG),
        Sub("model", "@model", skip="default"),
        Sub("file", "file", Kind.PATH),
        Sub("host[0-9]*.name", "host[{}]/@name", aliases=("host_name",)),
    ),
    ("path", "count"),
    (("old", "path"),),
)


def put(text: str) -> Part:
    part = Part("thing", ("*",))
    OPTIONS.apply(OPTIONS.read(text), part)
    return part


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("", []),
        ("a,b=c", [("a", None), ("b", "c")]),
        ("a=b=c", [("a", "b=c")]),
        ("a=", [("a", "")]),
        ("a='b,c',d", [("a", "b,c"), ("d", None)]),
        ('a="b c",d=\\,', [("a", "b c"), ("d", ",")]),
        ("a,,b", [("a", None), ("b", None)]),
        ("a#b", [("a#b", None)]),
    ],
)
def test_commas_split_unless_something_protects_them(text: str, pairs: list[tuple[str, str | None]]) -> None:
    assert split(text) == pairs


def test_an_open_quote_is_refused() -> None:
    with pytest.raises(UsageError, match="No closing quotation"):
        split("a='b")


def test_the_first_values_need_no_names() -> None:
    assert OPTIONS.read("/a,3,on=yes") == {"path": "/a", "count": "3", "on": "yes"}
    assert OPTIONS.read("on=yes,/a") == {"on": "yes", "/a": None}


def test_a_value_with_commas_runs_on_to_the_next_known_name() -> None:
    assert OPTIONS.read("label=a,b,c=d,count=1") == {"label": "a,b,c=d", "count": "1"}


def test_an_old_name_is_read_as_the_new_one() -> None:
    assert put("old=/x").get("source/@path") == "/x"
    assert put("pw=on").get("@power") == "on"


@pytest.mark.parametrize(("word", "value"), [("yes", "yes"), ("ON", "yes"), ("1", "yes"), ("t", "yes"), ("off", "no")])
def test_a_truth_may_be_spelled_in_many_ways(word: str, value: str) -> None:
    assert put(f"on={word}").get("@on") == value


def test_kinds_decide_how_a_value_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: pytest.TempPathFactory) -> None:
    part = put("count=0x10,ro=yes,power=no,model=default")
    assert (part.get("@count"), part.get("readonly"), part.get("@power")) == ("16", "", "off")
    assert not part.was_put("@model")
    assert put("ro=no").was_put("readonly")
    assert put("ro=no").get("readonly") is None
    monkeypatch.chdir(str(tmp_path))
    assert put("file=a/../b").get("file") == f"{tmp_path}/b"


def test_an_empty_value_unsets() -> None:
    assert put("path=").was_put("source/@path")
    assert put("path=").get("source/@path") is None


def test_a_number_in_a_name_is_an_index() -> None:
    part = put("host1.name=b,host.name=a")
    assert (part.get("host[1]/@name"), part.get("host[0]/@name")) == ("b", "a")
    assert put("host_name=c").get("host[0]/@name") == "c"


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("path=a,nosuch=1,other", Refusal, r"Unknown --thing options: \['nosuch', 'other'\]"),
        ("on=maybe", Refusal, "on must be 'yes' or 'no'"),
        ("/a,1,on", UsageError, "Option 'on' had no value set."),
        ("count=x", UsageError, "count: 'x' is not a whole number"),
        ("count=0xg", UsageError, "count: '0xg' is not a whole number"),
    ],
)
def test_what_is_wrong_is_named(text: str, error: type[UsageError], message: str) -> None:
    with pytest.raises(error, match=message):
        put(text)


def test_the_list_is_sorted() -> None:
    assert OPTIONS.listing().splitlines()[:3] == ["--thing options:", "  clearxml", "  count"]


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        put(text)
    except HostelError:
        return
