"""Libraries of the host."""

from __future__ import annotations

import ctypes

import pytest

from hostel.block.protocols import shared_library
from hostel.errors import UnsupportedFeature


def test_a_library_that_is_not_here_is_an_error_that_says_what_to_install() -> None:
    with pytest.raises(UnsupportedFeature, match=r"disks needs libnothing.so.2 or libnothing.so.1") as caught:
        shared_library.load("disks", ("libnothing.so.2", "libnothing.so.1"), {}, "Install the package libnothing1.")
    assert caught.value.hint == "Install the package libnothing1."


def test_a_library_that_is_too_old_is_an_error() -> None:
    with pytest.raises(UnsupportedFeature, match=r"disks needs a newer libc.so.6, with no_such_function\(\)"):
        shared_library.load("disks", ("libc.so.6",), {"no_such_function": (None,)}, "Upgrade it.")


@pytest.mark.parametrize("readonly", [False, True])
def test_memory_is_what_the_library_reads(readonly: bool) -> None:
    library = shared_library.load(
        "text", ("libc.so.6",), {"memchr": (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)}, ""
    )
    data = memoryview(b"abcd" if readonly else bytearray(b"abcd"))[1:3]
    memory = shared_library.memory(data)
    assert library.memchr(memory, ord("c"), len(data))
    assert not library.memchr(memory, ord("d"), len(data))
