"""keyval: dotted names are trees, and what contradicts itself is refused in QEMU's words."""

from __future__ import annotations

from typing import Any

import pytest

from hostel.cli.qemu.failure import Failure
from hostel.cli.qemu.keyval import parse


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("driver=raw", {"driver": "raw"}),
        ("raw,node-name=x", {"driver": "raw", "node-name": "x"}),
        ("a.b=1,a.c.d=2", {"a": {"b": "1", "c": {"d": "2"}}}),
        ("a.0=x,a.1=y", {"a": ["x", "y"]}),
        ("a.0.b=x,a.1.b=y", {"a": [{"b": "x"}, {"b": "y"}]}),
        ("a=x,,y,a=z,,", {"a": "z,"}),
        ("a=", {"a": ""}),
        ("", {}),
    ],
)
def test_text_is_a_tree_of_text(text: str, tree: dict[str, Any]) -> None:
    assert parse(text, "driver") == (tree, True)


def test_json_is_taken_as_it_is() -> None:
    assert parse('{"driver": "raw", "a": {"b": 1}}') == ({"driver": "raw", "a": {"b": 1}}, False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a=1,b", "Expected '=' after parameter 'b'"),
        ("a=1,a.b=2", "Parameters 'a.*' used inconsistently"),
        ("a.b=2,a=1", "Parameters 'a.*' used inconsistently"),
        ("a.0=x,a.b=y", "Parameters 'a.*' used inconsistently"),
        ("a.1=x", "Parameter 'a.0' missing"),
        ("=x", "Invalid parameter ''"),
        ('{"a":', "JSON parse error, premature EOI"),
    ],
)
def test_what_is_malformed_is_refused(text: str, message: str) -> None:
    with pytest.raises(Failure) as caught:
        parse(text, "driver")
    assert caught.value.message == message


def test_the_first_part_needs_a_name_where_none_is_implied() -> None:
    with pytest.raises(Failure, match="Expected '=' after parameter 'foo'"):
        parse("foo")
