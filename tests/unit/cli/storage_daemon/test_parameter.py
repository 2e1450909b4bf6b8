"""Declared parameters: from JSON and from text, and what is wrong in the schema's words."""

from __future__ import annotations

from typing import Any

import pytest

from hostel.cli.storage_daemon.monitor.parameter import Kind, Parameter, check, needed
from hostel.errors import QmpError

DECLARED = (
    needed("id"),
    Parameter("on", Kind.BOOL),
    Parameter("count", Kind.UINT16),
    Parameter("size", Kind.SIZE),
    Parameter("delta", Kind.INT),
    Parameter("mode", values=("safe", "hard")),
    Parameter("list", Kind.ARRAY),
    Parameter("inner", Kind.OBJECT, members=(needed("x", Kind.UINT32),)),
)


def test_json_keeps_its_values() -> None:
    given = {"id": "a", "on": True, "count": 7, "size": 9, "delta": -1, "list": [1], "inner": {"x": 1}}
    assert check(DECLARED, given) == given


def test_text_becomes_values() -> None:
    given = {"id": "a", "on": "off", "count": "0x10", "size": "4k", "delta": "-5", "inner": {"x": "1"}}
    found = {"id": "a", "on": False, "count": 16, "size": 4096, "delta": -5, "inner": {"x": 1}}
    assert check(DECLARED, given, text=True) == found


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "Parameter 'id' is missing"),
        ({"id": 1}, "Invalid parameter type for 'id', expected: string"),
        ({"id": "a", "on": "on"}, "Invalid parameter type for 'on', expected: boolean"),
        ({"id": "a", "count": True}, "Parameter 'count' expects uint64"),
        ({"id": "a", "count": 65536}, "Parameter 'count' expects uint16_t"),
        ({"id": "a", "count": -1}, "Parameter 'count' expects uint16_t"),
        ({"id": "a", "mode": "soft"}, "Parameter 'mode' does not accept value 'soft'"),
        ({"id": "a", "list": {}}, "Invalid parameter type for 'list', expected: array"),
        ({"id": "a", "inner": {}}, "Parameter 'inner.x' is missing"),
        ({"id": "a", "inner": {"x": 1, "y": 2}}, "Parameter 'inner.y' is unexpected"),
        ({"id": "a", "other": 1}, "Parameter 'other' is unexpected"),
    ],
)
def test_a_mistake_is_told_in_qemus_words(given: dict[str, Any], message: str) -> None:
    with pytest.raises(QmpError) as caught:
        check(DECLARED, given)
    assert (caught.value.error_class, caught.value.desc) == ("GenericError", message)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("on", "maybe", "Parameter 'on' expects 'on' or 'off'"),
        ("count", "x", "Parameter 'count' expects integer"),
        ("count", "70000", "Parameter 'count' expects uint16_t"),
        ("size", "x", "Parameter 'size' expects size"),
        ("list", "x", "Invalid parameter type for 'list', expected: array"),
    ],
)
def test_text_that_is_no_value_is_refused(name: str, value: str, message: str) -> None:
    with pytest.raises(QmpError) as caught:
        check(DECLARED, {"id": "a", name: value}, text=True)
    assert caught.value.desc == message
