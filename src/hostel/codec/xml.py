"""XML elements as annotated classes: declaration order is output order, and parse and format are inverse.

>>> class Target(Element, tag="target"):
...     dev: str = attr()
...     bus: str | None = attr(default=None)
>>> class Disk(Element, tag="disk"):
...     type: str = attr(choice("file", "block"))
...     target: Target | None = child(Target, default=None)
...     readonly: bool = flag(default=False)
...     serial: str | None = text(default=None)
>>> disk = Disk.parse("<disk type='file'><readonly/><target dev='vda'/></disk>")
>>> disk.target.dev, disk.readonly
('vda', True)
>>> print(disk.format(), end="")
<disk type='file'>
  <target dev='vda'/>
  <readonly/>
</disk>

A field without ``default=`` (or ``factory=``) is required, for a type checker as for the parser. ``None`` means that it
is not there. Fields of a base class come after those of the class itself, since a base says what such elements end
with, unless it ``leads``; what a class names as ``last`` comes after them.

What a document says beyond the declarations is not lost. It is in :attr:`Element.unknown`, is written again, and has a
path (:meth:`Element.unknown_paths`) by which a rule may refuse it. What of an element can be there only once counts as
unknown from its second on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Self, TypeVar, cast, dataclass_transform, overload

from hostel.codec.xmlfield import (
    BLANK,
    REQUIRED,
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
    Unknown,
    Verbatim,
    local_name,
    missing,
)
from hostel.codec.xmltext import Writer, fragment, parse, text_of
from hostel.codec.xmlvalue import (
    ON_OFF,
    STRING,
    UUID,
    YES_NO,
    Kind,
    choice,
    enumeration,
    hexadecimal,
    integer,
    octal,
)
from hostel.errors import ModelError

__all__ = [
    "ON_OFF", "STRING", "UUID", "YES_NO", "Element", "Kind", "Unknown", "attr", "child", "children", "choice",
    "content", "enumeration", "flag", "hexadecimal", "integer", "nested", "octal", "setting", "settings", "text",
    "texts", "verbatim",
]  # fmt: skip

T = TypeVar("T")
D = TypeVar("D")
E = TypeVar("E", bound="Element")


@overload
def attr(*, name: str | None = None) -> str: ...
@overload
def attr(*, name: str | None = None, default: D) -> str | D: ...
@overload
def attr(kind: Kind[T], *, name: str | None = None) -> T: ...
@overload
def attr(kind: Kind[T], *, name: str | None = None, default: D) -> T | D: ...
def attr(kind: Any = STRING, *, name: str | None = None, default: Any = REQUIRED) -> Any:
    """Declare an attribute; ``name`` where it differs from the field's."""
    return Attribute(kind, name, default)


@overload
def content() -> str: ...
@overload
def content(*, default: D) -> str | D: ...
@overload
def content(kind: Kind[T]) -> T: ...
@overload
def content(kind: Kind[T], *, default: D) -> T | D: ...
def content(kind: Any = STRING, *, default: Any = REQUIRED) -> Any:
    """Declare that the element has text of its own."""
    return Content(kind, default)


@overload
def text(*, tag: str | None = None) -> str: ...
@overload
def text(*, tag: str | None = None, default: D) -> str | D: ...
@overload
def text(kind: Kind[T], *, tag: str | None = None) -> T: ...
@overload
def text(kind: Kind[T], *, tag: str | None = None, default: D) -> T | D: ...
def text(kind: Any = STRING, *, tag: str | None = None, default: Any = REQUIRED) -> Any:
    """Declare a child element with text only; ``tag`` where it differs from the field's name."""
    return Text(kind, tag, default)


def texts(kind: Kind[T], *, tag: str | None = None, factory: type[list[Any]]) -> list[T]:
    """Declare child elements with text only, any number of them; ``factory`` is ``list``."""
    return cast("list[T]", Texts(kind, tag, factory))


def flag(*, tag: str | None = None, default: bool) -> bool:
    """Declare an empty child element that is there or not."""
    return cast("bool", Flag(tag, default))


@overload
def setting(*, tag: str | None = None, name: str, default: D, implied: Any = REQUIRED) -> str | D: ...
@overload
def setting(kind: Kind[T], *, tag: str | None = None, name: str, default: D, implied: Any = REQUIRED) -> T | D: ...
def setting(
    kind: Any = STRING, *, tag: str | None = None, name: str, default: Any = REQUIRED, implied: Any = REQUIRED
) -> Any:
    """Declare a child element that is one attribute ``name``; ``implied`` is what the element means without it."""
    return Setting(kind, tag, name, default, implied)


def settings(kind: Kind[T], *, tag: str | None = None, name: str, factory: type[list[Any]]) -> list[T]:
    """Declare child elements that are one attribute ``name``, any number of them; ``factory`` is ``list``."""
    return cast("list[T]", Settings(kind, tag, name, factory))


@overload
def child(*classes: type[E]) -> E: ...
@overload
def child(*classes: type[E], default: D) -> E | D: ...
@overload
def child(*classes: type[E], factory: Callable[[], E]) -> E: ...
def child(*classes: Any, default: Any = REQUIRED, factory: Any = None) -> Any:
    """Declare a child element; among several classes of one tag, :attr:`Element.WHEN` chooses."""
    return Child(classes, default, factory)


