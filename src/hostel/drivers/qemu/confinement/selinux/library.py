"""``libselinux``, called by ``ctypes`` for one thing alone: how a path is labelled by default.

The rules for that are many, and where SELinux runs the library is there; no wheel has it.
"""

from __future__ import annotations

import ctypes
import os
import threading
from typing import Any, Final

_FILES: Final = 0  # SELABEL_CTX_FILE
_LOCK: Final = threading.Lock()


def look_up(path: str, mode: int) -> str | None:
    """The context that the policy has for a path; None where it has none, or the library is not there.

    Args:
        path: without links.
        mode: the file's type and permissions.
    """
    try:
        library = ctypes.CDLL("libselinux.so.1")
        library.selabel_open.restype = ctypes.c_void_p
        library.selabel_open.argtypes = [ctypes.c_uint, ctypes.c_void_p, ctypes.c_uint]
        library.selabel_lookup_raw.argtypes = [
            ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p), ctypes.c_char_p, ctypes.c_int,
        ]  # fmt: skip
        library.selabel_close.argtypes = library.freecon.argtypes = [ctypes.c_void_p]
    except (OSError, AttributeError):
        return None
    with _LOCK:
        handle = library.selabel_open(_FILES, None, 0)
        if not handle:
            return None
        found: Any = ctypes.c_void_p()
        try:
            if library.selabel_lookup_raw(handle, ctypes.byref(found), os.fsencode(path), mode):
                return None
            return ctypes.string_at(found.value).decode()
        finally:
            library.freecon(found)
            library.selabel_close(handle)
