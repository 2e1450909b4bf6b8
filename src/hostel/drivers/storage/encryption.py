"""New volumes that are encrypted with LUKS, by a passphrase that the session keeps as a secret."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator
from typing import Final

from hostel.block import objects
from hostel.drivers.fault import fault
from hostel.drivers.storage.document import VolumeDefinition, VolumeFacts
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.authentication import SecretReference

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
    volume: VolumeDefinition, lookup: Callable[[SecretReference, str], bytes], prefix: str = ""
) -> Iterator[dict[str, str]]:
    """The options by which a volume's image is encrypted; the passphrase is known to this process as long as needed.

    Args:
        volume: a checked one, with encryption.
        lookup: finds a secret by what names it and its use.
        prefix: of each option's name.

    Raises:
        VirtError: there is no such secret.
    """
    wanted = volume.encryption
    assert wanted is not None
    key = f"volume-{os.getpid()}-{next(_numbers)}"
    found = {"key-secret": key}
    if wanted.cipher is not None:
        found["cipher-alg"] = f"{wanted.cipher.name}-{wanted.cipher.size}"
        found |= {"cipher-mode": wanted.cipher.mode} if wanted.cipher.mode else {}
        found |= {"hash-alg": wanted.cipher.hash} if wanted.cipher.hash else {}
    if wanted.ivgen is not None:
        found["ivgen-alg"] = wanted.ivgen.name
        found |= {"ivgen-hash-alg": wanted.ivgen.hash} if wanted.ivgen.hash else {}
    objects.add(key, objects.Secret(lookup(wanted.secrets[0], "volume")))
    try:
        yield {f"{prefix}{name}": value for name, value in found.items()}
    finally:
        objects.remove(key)


def refuse(volume: VolumeFacts, verb: str, instead: str) -> None:
    """Refuse for an encrypted volume what would want its passphrase.

    Raises:
        VirtError: ``CONFIG_UNSUPPORTED``.
    """
    if volume.encryption:
        raise _unsupported(f"volume '{volume.name}' is encrypted and cannot be {verb} here: {instead}")


def _unsupported(detail: str) -> VirtError:
    return fault(ErrorCode.CONFIG_UNSUPPORTED, detail, ErrorDomain.STORAGE)
