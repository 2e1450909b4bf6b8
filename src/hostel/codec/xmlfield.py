"""How each kind of declaration of :mod:`hostel.codec.xml` reads and writes its part of an element."""

# ruff: noqa: D102  (what a method does is said once, in Field)

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hostel.codec.xmltext import Writer, fragment, path_of, text_of
from hostel.codec.xmlvalue import STRING, Kind
from hostel.errors import ModelError

if TYPE_CHECKING:
    from hostel.codec.xml import Element

REQUIRED: Final[Any] = object()
BLANK: Final = " \t\r\n"


class Unknown(NamedTuple):
    """Something that no declaration covers.

    Attributes:
        name: ``@attribute``, ``text()``, or the element's tag.
        value: the attribute's value, the text, or the element as XML.
        leaf: the child element it is in, when that is declared to have text only; else empty.
    """

    name: str
    value: str
    leaf: str = ""

    def write(self, writer: Writer) -> None:
        """Add what is no attribute."""
        if self.name == "text()":
            writer.characters(self.value)
        else:
            writer.fragment(self.value)

    @property
    def is_attribute(self) -> bool:
        """Whether it belongs into the start tag."""
        return self.name.startswith("@")


class Field:
    """One declaration; subclasses say where in the XML it is."""

    def __init__(self, tag: str | None, default: Any, factory: Callable[[], Any] | None = None) -> None:
        self.tag = tag or ""
        self.default = default
        self.factory = factory
        self.name = ""
        self.leads = False

    @property
    def required(self) -> bool:
        """Whether there must be a value."""
        return self.default is REQUIRED and self.factory is None

    def is_absent(self, value: Any) -> bool:
        """Whether nothing is written for a value."""
        return value is None

    def tags(self) -> tuple[str, ...]:
        """The names of child elements that this field reads, as a parser gives them."""
        return (self.tag,)

    def read(self, values: dict[str, Any], node: Any, unknown: list[Unknown]) -> bool:
        """Take a child element; false when it is not this field's after all."""
        raise TypeError(f"{self.name} reads no elements")

    def write(self, value: Any, writer: Writer, unknown: list[Unknown]) -> None:
        """Add the value, which is not None."""


class Attribute(Field):
    """``<… name='value'>``."""

    def tags(self) -> tuple[str, ...]:
        return ()

    def __init__(self, kind: Kind[Any], tag: str | None, default: Any) -> None:
        super().__init__(tag, default)
        self.kind = kind

    def read_value(self, node: Any, value: str) -> Any:
        """The value of the attribute, which is there."""
        try:
            return self.kind.parse(value)
        except ValueError as error:
            general = f"Invalid value for attribute '{self.tag}' in element '{local_name(node)}': '{value}'"
            reason = self.kind.refusal(self.tag or "", value, general, error)
            raise ModelError(f"{path_of(node)}/@{self.tag}", reason, code=self.kind.code) from None


class Content(Field):
    """The element's own text."""

    def tags(self) -> tuple[str, ...]:
        return ()

    def is_absent(self, value: Any) -> bool:
        return value is None or (value == "" and not self.required)

    def __init__(self, kind: Kind[Any], default: Any) -> None:
        super().__init__(None, default)
        self.kind = kind

    def read_text(self, node: Any) -> Any:
        """The value of the text; a field that has a default takes an empty text for none."""
        return _read_text(self.kind, node, self.default)


class Text(Field):
    """``<name>value</name>``."""

    def __init__(self, kind: Kind[Any], tag: str | None, default: Any) -> None:
        super().__init__(tag, default)
        self.kind = kind

    def is_absent(self, value: Any) -> bool:
        return value is None or (value == "" and not self.required)

    def read(self, values: dict[str, Any], node: Any, unknown: list[Unknown]) -> bool:
        if self.name in values:
            return False
        values[self.name] = _read_text(self.kind, node, self.default)
        unknown.extend(_extras(node))
        return True

    def write(self, value: Any, writer: Writer, unknown: list[Unknown]) -> None:
        _write_leaf(writer, self.tag, self.kind.format(value), unknown)


