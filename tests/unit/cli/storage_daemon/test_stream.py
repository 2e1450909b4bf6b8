"""JSON out of a stream: values in any pieces, and what is malformed costs only itself."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostel.cli.storage_daemon.monitor import stream
from hostel.cli.storage_daemon.monitor.stream import JsonStream

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def values(text: bytes, step: int = 1 << 20) -> list[Any]:
    reader = JsonStream()
    pieces = [text[start : start + step] for start in range(0, len(text), step)]
    return [value for piece in pieces for value in reader.receive(piece)]


@given(st.lists(st.dictionaries(st.text(), JSON, max_size=3), max_size=4), st.integers(1, 7), st.booleans())
def test_values_come_out_as_they_went_in(objects: list[Any], step: int, ascii: bool) -> None:
    text = "".join(json.dumps(each, ensure_ascii=ascii) for each in objects).encode("utf-8", "surrogatepass")
    if any(0xD800 <= ord(char) < 0xE000 for char in text.decode("utf-8", "surrogatepass")):
        return  # no UTF-8
    assert values(text, step) == objects


def test_white_space_between_values_is_nothing() -> None:
    assert values(b' {"a":1}\n\n\t{"b":2} 7 "x" true\n') == [{"a": 1}, {"b": 2}, 7, "x", True]


def test_strings_may_stand_in_single_quotes() -> None:
    assert values(b"{'a': '}'}{'b': '\\''}") == [{"a": "}"}, {"b": "'"}]


@pytest.mark.parametrize("text", [b"nonsense\n", b"{1:2}", b"{]}", b'{"a":}', b"\xff\n", b'{"a":"\xff"}'])
def test_the_next_value_is_read_after_what_was_none(text: bytes) -> None:
    *bad, good = values(text + b'{"a":1}')
    assert bad
    assert all(isinstance(value, ValueError) for value in bad)
    assert good == {"a": 1}


def test_depth_and_length_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    (error,) = values(b"[" * 3000, 100)[:1]
    assert isinstance(error, ValueError)
    monkeypatch.setattr(stream, "LIMIT", 1000)
    found = values(b'{"a":"' + b"x" * 5000 + b'"}', 100)
    assert isinstance(found[0], ValueError)
