"""New images for copies and snapshots, made by our own block layer, on what the guest's disk stands on."""

from __future__ import annotations

import contextlib
import os

from hostel.cause import sentence
from hostel.drivers.fault import fault, printable
from hostel.drivers.qemu.block.chain import Image
from hostel.drivers.qemu.block.naming import backing_name
from hostel.drivers.qemu.machines import failed
from hostel.errors import ErrorCode, ErrorDomain, VirtError


def create_image(image: Image, size: int, *, backing: Image | None = None) -> None:
    """Make the file of an image; only its owner may read it, whoever may read the images that it stands on.

    Args:
        image: where, and of which format; a file that is there and empty is taken.
        size: its virtual size in bytes.
        backing: what it stands on.

    Raises:
        VirtError: the host or the format refused; the file is not there then.
    """
    if image.source.slice is not None:
        what = "creation of images with slice type='storage' is not supported"
        raise fault(ErrorCode.OPERATION_UNSUPPORTED, what, ErrorDomain.QEMU)
    # Imported here: only what makes images needs the block layer.
    from hostel.img import create

    try:
        plan = create.plan(
            image.path,
            image.format,
            size,
            backing=backing_name(backing) if backing is not None else None,
            backing_format=backing.format if backing is not None else None,
            open_backing=False,
        )
        if image.file is not None:
            with contextlib.suppress(FileExistsError):
                os.close(os.open(image.file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        create.create(plan)
    except OSError as error:
        raise _failed(image.path, error) from error


def create_over(below: Image, image: Image) -> None:
    """Make an image on one that nothing runs on, or that is only read.

    Raises:
        VirtError: what is below cannot be opened, or the host refused; the file is not there then.
    """
    create_image(image, length_of(below), backing=below)


def length_of(image: Image) -> int:
    """The virtual size of an image, in bytes.

    Raises:
        VirtError: it cannot be opened.
    """
    from hostel.block import graph

    try:
        with graph.open(backing_name(image), image.format, no_io=True, force_share=True) as node:
            return node.length
    except OSError as error:
        raise failed(f"cannot open '{image.path}': {printable(sentence(error))}") from error


def _failed(path: str, error: OSError) -> VirtError:
    message = f"cannot create image '{path}': {printable(sentence(error))}"
    return fault(ErrorCode.OPERATION_FAILED, message, ErrorDomain.QEMU)
