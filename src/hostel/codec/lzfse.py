"""LZFSE, Apple's compression, by the reference implementation where one is installed: a library, or a Python package.

The packages bring the library inside their module. It is called there directly: their own function goes on asking for
memory until everything fits, whatever the data holds.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from typing import Any, Final

from hostel.errors import CorruptImage, UnsupportedFeature

_SONAMES: Final = ("liblzfse.so.1", "liblzfse.so")
_MODULES: Final = ("lzfse", "liblzfse")  # of the packages lzfse and pyliblzfse


def unpack(data: bytes | bytearray, length: int) -> bytes:
    """Decompress to exactly ``length`` bytes; memory is bounded by it.

    Raises:
        CorruptImage: the data is broken, or of another length.
        UnsupportedFeature: there is no library.
    """
    library = _library()
    if library is None:
        raise UnsupportedFeature("lzfse compression needs the package 'lzfse'", hint="Install it: pip install lzfse")
    out = ctypes.create_string_buffer(length + 1)
    count = library.lzfse_decode_buffer(out, length + 1, bytes(data), len(data), None)
    if count != length:
        held = f"more than {length}" if count > length else f"{count} instead of {length}"
        raise CorruptImage(f"it holds {held} bytes, or is broken" if count else "it cannot be decompressed")
    return out.raw[:length]


@functools.cache
def _library() -> Any:
    places = list(_SONAMES)
    for module in _MODULES:
        found = importlib.util.find_spec(module)
        if found is not None and found.origin:
            places.append(found.origin)
    for place in places:
        try:
            decode = (library := ctypes.CDLL(place)).lzfse_decode_buffer
        except (OSError, AttributeError):
            continue
        decode.restype = ctypes.c_size_t
        decode.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_void_p)
        return library
    return None
