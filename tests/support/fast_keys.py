"""What makes QEMU take milliseconds, not seconds, to find how many iterations a key is worth: a library to preload.

For each key slot that QEMU fills it derives keys until half a second of the thread's own time has passed, whatever
``iter-time`` says, and QEMU 7.2 gives up where that time did not move at all. Here ``getrusage`` tells a thread a
microsecond for each nanosecond: there are fewer iterations, and everything else is as it is.
"""

from __future__ import annotations

import platform
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.block.crypto import luks

# int getrusage(int who, struct rusage *usage), for x86-64: no compiler is needed where the tests run.
_CODE = bytes.fromhex(
    "b862000000 0f05"  # eax = getrusage(who, usage)
    "85c0 7542 83ff01 753c"  # to the end where it failed, or this is not about RUSAGE_THREAD
    "56 4883ec10 4889e6 bf03000000 b8e4000000 0f05"  # clock_gettime(CLOCK_THREAD_CPUTIME_ID, stack)
    "488b0424 4869c000ca9a3b 4803442408"  # rax = seconds * 1_000_000_000 + nanoseconds
    "4883c410 5e 31d2 b940420f00 48f7f1 488906 48895608 31c0"  # ru_utime = rax / 1_000_000, rax % 1_000_000
    "c3 83c8ff c3"  # return 0, or -1
)
_PAGE = 4096


def library() -> bytes:
    """The shared library (System V ABI, chapters 4 and 5): one page of code, and one that the linker writes to."""
    names = b"\0getrusage\0"
    # The null symbol, and a global function in the section after those that are reserved.
    at = {"code": 0x200, "hash": 0x300, "symbols": 0x340, "names": 0x380}
    symbols = bytes(24) + struct.pack("<IBBHQQ", 1, 0x12, 0, 1, at["code"], len(_CODE))
    hashes = struct.pack("<5I", 1, 2, 1, 0, 0)  # one bucket of two symbols, which begins and ends with the second
    dynamic = {4: at["hash"], 5: at["names"], 6: at["symbols"], 10: len(names), 11: 24, 0: 0}
    table = b"".join(struct.pack("<QQ", *entry) for entry in dynamic.items())
    # A shared object for x86-64 whose program headers follow, and nothing else.
    head = b"\x7fELF\2\1\1".ljust(16, b"\0") + struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, 56, 4, 0, 0, 0)
    for kind, flags, offset, length, align in (
        (1, 5, 0, _PAGE, _PAGE),  # what is loaded to be run
        (1, 6, _PAGE, len(table), _PAGE),  # what is loaded to be written to
        (2, 6, _PAGE, len(table), 8),  # what the linker reads
        (0x6474E551, 6, 0, 0, 16),  # a stack that is not run
    ):
        head += struct.pack("<IIQQQQQQ", kind, flags, offset, offset, offset, length, length, align)
    page = bytearray(_PAGE)
    parts = {0: head, at["code"]: _CODE, at["hash"]: hashes, at["symbols"]: symbols, at["names"]: names}
    for offset, content in parts.items():
        page[offset : offset + len(content)] = content
    return bytes(page) + table


@pytest.fixture(scope="module", autouse=True)
def fast_keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keys take milliseconds: those of QEMU where it runs on x86-64, and ours where nothing else is asked for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(luks, "DEFAULT_ITER_TIME", 20)
        if platform.machine() == "x86_64":
            path: Path = tmp_path_factory.mktemp("fast-keys") / "fast-keys.so"
            path.write_bytes(library())
            patch.setenv("LD_PRELOAD", str(path))
        yield
