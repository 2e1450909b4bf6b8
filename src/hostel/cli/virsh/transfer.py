"""``vol-upload`` and ``vol-download``: a volume's bytes from a file and into one."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import Final

from hostel.cause import sentence
from hostel.cli.options import Args
from hostel.cli.virsh.session import CommandError, Session, failing
from hostel.drivers.base import Hole
from hostel.drivers.storage import content
from hostel.errors import ErrorCode, VirtError

_CHUNK: Final = 1024 * 1024  # bytes
_BINARY: Final[int] = getattr(os, "O_BINARY", 0)  # Windows' alone, whose files are text otherwise


def upload(session: Session, args: Args) -> None:
    """Overwrite a volume from an offset with what a file holds."""
    offset, length = _range(args)
    volume = session.volume(args)
    path = args["file"]
    try:
        descriptor = os.open(path, os.O_RDONLY | _BINARY)
    except OSError as error:
        raise CommandError(f"cannot read {path}", _reason(path, error)) from error
    try:
        sparse = args.has("sparse") and _has_end(descriptor)
        pieces = content.download(descriptor, 0, 0, sparse=True) if sparse else _read(descriptor)
        with failing(f"cannot send data to volume {args['vol']}"):
            try:
                session.storage.storage_vol_upload(volume, pieces, offset, length, trusted=args.has("trust"))
            except VirtError as error:
                if error.code is ErrorCode.NO_SUPPORT:
                    raise CommandError(f"cannot upload to volume {args['vol']}", error) from error
                raise
    finally:
        os.close(descriptor)


def download(session: Session, args: Args) -> None:
    """Copy a volume's bytes into a file; one that was made for it does not stay when that fails."""
    offset, length = _range(args)
    volume = session.volume(args)
    path = args["file"]
    descriptor, created = _open_target(path)
    done = False
    try:
        with failing(f"cannot download from volume {args['vol']}"):
            pieces = session.storage.storage_vol_download(volume, offset, length, sparse=args.has("sparse"))
        with failing(f"cannot receive data from volume {args['vol']}"):
            for piece in pieces:
                if isinstance(piece, Hole):
                    _skip(descriptor, piece.length)
                else:
                    _write(descriptor, piece)
        done = True
    finally:
        os.close(descriptor)
        if created and not done:
            os.unlink(path)


def _range(args: Args) -> tuple[int, int]:
    return args.number("offset") or 0, args.number("length", wraps=True) or 0


def _open_target(path: str) -> tuple[int, bool]:
    flags = os.O_WRONLY | _BINARY
    try:
        return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666), True
    except OSError as error:
        failure = error
    if failure.errno == errno.EEXIST:
        try:
            return os.open(path, flags | os.O_TRUNC), False
        except OSError as error:
            failure = error
    raise CommandError(f"cannot create {path}", _reason(path, failure)) from failure


def _reason(path: str, error: OSError) -> OSError:
    # virsh leaves its user guessing here.
    return OSError(f"{path}: {sentence(error)}")


def _read(descriptor: int) -> Iterator[memoryview | Hole]:
    while data := os.read(descriptor, _CHUNK):
        yield memoryview(data)


def _has_end(descriptor: int) -> bool:
    """Whether a file can be sought in, and its holes found; a pipe cannot."""
    if not hasattr(os, "SEEK_DATA"):
        return False
    try:
        os.lseek(descriptor, 0, os.SEEK_CUR)
    except OSError:
        return False
    return True


def _skip(descriptor: int, length: int) -> None:
    end = os.lseek(descriptor, length, os.SEEK_CUR)
    os.ftruncate(descriptor, end)  # or a hole at the end would be missing


def _write(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
