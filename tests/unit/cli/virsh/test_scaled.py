"""Numbers with units on virsh's command line."""

from __future__ import annotations

import pytest

from hostel.cli.options import Args
from hostel.cli.virsh.scaled import scaled
from hostel.errors import UsageError
from hostel.units import GiB, MiB


def test_a_number_without_a_unit_is_in_that_of_its_option() -> None:
    assert scaled(Args({"size": "10G"}), "size", MiB) == 10 * GiB
    assert scaled(Args({"size": "5"}), "size", MiB) == 5 * MiB


@pytest.mark.parametrize("text", ["", "x", "1.5G", "-1", "10Q", "G10"])
def test_what_is_no_scaled_integer_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="malformed or out of range"):
        scaled(Args({"size": text}), "size", 1)