class Texts(Field):
    """``<name>value</name>``, any number of times."""

    def __init__(self, kind: Kind[Any], tag: str | None, factory: Callable[[], Any]) -> None:
        super().__init__(tag, REQUIRED, factory)
        self.kind = kind

    def is_absent(self, value: Any) -> bool:
        return not value

    def read(self, values: dict[str, Any], node: Any, unknown: list[Unknown]) -> bool:
        if _extras(node):
            return False
        values.setdefault(self.name, []).append(_read_text(self.kind, node, REQUIRED))
        return True

    def write(self, value: Any, writer: Writer, unknown: list[Unknown]) -> None:
        for item in value:
            writer.leaf(self.tag, [], self.kind.format(item))


class Flag(Field):
    """``<name/>``, which is there or not."""

    def is_absent(self, value: Any) -> bool:
        return not value

    def read(self, values: dict[str, Any], node: Any, unknown: list[Unknown]) -> bool:
        if self.name in values:
            return False
        values[self.name] = True
        unknown.extend(_extras(node))
        if stray := text_of(node).strip(BLANK):
            unknown.append(Unknown("text()", stray, self.tag))
        return True

    def write(self, value: Any, writer: Writer, unknown: list[Unknown]) -> None:
        _write_leaf(writer, self.tag, None, unknown)


class Setting(Field):
    """``<tag name='value'/>``: a child element that is one attribute."""

    def __init__(self, kind: Kind[Any], tag: str | None, attribute: str, default: Any, implied: Any) -> None:
        super().__init__(tag, default)
        self.attribute = Attribute(kind, attribute, REQUIRED)
        self.implied = implied

    def read(self, values: dict[str, Any], node: Any, unknown: list[Unknown]) -> bool:
        if self.name in values:
            return False
        values[self.name] = self.value_of(node)
        unknown.extend(item for item in _extras(node) if item.name != f"@{self.attribute.tag}")
        return True

    def value_of(self, node: Any) -> Any:
        """The attribute's value, or what its absence means."""
        written = node.get(self.attribute.tag)
        if written is not None:
            return self.attribute.read_value(node, written)
        if self.implied is REQUIRED:
            raise missing(node, self.attribute)
        return self.implied

    def write(self, value: Any, writer: Writer, unknown: list[Unknown]) -> None:
        _write_leaf(writer, self.tag, None, unknown, [(self.attribute.tag, self.attribute.kind.format(value))])


class Settings(Setting):
    """``<tag name='value'/>``, any number of times."""

    def __init__(self, kind: Kind[Any], tag: str | None, attribute: str, factory: Callable[[], Any]) -> None:
        super().__init__(kind, tag, attribute, REQUIRED, REQUIRED)
        self.factory = factory

    def is_absent(self, value: Any) -> bool:
        return not value

    def read(self, values: dict[str, Any], node: Any, unknown: list[Unknown]) -> bool:
        if any(item.name != f"@{self.attribute.tag}" for item in _extras(node)):
            return False
        values.setdefault(self.name, []).append(self.value_of(node))
        return True

    def write(self, value: Any, writer: Writer, unknown: list[Unknown]) -> None:
        for item in value:
            writer.leaf(self.tag, [(self.attribute.tag, self.attribute.kind.format(item))])


