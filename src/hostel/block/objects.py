"""Objects that images are opened with and that are not in the images: keys, certificates, decisions.

They are called by name, as QEMU's ``--object`` makes them; one table serves the process.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from hostel.errors import BlockError

if TYPE_CHECKING:
    from hostel.net.authorization import Authorization
    from hostel.net.tls import TlsCredentials

_objects: dict[str, object] = {}
_made: dict[str, Made] = {}


class Made(NamedTuple):
    """What an object was made of.

    Attributes:
        type: QEMU's name of its type.
        given: its properties, as far as they were given; they may be changed.
    """

    type: str
    given: dict[str, Any]


class Secret(NamedTuple):
    """A password or a key."""

    data: bytes


def add(identifier: str, value: object, made: Made | None = None) -> None:
    """Make an object known, and what it was made of.

    Raises:
        BlockError: there is one of this name.
    """
    if identifier in _objects:
        raise BlockError(
            f"attempt to add duplicate property '{identifier}' to object (type 'container')", errno=errno.EEXIST
        )
    _objects[identifier] = value
    if made is not None:
        _made[identifier] = made


def replace(identifier: str, value: object) -> None:
    """Let a name mean another object; who has found the former one keeps it."""
    _objects[identifier] = value


def known() -> Mapping[str, Made]:
    """What the objects were made of of which that is known, by their names."""
    return _made


def remove(identifier: str) -> bool:
    """Forget an object; False where there is none of this name. Who has found it keeps it."""
    _made.pop(identifier, None)
    return _objects.pop(identifier, None) is not None


def clear() -> None:
    """Forget all objects."""
    _objects.clear()
    _made.clear()


def find(identifier: str) -> object | None:
    """An object of any type; None where there is none of this name."""
    return _objects.get(identifier)


def secret(identifier: str) -> Secret:
    """A secret.

    Raises:
        BlockError: there is none of this name.
    """
    found = _objects.get(identifier)
    if found is None:
        raise BlockError(f"No secret with id '{identifier}'", errno=errno.ENOENT)
    if not isinstance(found, Secret):
        raise BlockError(f"Object with id '{identifier}' is not a secret", errno=errno.EINVAL)
    return found


def password(identifier: str) -> bytes:
    """A secret that is text: a passphrase. As with QEMU it ends at a NUL.

    Raises:
        BlockError: there is none of this name, or it is no text in UTF-8.
    """
    data = secret(identifier).data
    try:
        data.decode()
    except UnicodeDecodeError:
        raise BlockError(f"Data from secret {identifier} is not valid UTF-8", errno=errno.EINVAL) from None
    return data.split(b"\0")[0]


def tls_credentials(identifier: str, *, server: bool) -> TlsCredentials:
    """Credentials for one side of TLS.

    Raises:
        BlockError: there are none of this name, or they are for the other side.
    """
    from hostel.net.tls import TlsCredentials

    found = _objects.get(identifier)
    if found is None:
        raise BlockError(f"No TLS credentials with id '{identifier}'", errno=errno.ENOENT)
    if not isinstance(found, TlsCredentials):
        raise BlockError(f"Object with id '{identifier}' is not TLS credentials", errno=errno.EINVAL)
    if found.server is not server:
        raise BlockError(
            f"Expected TLS credentials for a {'server' if server else 'client'} endpoint", errno=errno.EINVAL
        )
    return found


def authorization(identifier: str) -> Authorization:
    """Who decides which clients are let in.

    Raises:
        BlockError: there is nobody of this name.
    """
    found = _objects.get(identifier)
    if found is None or not hasattr(found, "allows"):
        raise BlockError(f"No authorization object with id '{identifier}'", errno=errno.ENOENT)
    decider: Authorization = found
    return decider
