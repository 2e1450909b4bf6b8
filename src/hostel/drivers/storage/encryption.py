"""Volumes that are encrypted with LUKS, by a passphrase that the session keeps as a secret."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator
from typing import Final

from hostel.block import objects
from hostel.drivers.fault import fault
from hostel.drivers.storage import content
from hostel.drivers.storage.document import VolumeDefinition, VolumeFacts
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.authentication import SecretReference
from hostel.model.encryption import Encryption

_numbers: Final = itertools.count()


def check(volume: VolumeDefinition) -> None:
    """Hold a new volume's encryption against the rules.

    Raises:
        VirtError: in libvirt's words.
    """
    wanted = volume.encryption
    if wanted is None:
        return
    if volume.format not in ("raw", "qcow2"):
        raise _unsupported(f"volume encryption unsupported with format {volume.format}")
    if wanted.format_name != "luks":
        raise _unsupported(f"unsupported volume encryption format '{wanted.format_name}': write luks")
    if len(wanted.secrets) != 1:
        detail = "A single <secret type='passphrase'...> element is expected in encryption description"
        raise fault(ErrorCode.INVALID_ARG, detail, ErrorDomain.STORAGE)


@contextlib.contextmanager
def options_of(
    wanted: Encryption, lookup: Callable[[SecretReference, str], bytes], prefix: str = ""
) -> Iterator[dict[str, str]]:
    """The options by which a new image is encrypted; the passphrase is known to this process as long as needed.

    Args:
        wanted: with LUKS, and one secret.
        lookup: finds a secret by what names it and its use.
        prefix: of each option's name.

    Raises:
        VirtError: there is no such secret.
    """
    found: dict[str, str] = {}
    if wanted.cipher is not None:
        found["cipher-alg"] = f"{wanted.cipher.name}-{wanted.cipher.size}"
        found |= {"cipher-mode": wanted.cipher.mode} if wanted.cipher.mode else {}
        found |= {"hash-alg": wanted.cipher.hash} if wanted.cipher.hash else {}
    if wanted.ivgen is not None:
        found["ivgen-alg"] = wanted.ivgen.name
        found |= {"ivgen-hash-alg": wanted.ivgen.hash} if wanted.ivgen.hash else {}
    with _known(lookup(wanted.secrets[0], "volume")) as key:
        yield {f"{prefix}{name}": value for name, value in {"key-secret": key, **found}.items()}


@contextlib.contextmanager
def opening(
    volume: VolumeFacts, lookup: Callable[[SecretReference, str], bytes], *, is_wanted: bool = True
) -> Iterator[dict[str, str]]:
    """The options by which an encrypted volume is opened, with the secret that is for it by its path.

    Args:
        volume: what is there; one that is not encrypted takes none.
        lookup: finds a secret by what names it and its use.
        is_wanted: whether it is opened with its passphrase at all.

    Raises:
        VirtError: ``INVALID_ARG``: there is no such secret; ``CONFIG_UNSUPPORTED``: it is encrypted in the old way.
    """
    if not volume.encryption or not is_wanted:
        yield {}
        return
    if volume.encryption != "luks":
        raise _unsupported(f"volume '{volume.name}': {volume.format} encrypted in the old way is not supported")
    try:
        value = lookup(SecretReference(usage=volume.path), "volume")
    except VirtError as error:
        if error.code != ErrorCode.NO_SECRET:
            raise
        what = "A single <secret type='passphrase'...> element is expected in encryption description"
        fix = f"define a secret with <usage type='volume'><volume>{volume.path}</volume></usage>"
        raise fault(ErrorCode.INVALID_ARG, f"{what}: {fix}", ErrorDomain.STORAGE) from error
    with _known(value) as key:
        yield {"key-secret" if driver_of(volume, opened=True) == "luks" else "encrypt.key-secret": key}


def inherited(volume: VolumeDefinition, source: VolumeFacts) -> VolumeDefinition:
    """A clone's document that names no secret, with its source's where its bytes cannot be the same."""
    wanted = volume.encryption
    is_same = content.format_of(source) == volume.format == "raw"
    if wanted is None or wanted.secrets or not source.encryption or is_same:
        return volume
    found = wanted.copy()
    found.secrets = [SecretReference(type="passphrase", usage=source.path)]
    return volume._replace(encryption=found)


def driver_of(volume: VolumeFacts, *, opened: bool) -> str:
    """The format by which a volume is read; ``opened`` says whether it is with its passphrase."""
    found = content.format_of(volume)
    return "luks" if opened and found == "raw" and volume.encryption else found


@contextlib.contextmanager
def _known(passphrase: bytes) -> Iterator[str]:
    """The name by which this process knows a passphrase, as long as needed."""
    key = f"volume-{os.getpid()}-{next(_numbers)}"
    objects.add(key, objects.Secret(passphrase))
    try:
        yield key
    finally:
        objects.remove(key)


def _unsupported(detail: str) -> VirtError:
    return fault(ErrorCode.CONFIG_UNSUPPORTED, detail, ErrorDomain.STORAGE)
