"""Every element that the model declares, and instances of it with any values its declarations allow."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

import hostel.model
from hostel.codec.xml import STRING, UUID, Element, Kind
from hostel.codec.xmlfield import (
    Attribute,
    Child,
    Children,
    Content,
    Field,
    Flag,
    Nested,
    Setting,
    Settings,
    Text,
    Texts,
    Verbatim,
)
from hostel.model.domain.devices.disk import Disk
from hostel.model.domain.devices.source import SourceType

_PACKAGE = "hostel.model."
# What a kind that does not list its values is tried with.
_PROBES = (
    *range(1, 18), 0, 64, 511, 512, 1024, 4095, 65535, "1-3,5", "0x1f", "0755", "52:54:00:12:34:56",
    "ff:ff:ff:00:00:00", "192.168.1.1", "fe80::1", "NEW,RELATED", "SYN,ACK/SYN", "src,dst", "$NAME", "$NAME[@1]",
)  # fmt: skip
_TEXT = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff"), min_size=1, max_size=6
).filter(lambda text: text.strip(" ") == text)
_FRAGMENTS = ("<{0}/>", '<{0}><a:b xmlns:a="urn:x" c="1">t &lt;<d/></a:b></{0}>', "<{0}><a><b/></a></{0}>")


def model_classes() -> list[type[Element]]:
    """Every class with a tag in the model's modules."""
    for module in pkgutil.walk_packages(hostel.model.__path__, _PACKAGE):
        importlib.import_module(module.name)
    return sorted({cls for cls in _below(Element) if cls.__module__.startswith(_PACKAGE) and cls.TAG}, key=name_of)


def name_of(cls: type[Element]) -> str:
    """A class's module and name, without what all have in common."""
    return f"{cls.__module__.removeprefix(_PACKAGE)}.{cls.__name__}"


def _below(cls: type[Element]) -> Iterator[type[Element]]:
    for below in cls.__subclasses__():
        yield below
        yield from _below(below)


def values(kind: Kind[Any]) -> st.SearchStrategy[Any]:
    """Values of a kind."""
    if kind.parse is STRING.parse:
        return _TEXT
    if kind.parse is UUID.parse:
        return st.uuids().map(str)
    if kind.values:
        return st.sampled_from(kind.values)
    found: dict[str, Any] = {}
    for probe in _PROBES:
        try:
            value = kind.parse(str(probe))
        except ValueError:
            continue
        if value is not None:  # as some words are read that say nothing
            found[kind.format(value)] = value
    assert found, f"no value is known for {kind}"
    return st.sampled_from(list(found.values()))


def elements(cls: Any, depth: int = 1, *, whole: bool = False) -> st.SearchStrategy[Element]:
    """Instances of a class; ``whole`` ones have every field. Below ``depth`` there is only what is required."""
    return _elements(cls, depth, whole)


@functools.cache
def _elements(cls: Any, depth: int, whole: bool) -> st.SearchStrategy[Element]:
    fields = {}
    for field in cls.FIELDS:
        if isinstance(field, Attribute) and field.tag in cls.WHEN:
            fields[field.name] = st.just(field.kind.parse(cls.WHEN[field.tag]))
        elif depth > 0 or field.required:
            fields[field.name] = _field(field, depth, whole=whole)
    return st.fixed_dictionaries(fields).map(lambda values: _as_read(cls(**values)))


def _as_read(element: Element) -> Element:
    """What is read of an element in which something is said that means nothing: a disk without a source has a type."""
    if isinstance(element, Disk) and (element.source is None or element.source.is_nothing()):
        element.type = SourceType.FILE
    return element


def _field(field: Field, depth: int, *, whole: bool) -> st.SearchStrategy[Any]:
    if isinstance(field, Flag):
        return st.just(True) if whole else st.booleans()
    if isinstance(field, Children | Settings | Texts):
        return st.lists(_value(field, depth, whole=whole), min_size=int(whole), max_size=2)
    optional = not whole and field.factory is None and field.default is None
    value = _value(field, depth, whole=whole)
    return st.none() | value if optional else value


def _value(field: Field, depth: int, *, whole: bool) -> st.SearchStrategy[Any]:
    match field:
        case Nested():
            return elements(field.classes[0], depth - 1)
        case Child():
            # What is nothing when it is empty has to have something.
            deeper = [max(depth - 1, int(whole and cls.DROP_EMPTY and not cls.WHEN)) for cls in field.classes]
            return st.one_of(
                [elements(cls, down, whole=whole) for cls, down in zip(field.classes, deeper, strict=True)]
            )
        case Setting() | Settings():
            return values(field.attribute.kind)
        case Attribute() | Content() | Text() | Texts():
            return values(field.kind)
        case Verbatim():
            return st.sampled_from([text.format(field.tag) for text in _FRAGMENTS])
        case _:
            raise AssertionError(f"no values are known for a {type(field).__name__}")
