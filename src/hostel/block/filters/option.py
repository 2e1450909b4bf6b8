"""The options of a filter, from their texts."""

from __future__ import annotations

from collections.abc import Mapping

from hostel.block.options import OptionError, Options, Value


def settle(name: str, declared: Options, given: Mapping[str, Value]) -> dict[str, Value]:
    """Convert what was given to the filter ``name``, and add the defaults.

    Raises:
        OptionError: an option is unknown or wrong; the text is QEMU's.
    """
    for option in given:
        if option not in declared:
            raise OptionError(f"Block format '{name}' does not support the option '{option}'")
    return declared.convert({option: str(value) for option, value in given.items()})
