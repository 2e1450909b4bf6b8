"""New images for copies and snapshots, made by our own block layer, on what the guest's disk stands on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

from hostel.cause import sentence
from hostel.drivers.fault import fault, printable
from hostel.drivers.qemu.block.chain import Image
from hostel.drivers.qemu.block.naming import backing_name
from hostel.drivers.qemu.machines import failed
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.authentication import SecretReference

FindSecret = Callable[[SecretReference, str], bytes]


def create_image(image: Image, size: int, find: FindSecret | None = None, *, backing: Image | None = None) -> None:
    """Make the file of an image; only its owner may read it, whoever may read the images that it stands on.

    Args:
        image: where, and of which format; a file that is there and empty is taken.
        size: its virtual size in bytes.
        find: looks up the passphrase of one that may be encrypted, by what names it and its use.
        backing: what it stands on.

    Raises:
        VirtError: the host or the format refused, or there is no such secret; the file is not there then.
    """
    if image.source.slice is not None:
        what = "creation of images with slice type='storage' is not supported"
        raise fault(ErrorCode.OPERATION_UNSUPPORTED, what, ErrorDomain.QEMU)
    # Imported here: only what makes images needs the block layer.
    from hostel.block.options import Given
    from hostel.img import create

    with _encryption(image, find) as (format, options):
        try:
            plan = create.plan(
                image.path,
                format,
                size,
                given=[Given(name, value, bare=False) for name, value in options.items()],
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


@contextlib.contextmanager
def _encryption(image: Image, find: FindSecret | None) -> Iterator[tuple[str, dict[str, str]]]:
    """The format that is made, and the options by which it is encrypted, where it is."""
    wanted = image.source.encryption
    if wanted is None:
        yield image.format, {}
        return
    if wanted.format_name != "luks" or image.format not in ("raw", "qcow2"):
        what = f"a new image of format '{image.format}' cannot be encrypted with '{wanted.format_name}'; write luks"
        raise fault(ErrorCode.CONFIG_UNSUPPORTED, f"{what}, and raw or qcow2", ErrorDomain.QEMU)
    if len(wanted.secrets) != 1:
        what = f"<encryption> of '{image.path}' must name one secret"
        raise fault(ErrorCode.CONFIG_UNSUPPORTED, what, ErrorDomain.QEMU)
    from hostel.drivers.storage.encryption import options_of

    assert find is not None
    prefix = "" if image.format == "raw" else "encrypt."
    with options_of(wanted, find, prefix) as options:
        if image.format == "raw":
            yield "luks", options
        else:
            yield "qcow2", {"encrypt.format": "luks", **options}


def create_over(below: Image, image: Image, find: FindSecret | None = None) -> None:
    """Make an image on one that nothing runs on, or that is only read.

    Raises:
        VirtError: what is below cannot be opened, the host refused, or there is no such secret; the file is not there
            then.
    """
    create_image(image, length_of(below), find, backing=below)


def length_of(image: Image) -> int:
    """The virtual size of an image, in bytes.

    Raises:
        VirtError: it cannot be opened.
    """
    from hostel.block import graph

    try:
        format = "luks" if image.format == "raw" and image.source.encryption is not None else image.format
        with graph.open(backing_name(image), format, no_io=True, force_share=True) as node:
            return node.length
    except OSError as error:
        raise failed(f"cannot open '{image.path}': {printable(sentence(error))}") from error


def _failed(path: str, error: OSError) -> VirtError:
    message = f"cannot create image '{path}': {printable(sentence(error))}"
    return fault(ErrorCode.OPERATION_FAILED, message, ErrorDomain.QEMU)
