"""QEMU's JSON: order, escapes, quotes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostel.codec.qobject import compact_json, hash_order, parse_json, pretty_json, quote

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def test_members_are_in_the_order_of_qemus_hash_table() -> None:
    # As qemu-img 7.2 prints an image without a backing file.
    members = ["filename", "format", "dirty-flag", "actual-size", "virtual-size", "cluster-size"]
    assert hash_order(dict.fromkeys(members)) == [
        "virtual-size",
        "filename",
        "cluster-size",
        "format",
        "actual-size",
        "dirty-flag",
    ]


def test_containers_are_indented_by_four_and_may_be_empty() -> None:
    assert pretty_json({"a": [1, {}], "b": []}) == (
        '{\n    "a": [\n        1,\n        {\n        }\n    ],\n    "b": [\n    ]\n}'
    )


def test_one_line_has_spaces_after_separators() -> None:
    assert compact_json({"driver": "raw", "size": "512", "file": {"driver": "file", "filename": "a"}}) == (
        '{"driver": "raw", "size": "512", "file": {"driver": "file", "filename": "a"}}'
    )


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("plain", '"plain"'),
        ('"\\', '"\\"\\\\"'),
        ("\b\f\n\r\t", '"\\b\\f\\n\\r\\t"'),
        ("\x01\x7f", '"\\u0001\\u007F"'),
        ("é", '"\\u00E9"'),
        ("\N{SNOWMAN}\N{GRINNING FACE}", '"\\u2603\\uD83D\\uDE00"'),
        ("\udcff", '"\\uFFFD"'),
    ],
)
def test_strings_are_ascii(text: str, written: str) -> None:
    assert quote(text) == written


@given(VALUES)
def test_what_is_written_is_json(value: object) -> None:
    assert json.loads(pretty_json(value)) == value
    assert json.loads(compact_json(value)) == value
    assert parse_json(pretty_json(value)) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{'a': 'b'}", {"a": "b"}),
        ("""{'a': "it's"}""", {"a": "it's"}),
        ("""{'a': 'say "hi"'}""", {"a": 'say "hi"'}),
        (r"""{'a': 'it\'s \"so\"'}""", {"a": 'it\'s "so"'}),
        (r"""['\\ud800', '\uD83D\uDE00']""", ["\\ud800", "\U0001f600"]),
    ],
)
def test_strings_may_be_in_single_quotes(text: str, value: object) -> None:
    assert parse_json(text) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Expecting a JSON value"),
        ('{"a": 1', "JSON parse error, premature EOI"),
        ("{a: 1}", "JSON parse error, invalid keyword 'a'"),
        ("{1: 1}", "JSON parse error, key is not a string in object"),
        ('{"a" 1}', "JSON parse error, missing : in object pair"),
        ('{"a":}', "JSON parse error, expecting value"),
        ("[1,]", "JSON parse error, expecting value"),
        ('{"a": yes}', "JSON parse error, invalid keyword 'yes'"),
        ("[@]", "JSON parse error, stray '@'"),
        ("[" * 100_000, "JSON nesting depth limit exceeded"),
        ("{} {}", "Expecting at most one JSON value"),
        ('{"a": 1, "b": {"c": 1, "c": 1}}', "JSON parse error, duplicate key"),
        ("[NaN]", "JSON parse error, stray 'N'"),
        ("[-Infinity]", "JSON parse error, stray '-I'"),
        ('{"a": 1,}', "JSON parse error, expecting value"),
        (r'["\q"]', "JSON parse error, invalid escape sequence in string"),
        ("[01]", "JSON parse error, stray '01'"),
        ("[1.,", r"JSON parse error, stray '1\.,'"),
        ("[-]", r"JSON parse error, stray '-\]'"),
        ("[12e+]", r"JSON parse error, stray '12e\+\]'"),
        ("[0.5E", "JSON parse error, stray '0.5E'"),
        ('{"a": 0x2}', "JSON parse error, expected separator in dict"),
        ('{"a": "}", "b": [1 2]}', "JSON parse error, expected separator in list"),
        ('{"a": [{}] "b"}', "JSON parse error, expected separator in dict"),
        ("{'a': 'b", "JSON parse error, stray ''b'"),
        ('{"a": tru, "b": 1.}', r"JSON parse error, stray '1\.}'"),
        ('{"a" 1} 1.', "JSON parse error, missing : in object pair"),
        (r'{"a": "\uD800"}', r"JSON parse error, \\uD800 is not a valid Unicode character"),
        (r"['\\\udc80']", r"JSON parse error, \\udc80 is not a valid Unicode character"),
    ],
)
def test_what_is_no_json_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        parse_json(text)
