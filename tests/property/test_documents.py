"""Whatever an element says, parsing what is formatted gives the same element: for every class of the model."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hostel.codec.xml import Element
from support.elements import elements, model_classes, name_of

CLASSES = pytest.mark.parametrize("cls", model_classes(), ids=name_of)
QUICK = settings(max_examples=10, suppress_health_check=list(HealthCheck))


def check(element: Element) -> None:
    if element.is_nothing():
        return
    text = element.format()
    again = type(element).parse(text)
    assert again == element
    assert list(again.unknown_paths()) == []
    assert again.format() == text


@CLASSES
@QUICK
@given(st.data())
def test_parse_undoes_format(cls: type[Element], data: st.DataObject) -> None:
    check(data.draw(elements(cls)))


@CLASSES
@QUICK
@given(st.data())
def test_every_field_is_written_and_read(cls: type[Element], data: st.DataObject) -> None:
    element = data.draw(elements(cls, whole=True))
    assert all(field.is_absent(getattr(element, field.name)) is False for field in cls.FIELDS)
    check(element)


@CLASSES
@QUICK
@given(st.data())
def test_copy_shares_nothing(cls: type[Element], data: st.DataObject) -> None:
    element = data.draw(elements(cls, whole=True))
    text, copy = element.format(), element.copy()
    assert copy == element
    for below in copy.elements():
        for name in [field.name for field in below.FIELDS]:
            setattr(below, name, None)
    assert element.format() == text
