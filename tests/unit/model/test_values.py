"""Sizes with units, and sets of numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostel.errors import ErrorCode, ModelError
from hostel.model.domain.devices.paravirtual import ShmemSize
from hostel.model.domain.memory import Memory
from hostel.model.domain.security import LaunchSecurity
from hostel.model.domain.tune import Cputune
from hostel.model.numberset import format_numbers, parse_numbers
from support.domain import defined
from support.refused import document


@pytest.mark.parametrize(
    ("xml", "kib"),
    [
        ("<memory>1000</memory>", 1000),
        ("<memory unit='bytes'>1025</memory>", 2),
        ("<memory unit='b'>1</memory>", 1),
        ("<memory unit='KB'>1000</memory>", 977),
        ("<memory unit='k'>7</memory>", 7),
        ("<memory unit='MiB'>512</memory>", 524288),
        ("<memory unit='GB'>1</memory>", 976563),
        ("<memory unit='TiB'>1</memory>", 1 << 30),
    ],
)
def test_memory_is_in_kib_rounded_up(xml: str, kib: int) -> None:
    memory = Memory.parse(xml)
    assert memory.to_kib() == kib
    memory.normalise()
    assert memory.format() == f"<memory unit='KiB'>{kib}</memory>\n"


def test_other_sizes_are_in_their_own_unit() -> None:
    size = ShmemSize.parse("<size unit='M'>4</size>")
    size.normalise()
    assert (size.unit, size.value) == ("bytes", 4 << 20)


@pytest.mark.parametrize(
    ("xml", "code"),
    [
        ("<memory unit='frob'>1</memory>", ErrorCode.INVALID_ARG),
        ("<memory unit='EiB'>8</memory>", ErrorCode.OVERFLOW),
    ],
)
def test_size_that_is_none_is_refused(xml: str, code: ErrorCode) -> None:
    with pytest.raises(ModelError) as caught:
        Memory.parse(xml).to_kib()
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("0", {0}), ("0-3", {0, 1, 2, 3}), ("0-3,^2,8", {0, 1, 3, 8}), ("4, 1", {1, 4}), ("1,^1", set())],
)
def test_numbers_are_read_as_libvirt_reads_them(text: str, numbers: set[int]) -> None:
    assert parse_numbers(text) == numbers


@pytest.mark.parametrize("text", ["", "a", "3-1", "1,,2", "-1", "^1-2", "99999", "1-99999"])
def test_what_is_no_set_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="Write"):
        parse_numbers(text)


def test_policies_are_hexadecimal_without_saying_so() -> None:
    """``virXPathULongHex``: what a guest's memory is kept from is no matter of taste."""
    security = LaunchSecurity.parse("<launchSecurity type='sev'><policy>10</policy></launchSecurity>")
    assert security.policy == 0x10


def test_shares_of_no_processor_are_left_out() -> None:
    """Whoever excludes what was not named has named nothing (``virDomainCachetuneDefParse``)."""
    tune = "<cputune><cachetune vcpus='^21'><cache id='0' level='3' type='both' size='1'/></cachetune></cputune>"
    assert (defined(document(body=tune)).cputune or Cputune()).cachetunes == []


@given(st.frozensets(st.integers(0, 16383), min_size=1))
def test_sets_are_written_in_ranges_and_read_again(numbers: frozenset[int]) -> None:
    text = format_numbers(numbers)
    assert parse_numbers(text) == numbers
    assert f",{max(numbers) + 1}" not in text
