"""Rows of :mod:`hostel.drivers.adapters`, made ready for a daemon: they call a driver's methods."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Any, Final

from hostel.codec.xdr import split_type
from hostel.drivers.adapters import Adapter, check_flags, from_wire, to_wire
from hostel.drivers.schema import VALIDATED, check_schema
from hostel.wire.rpc.procedure import Procedure

_TEXT_OKAY: Final = 4  # VIR_TYPED_PARAM_STRING_OKAY: the caller knows parameters that are texts


class Answering:
    """An adapter made ready for a daemon: calls the method with what came, and gives what goes.

    Args:
        procedure: the procedure.
        adapter: its row.
    """

    def __init__(self, procedure: Procedure, adapter: Adapter) -> None:
        fields = procedure.arguments.fields
        self.adapter = adapter
        self._name = procedure.name
        self._has_flags = bool(fields) and fields[-1].name == "flags"
        converters = [from_wire(field) for field in fields]
        self._converters = [(index, convert) for index, convert in enumerate(converters) if convert is not None]
        self._method = adapter.method
        self._first = converters[0] if converters else None
        results = procedure.result.fields
        self._results = [to_wire(field) for field in results]
        self._is_plain = (
            not self._has_flags
            and not adapter.counted
            and not adapter.members
            and not any(converters[1:])
            and (len(results) < 2 or not any(self._results))
        )
        self._tells_parameters = bool(results) and split_type(results[0].type)[0] == "param"
        self._is_about_any = any(field.type.endswith("?") for field in fields)
        self._count = next((index for index, field in enumerate(fields) if field.name == "nparams"), -1)
        self._bound = split_type(results[0].type)[2] if adapter.counted else 0
        self._schema = VALIDATED.get(procedure.name)
        self._document = next((index for index, field in enumerate(fields) if "xml" in field.name), -1)
        self._width = len(results)
        self._result = self._results[0] if results else None

    def __call__(self, driver: Any, arguments: Sequence[Any]) -> Sequence[Any]:
        """Call ``driver``; the members of the answer.

        Raises:
            VirtError: as the method does, or flags that it does not take.
        """
        if self._is_plain:
            return self._plain(driver, arguments)
        given = list(arguments)
        options: dict[str, bool] = {}
        if self._has_flags and self._refuses(driver):
            given.pop()
        elif self._has_flags:
            self._validate(given)
            self._convert_flags(given, options)
        for index, convert in self._converters:
            given[index] = convert(given[index])
        wanted = given.pop(self._count) if self.adapter.counted else 0
        if self.adapter.counted and wanted <= 0 and self._is_about_any:
            # Room for so many is enough; what the call is about may be left out of such a question.
            return [], self._bound
        result = getattr(driver, self.adapter.method)(*given, **options)
        if self.adapter.counted:
            assert self._result is not None
            return (self._result(result)[: max(wanted, 0)], len(result))[: self._width]
        if self.adapter.members:
            result = [getattr(result, member) for member in self.adapter.members]
        if self._width == 1:
            return (result if self._result is None else self._result(result),)
        return [
            value if convert is None else convert(value)
            for value, convert in zip(result or (), self._results, strict=False)
        ]

    def _refuses(self, driver: Any) -> bool:
        """Whether the driver has the method in name only: libvirt, which has none there, asks for no flags first."""
        refused = getattr(driver, "REFUSED", None)
        return isinstance(refused, frozenset) and self._method in refused

    def _plain(self, driver: Any, arguments: Sequence[Any]) -> Sequence[Any]:
        """Likewise, where there are no flags, and one member or members in the result's own order."""
        convert = self._first
        if convert is not None:
            arguments = (convert(arguments[0]), *arguments[1:])
        result = getattr(driver, self._method)(*arguments)
        if self._width == 1:
            return (result if self._result is None else self._result(result),)
        return result if self._width else ()

    def _validate(self, given: list[Any]) -> None:
        """Hold a document against its schema where a flag asks for it, which is then done with."""
        if self._schema is not None and given[-1] & self._schema[0]:
            check_schema(given[self._document], self._schema[1])
            given[-1] &= ~self._schema[0]

    def _convert_flags(self, given: list[Any], options: dict[str, bool]) -> None:
        value = given.pop()
        if self._tells_parameters:
            value &= ~_TEXT_OKAY
        flags = self.adapter.flags
        if isinstance(flags, int):
            check_flags(value, flags, self._name)
        elif isinstance(flags, Mapping):
            check_flags(value, sum(flags), self._name)
            for bit, said in flags.items():
                if value & bit:
                    options.update(said)
        else:
            classes = flags if isinstance(flags, tuple) else (flags,)
            check_flags(value, sum(map(_all_bits, classes)) & ~int(self.adapter.refused), self._name)
            given.extend(one(value & _all_bits(one)) for one in classes)


def _all_bits(flags: type[enum.IntFlag]) -> int:
    value = 0
    for member in flags:
        value |= member
    return value