class Child(Field):
    """A child element of one of some classes."""

    def __init__(
        self, classes: tuple[type[Element], ...], default: Any, factory: Callable[[], Any] | None = None
    ) -> None:
        super().__init__(classes[0].TAG if classes else None, default, factory)
        self.classes = classes

    def tags(self) -> tuple[str, ...]:
        return tuple({cls.qualified_name(): None for cls in self.classes})

    def is_absent(self, value: Any) -> bool:
        return value is None or value.is_nothing()

    def read(self, values: dict[str, Any], node: Any, unknown: list[Unknown]) -> bool:
        if self.name in values:
            return False
        element = self.select(node).from_node(node)
        if not element.is_nothing():
            values[self.name] = element
        return True

    def select(self, node: Any) -> type[Element]:
        """The class of an element: its tag and, among several, the attribute that tells them apart."""
        classes = [cls for cls in self.classes if cls.qualified_name() == node.tag]
        for cls in classes:
            if all(node.get(name) == value for name, value in cls.WHEN.items()):
                return cls
        names = {name: None for cls in classes for name in cls.WHEN}
        name = next((name for name in names if node.get(name) is not None), next(iter(names)))
        tag, value = local_name(node), node.get(name)
        if value is None:
            raise ModelError(path_of(node), f"Missing required attribute '{name}' in element '{tag}'")
        known = [word for cls in classes if (word := cls.WHEN.get(name)) is not None]
        reason = f"Invalid value for attribute '{name}' in element '{tag}': '{value}'. Write one of {', '.join(known)}"
        raise ModelError(f"{path_of(node)}/@{name}", reason)

    def write(self, value: Any, writer: Writer, unknown: list[Unknown]) -> None:
        value.write(writer)


class Children(Child):
    """Child elements of some classes, any number of them."""

    def is_absent(self, value: Any) -> bool:
        return all(item.is_nothing() for item in value)

    def read(self, values: dict[str, Any], node: Any, unknown: list[Unknown]) -> bool:
        items = values.setdefault(self.name, [])
        element = self.select(node).from_node(node)
        if not element.is_nothing():
            items.append(element)
        return True

    def write(self, value: Any, writer: Writer, unknown: list[Unknown]) -> None:
        for item in value:
            item.write(writer)


class Nested(Child):
    """A child element of the class that declares it."""


class Verbatim(Field):
    """A child element kept as it is, whatever is in it; the value is its XML."""

    def read(self, values: dict[str, Any], node: Any, unknown: list[Unknown]) -> bool:
        if self.name in values:
            return False
        values[self.name] = fragment(node)
        return True

    def write(self, value: Any, writer: Writer, unknown: list[Unknown]) -> None:
        writer.fragment(value)


def local_name(node: Any) -> str:
    """The element's name without its namespace."""
    name: str = node.tag.rpartition("}")[2]
    return name


def missing(node: Any, field: Field) -> ModelError:
    """The error for an element that lacks what must be there."""
    where = path_of(node)
    if isinstance(field, Attribute):
        return ModelError(where, f"Missing required attribute '{field.tag}' in element '{local_name(node)}'")
    if isinstance(field, Content):
        return ModelError(where, f"element '{local_name(node)}' must not be empty")
    return ModelError(where, f"missing element '{field.tag}' in element '{local_name(node)}'")


def _read_text(kind: Kind[Any], node: Any, default: Any) -> Any:
    value = text_of(node)
    if any(isinstance(element.tag, str) for element in node):
        value = value.strip(BLANK)  # the indentation of what is beside the text
    if not value and default is not REQUIRED:
        return default
    try:
        return kind.parse(value if kind is STRING else value.strip(BLANK))
    except ValueError as error:
        general = f"Invalid value '{value}' for element or attribute '{local_name(node)}'"
        raise ModelError(path_of(node), kind.refusal(local_name(node), value, general, error), code=kind.code) from None


def _extras(node: Any) -> list[Unknown]:
    """What a leaf has beyond its text."""
    leaf = node.tag
    found = [Unknown(f"@{name}", value, leaf) for name, value in node.attrib.items()]
    found += [Unknown(element.tag, fragment(element), leaf) for element in node if isinstance(element.tag, str)]
    return found


def _write_leaf(
    writer: Writer, tag: str, value: str | None, unknown: list[Unknown], own: list[tuple[str, str]] | None = None
) -> None:
    extras = [item for item in unknown if item.leaf == tag]
    attributes = [*(own or ()), *((item.name[1:], item.value) for item in extras if item.is_attribute)]
    below = [item for item in extras if not item.is_attribute]
    if not below:
        writer.leaf(tag, attributes, value)
        return
    writer.start(tag, attributes)
    if value is not None:
        writer.characters(value)
    for item in below:
        item.write(writer)
    writer.end()
