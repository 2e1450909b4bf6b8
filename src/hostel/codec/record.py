"""Fixed binary structures as annotated classes.

>>> class Header(Record, endian="big"):
...     magic: u32
...     size: u64
>>> Header.SIZE, Header.OFFSET["size"]
(12, 4)
>>> Header.unpack(Header(magic=1, size=2).pack()).size
2

The annotations are read as text, so a module that declares records may use ``from __future__ import annotations``;
only the types of this module, and ``Annotated[bytes, n]`` for ``n`` raw bytes, may be used.
"""

from __future__ import annotations

import struct
from typing import Annotated, Any, ClassVar, Self, TypeAlias, dataclass_transform

from hostel.errors import InvalidImage

u8: TypeAlias = Annotated[int, "B"]
u16: TypeAlias = Annotated[int, "H"]
u32: TypeAlias = Annotated[int, "I"]
u64: TypeAlias = Annotated[int, "Q"]
i32: TypeAlias = Annotated[int, "i"]
i64: TypeAlias = Annotated[int, "q"]

_CODES = {"u8": "B", "u16": "H", "u32": "I", "u64": "Q", "i32": "i", "i64": "q"}
_ENDIAN = {"big": ">", "little": "<"}


@dataclass_transform(kw_only_default=True)
class Record:
    """A fixed binary structure; a subclass's annotations are its fields, in order, without padding.

    Attributes:
        SIZE: bytes of the packed structure.
        OFFSET: each field's offset in bytes.
        FIELDS: the fields' names, in order.
    """

    SIZE: ClassVar[int]
    OFFSET: ClassVar[dict[str, int]]
    FIELDS: ClassVar[tuple[str, ...]]
    _struct: ClassVar[struct.Struct]

    def __init_subclass__(cls, *, endian: str = "big") -> None:
        annotations = {name: text for name, text in cls.__annotations__.items() if not str(text).startswith("ClassVar")}
        order = _ENDIAN[endian]
        codes = [_code(str(text)) for text in annotations.values()]
        cls.FIELDS = tuple(annotations)
        cls._struct = struct.Struct(order + "".join(codes))
        cls.SIZE = cls._struct.size
        cls.OFFSET = {name: struct.calcsize(order + "".join(codes[:index])) for index, name in enumerate(cls.FIELDS)}

    def __init__(self, **fields: Any) -> None:
        for name in self.FIELDS:
            setattr(self, name, fields.pop(name))
        if fields:
            raise TypeError(f"{type(self).__name__} has no field {', '.join(fields)}")

    @classmethod
    def unpack(cls, data: bytes | bytearray | memoryview, offset: int = 0) -> Self:
        """Read the structure at ``offset`` bytes.

        Raises:
            InvalidImage: ``data`` ends before the structure does.
        """
        if offset < 0 or len(data) - offset < cls.SIZE:
            raise InvalidImage(f"{cls.__name__} needs {cls.SIZE} bytes at offset {offset}; {len(data)} are there")
        record = cls.__new__(cls)
        record.__dict__.update(zip(cls.FIELDS, cls._struct.unpack_from(data, offset), strict=True))
        return record

    def pack(self) -> bytes:
        """The structure as :attr:`SIZE` bytes."""
        values = self.__dict__
        return self._struct.pack(*[values[name] for name in self.FIELDS])

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return type(self)(**{**self.__dict__, **changes})

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash(self.pack())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in self.FIELDS)})"


def _code(annotation: str) -> str:
    if annotation in _CODES:
        return _CODES[annotation]
    if annotation.startswith("Annotated[bytes,"):
        return f"{int(annotation[len('Annotated[bytes,') : -1])}s"
    raise TypeError(f"a Record field cannot be {annotation}")