def children(*classes: type[E], factory: type[list[Any]]) -> list[E]:
    """Declare child elements, any number of them; ``factory`` is ``list``."""
    return cast("list[E]", Children(classes, REQUIRED, factory))


def nested(*, default: None) -> Any:
    """Declare a child element of the class itself, such as a backing store of a backing store."""
    return Nested((), default)


def verbatim(*, tag: str | None = None, default: None) -> str | None:
    """Declare a child element that is kept as XML."""
    return cast("str | None", Verbatim(tag, default))


@dataclass_transform(
    kw_only_default=True, field_specifiers=(attr, content, text, texts, flag, child, children, verbatim)
)
class Element:
    """One XML element; see the module for how subclasses declare what is in it.

    Attributes:
        TAG: the element's name.
        NAMESPACE: prefix and URI, for another program's element.
        WHEN: attributes with a fixed value, which tell classes of one tag apart; None for one that is not there.
        DROP_EMPTY: whether an element with nothing in it is the same as none.
        KEEP_OPEN: whether it is written with an end tag even where it is empty.
        FIELDS: the declarations, in output order.
    """

    TAG: ClassVar[str] = ""
    NAMESPACE: ClassVar[tuple[str, str] | None] = None
    WHEN: ClassVar[dict[str, str | None]] = {}
    DROP_EMPTY: ClassVar[bool] = False
    KEEP_OPEN: ClassVar[bool] = False
    FIELDS: ClassVar[tuple[Field, ...]] = ()
    _attributes: ClassVar[dict[str, Attribute]] = {}
    _elements: ClassVar[dict[str, Field]] = {}
    _content: ClassVar[Content | None] = None
    _required: ClassVar[tuple[Field, ...]] = ()
    _factories: ClassVar[tuple[tuple[str, Callable[[], Any]], ...]] = ()
    _defaults: ClassVar[dict[str, Any]] = {}
    _names: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(
        cls,
        *,
        tag: str = "",
        namespace: tuple[str, str] | None = None,
        when: Mapping[str, str | None] | None = None,
        drop_empty: bool = False,
        keep_open: bool = False,
        last: tuple[str, ...] = (),
        leads: bool = False,
    ) -> None:
        cls.TAG = tag or cls.TAG
        cls.NAMESPACE = namespace
        cls.WHEN = dict(when or {})
        cls.DROP_EMPTY, cls.KEEP_OPEN = drop_empty, keep_open
        own: list[Field] = []
        for name, value in list(cls.__dict__.items()):
            if isinstance(value, Field):
                value.name = name
                if isinstance(value, Nested):
                    value.tag, value.classes = cls.TAG, (cls,)
                value.tag = value.tag or name
                own.append(value)
                delattr(cls, name)  # an instance without it must not find the declaration
        names = {field.name for field in own}
        inherited = [field for field in cls.FIELDS if field.name not in names]
        for field in own:
            field.leads = leads
        cls.FIELDS = (
            *(field for field in inherited if field.leads),
            *(field for field in own if field.name not in last),
            *(field for field in inherited if not field.leads),
            *(field for field in own if field.name in last),
        )
        cls._attributes = {field.tag: field for field in cls.FIELDS if isinstance(field, Attribute)}
        cls._elements = {key: field for field in cls.FIELDS for key in field.tags()}
        cls._content = next((field for field in cls.FIELDS if isinstance(field, Content)), None)
        cls._required = tuple(field for field in cls.FIELDS if field.required)
        cls._factories = tuple((field.name, field.factory) for field in cls.FIELDS if field.factory is not None)
        cls._defaults = {
            field.name: field.default for field in cls.FIELDS if field.factory is None and not field.required
        }
        cls._names = frozenset(field.name for field in cls.FIELDS)

    def __init__(self, **fields: Any) -> None:
        self._unknown: list[Unknown] = list(fields.pop("unknown", ()))
        values = self.__dict__
        values.update(self._defaults)
        for name, factory in self._factories:
            values[name] = factory()
        for name, value in fields.items():
            if name not in self._names:
                raise TypeError(f"{type(self).__name__} has no field {name}")
            values[name] = value
        for field in self._required:
            if field.name not in fields:
                raise TypeError(f"{type(self).__name__} needs {field.name}")

    @property
    def unknown(self) -> list[Unknown]:
        """What no declaration covers, in document order."""
        return self._unknown

    @classmethod
    def qualified_name(cls) -> str:
        """The element's name as a parser gives it."""
        return f"{{{cls.NAMESPACE[1]}}}{cls.TAG}" if cls.NAMESPACE else cls.TAG

    @classmethod
    def parse(cls, xml: str, what: str | None = None) -> Self:
        """Read a document whose root is this element; ``what`` names it in errors.

        Raises:
            ModelError: it is not XML, or not of this shape; the path says where.
        """
        root = parse(xml, what or f"{cls.TAG}_definition")
        if root.tag != cls.qualified_name():
            raise ModelError("", f"expecting root element of '{cls.TAG}', not '{local_name(root)}'")
        return cls.from_node(root)

    @classmethod
    def from_node(cls, node: Any) -> Self:
        """Read the element that a parser made."""
        values: dict[str, Any] = {}
        unknown: list[Unknown] = []
        for name, value in node.attrib.items():
            field = cls._attributes.get(name)
            if field is not None:
                values[field.name] = field.read_value(node, value)
            elif cls.WHEN.get(name) != value:
                unknown.append(Unknown(f"@{name}", value))
        for below in node:
            if isinstance(below.tag, str):
                declared = cls._elements.get(below.tag)
                if declared is None or not declared.read(values, below, unknown):
                    unknown.append(Unknown(below.tag, fragment(below)))
        if cls._content is not None:
            values[cls._content.name] = cls._content.read_text(node)
        elif stray := text_of(node).strip(BLANK):
            unknown.append(Unknown("text()", stray))
        for declaration in cls._required:
            if declaration.name not in values:
                raise missing(node, declaration)
        element = cls.__new__(cls)
        element.__dict__.update(cls._defaults)
        for name, factory in cls._factories:
            if name not in values:
                values[name] = factory()
        element.__dict__.update(values)
        element._unknown = unknown
        return element

    def format(self) -> str:
        """Write the element as a document, as libvirt writes it.

        Raises:
            ModelError: a value has a character that no document can have.
        """
        writer = Writer()
        self.write(writer)
        return writer.text()

    def write(self, writer: Writer) -> None:
        """Add the element to a document."""
        tag = self.TAG
        if self.NAMESPACE is not None:
            prefix, uri = self.NAMESPACE
            tag = f"{prefix}:{tag}"
            writer.namespaces[prefix] = uri
        attributes = [
            (name, value) for name, value in self.WHEN.items() if value is not None and name not in self._attributes
        ]
        inner: list[tuple[Field, Any]] = []
        own_text: str | None = None
        for field in self.FIELDS:
            value = getattr(self, field.name)
            if field.is_absent(value):
                continue
            if isinstance(field, Attribute):
                attributes.append((field.tag, field.kind.format(value)))
            elif isinstance(field, Content):
                own_text = field.kind.format(value)
            else:
                inner.append((field, value))
        loose = [item for item in self.unknown if not item.leaf]
        attributes += [(item.name[1:], item.value) for item in loose if item.is_attribute]
        loose = [item for item in loose if not item.is_attribute]
        if not inner and not loose:
            if self.KEEP_OPEN:
                writer.start(tag, attributes)
                writer.end()
            elif attributes or own_text is not None or not self.DROP_EMPTY:
                writer.leaf(tag, attributes, own_text)
            return
        writer.start(tag, attributes)
        if own_text is not None:
            writer.characters(own_text)
        for field, value in inner:
            field.write(value, writer, self.unknown)
        for item in loose:
            item.write(writer)
        writer.end()

    def is_empty(self) -> bool:
        """Whether nothing would be written in it."""
        if self.unknown or self.WHEN:
            return False
        return all(field.is_absent(getattr(self, field.name)) for field in self.FIELDS)

    def is_nothing(self) -> bool:
        """Whether it is the same as no element at all."""
        return self.DROP_EMPTY and self.is_empty()

    def copy(self) -> Self:
        """A copy that shares nothing that can change."""
        values = {field.name: _copied(getattr(self, field.name)) for field in self.FIELDS}
        return type(self)(**values, unknown=self.unknown)

    def elements(self) -> Iterator[Element]:
        """The element's child elements that are declared, in output order."""
        for field in self.FIELDS:
            value = getattr(self, field.name)
            if isinstance(value, Element):
                yield value
            elif isinstance(value, list):
                yield from (item for item in value if isinstance(item, Element))

    def unknown_paths(self, path: str = "") -> Iterator[str]:
        """Where in the document, seen from ``path``, there is something that no declaration covers."""
        here = f"{path}/{self.TAG}"
        yield from ("/".join(filter(None, (here, item.leaf, item.name))) for item in self.unknown)
        for element in self.elements():
            yield from element.unknown_paths(here)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Element) and type(self) is type(other) and self._compared() == other._compared()

    def _compared(self) -> dict[str, Any]:
        """What equality is about: an empty element may be the same as none, and unknown parts have no order."""
        values: dict[str, Any] = {"": sorted(self.unknown)}
        for name in self._names:
            value = self.__dict__[name]
            if isinstance(value, list):
                values[name] = [item for item in value if not (isinstance(item, Element) and item.is_nothing())]
            else:
                values[name] = None if isinstance(value, Element) and value.is_nothing() else value
        return values

    __hash__ = None  # type: ignore[assignment]  # it can change

    def __repr__(self) -> str:
        shown = {field.name: getattr(self, field.name) for field in self.FIELDS}
        given = [f"{name}={value!r}" for name, value in shown.items() if value is not None and value != []]
        return f"{type(self).__name__}({', '.join(given)})"


def _copied(value: Any) -> Any:
    if isinstance(value, Element):
        return value.copy()
    if isinstance(value, list):
        return [_copied(item) for item in value]
    return value
