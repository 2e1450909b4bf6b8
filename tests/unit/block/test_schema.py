from __future__ import annotations

import pytest

from hostel.block import schema
from hostel.block.options import SWITCH, OptionError


@pytest.mark.parametrize("word", SWITCH)
def test_booleans_on_a_command_line_are_the_words_that_qemu_takes(word: str) -> None:
    schema.check({"driver": "file", "filename": "x", "read-only": word}, text=True)


@pytest.mark.parametrize("word", ["True", "1", ""])
def test_others_are_none(word: str) -> None:
    with pytest.raises(OptionError, match="Parameter 'read-only' expects 'on' or 'off'"):
        schema.check({"driver": "file", "filename": "x", "read-only": word}, text=True)


def test_a_monitor_takes_no_word_for_a_boolean() -> None:
    with pytest.raises(OptionError, match="Invalid parameter type for 'read-only', expected: boolean"):
        schema.check({"driver": "file", "filename": "x", "read-only": "on"}, text=False)
