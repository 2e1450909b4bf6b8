"""Sizes with a unit: ``<memory unit='MiB'>512</memory>``."""

from __future__ import annotations

from typing import ClassVar

from hostel.codec.xml import Element, attr, content, integer
from hostel.errors import ErrorCode, ModelError
from hostel.units import scale_libvirt

_MAX: int = 2**64 - 1


class Scaled(Element):
    """A size as it is written; subclasses name the element and the unit that is meant where none is said."""

    DEFAULT_UNIT: ClassVar[str] = "KiB"
    unit: str | None = attr(default=None)
    value: int = content(integer(maximum=_MAX))

    def to_bytes(self) -> int:
        """The size in bytes.

        Raises:
            ModelError: the unit is unknown, or the size is over 2**63 - 1 bytes.
        """
        try:
            return scale_libvirt(self.value, self.unit or self.DEFAULT_UNIT)
        except OverflowError as error:
            raise ModelError(self.TAG, str(error), code=ErrorCode.OVERFLOW) from None
        except ValueError as error:
            reason = f"{error}; write bytes, KiB, MiB, GiB or TiB"
            raise ModelError(f"{self.TAG}/@unit", reason, code=ErrorCode.INVALID_ARG) from None

    def to_kib(self) -> int:
        """The size in KiB, rounded up.

        Raises:
            ModelError: as :meth:`to_bytes`.
        """
        return -(-self.to_bytes() // 1024)

    def normalise(self) -> None:
        """Write the size in the default unit, rounded up.

        Raises:
            ModelError: as :meth:`to_bytes`.
        """
        if self.DEFAULT_UNIT == "KiB":
            self.value, self.unit = self.to_kib(), "KiB"
        else:
            self.value, self.unit = self.to_bytes(), self.DEFAULT_UNIT
