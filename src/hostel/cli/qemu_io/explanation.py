"""What ``help COMMAND`` says beyond the line that all commands have: examples and options."""

from __future__ import annotations

from typing import Final

_QUIET: Final = "-q, say nothing of how long it took"
_PARSABLE: Final = (
    "-C, say how long it took as comma-separated values: bytes, operations, time, bytes and operations a second"
)
_SURELY: Final = "-f, have it on the medium before it counts as done"
_ZEROES: Final = "-z, write zeroes in the way that the format has for that"
_UNMAP: Final = "-u, with -z: the zeroes need not keep their space"
_STATE: Final = "-b, in the machine state beside the disk"
_DUMP: Final = "-v, show the bytes"
_CHECK: Final = "-P, compare the bytes with this one, and fail where they differ"
_FILL: Final = "-P, the byte to write; it is 0xcd"
_REFUSED: Final = "-i, make a request that counts as failed before it begins"

_TEXTS: Final[dict[str, tuple[str, str, tuple[str, ...]]]] = {
    "read": (
        "reads so many bytes from an offset",
        "read -v 64k 512",
        (
            _STATE,
            _PARSABLE,
            "-l, with -P: compare so many bytes",
            "-p, ignored, as it has been for long",
            _CHECK,
            _QUIET,
            "-s, with -P: begin to compare so many bytes after the offset",
            _DUMP,
        ),
    ),
    "readv": (
        "reads into several buffers of these lengths, one behind the other, from an offset",
        "readv -v 0 4k 512 512",
        (_PARSABLE, _CHECK, _QUIET, _DUMP),
    ),
    "write": (
        "writes so many bytes from an offset",
        "write -P 0x5a 1M 64k",
        (
            _STATE,
            "-c, compressed: whole clusters",
            _PARSABLE,
            _SURELY,
            "-n, with -z: fail where that would take as long as writing",
            "-p, ignored, as it has been for long",
            _FILL,
            _QUIET,
            "-s, write what a file has, again and again",
            _UNMAP,
            _ZEROES,
        ),
    ),
    "writev": (
        "writes several buffers of these lengths, one behind the other, from an offset",
        "writev -P 0x5a 0 4k 512 512",
        (_PARSABLE, _SURELY, _FILL, _QUIET),
    ),
    "aio_read": (
        "begins to read into several buffers of these lengths; 'aio_flush' waits for it",
        "aio_read -v 0 4k 512 512",
        (_PARSABLE, _REFUSED, _CHECK, _QUIET, _DUMP),
    ),
    "aio_write": (
        "begins to write several buffers of these lengths; 'aio_flush' waits for it",
        "aio_write -P 0x5a 0 4k 512 512",
        (_PARSABLE, _SURELY, _REFUSED, _FILL, _QUIET, _UNMAP, _ZEROES),
    ),
    "discard": (
        "says that so many bytes from an offset are not needed any more",
        "discard 1M 64k",
        (_PARSABLE, _QUIET),
    ),
    "open": (
        "opens an image; one that is open has to be closed before",
        "open -o driver=qcow2 disk.qcow2",
        (
            "-C, copy what is read from the backing file into the image",
            "-d, whether discards are passed on: ignore or unmap",
            "-i, how files are read and written: threads, native or io_uring",
            "-k, use the host's own asynchronous requests, which need -n",
            "-n, past the host's cache",
            "-o, options of the driver",
            "-r, for reading only",
            "-s, forget in the end what is written",
            "-t, how the host's cache is used: none, writeback, writethrough, directsync or unsafe",
            "-U, also where others write it",
        ),
    ),
    "reopen": (
        "gives the image that is open other options, and keeps it open",
        "reopen -o lazy-refcounts=on",
        (
            "-c, how the host's cache is used: none, writeback, writethrough, directsync or unsafe",
            "-o, options of the driver",
            "-r, for reading only",
            "-w, for reading and writing",
        ),
    ),
    "sigraise": ("sends a signal, by its number, to this program", "sigraise 9", ()),
}


def extended(name: str) -> str:
    """The lines about a command, by its name; none where its one line says it all."""
    if name not in _TEXTS:
        return ""
    what, example, options = _TEXTS[name]
    lines = ["", f" {what}", "", " Example:", f" '{example}'", ""]
    return "\n".join([*lines, *(f" {option}" for option in options), *([""] if options else []), ""])
