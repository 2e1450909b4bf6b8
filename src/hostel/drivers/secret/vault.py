"""Where secrets are kept: on disk, their values encrypted, or in memory."""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

from hostel.drivers.fault import fault
from hostel.drivers.store import Directories, NotText, Store
from hostel.errors import ErrorCode, ErrorDomain

_KEY_LENGTH: Final = 32  # bytes; AES-256
_NONCE_LENGTH: Final = 12  # bytes


class Vault(Protocol):
    """Documents and values of secrets, by UUID."""

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Keep everybody else from changing secrets."""

    def uuids(self) -> list[str]:
        """Every secret, sorted."""

    def document(self, uuid: str) -> str | None:
        """A secret's document; None where there is no such secret."""

    def value(self, uuid: str) -> bytes | None:
        """A secret's value; None where it has none."""

    def save(self, uuid: str, document: str, *, ephemeral: bool) -> None:
        """Keep a document; an ephemeral one, and its value, until the host is started anew."""

    def save_value(self, uuid: str, value: bytes) -> None:
        """Keep a value."""

    def remove(self, uuid: str) -> None:
        """Forget document and value."""


class MemoryVault:
    """Secrets that are gone with the process."""

    def __init__(self) -> None:
        self._documents: dict[str, str] = {}
        self._values: dict[str, bytes] = {}

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Nobody else changes them."""
        return contextlib.nullcontext()

    def uuids(self) -> list[str]:
        """Every secret, sorted."""
        return sorted(self._documents)

    def document(self, uuid: str) -> str | None:
        """A secret's document."""
        return self._documents.get(uuid)

    def value(self, uuid: str) -> bytes | None:
        """A secret's value."""
        return self._values.get(uuid)

    def save(self, uuid: str, document: str, *, ephemeral: bool) -> None:
        """Keep a document."""
        self._documents[uuid] = document

    def save_value(self, uuid: str, value: bytes) -> None:
        """Keep a value."""
        self._values[uuid] = value

    def remove(self, uuid: str) -> None:
        """Forget document and value."""
        self._documents.pop(uuid, None)
        self._values.pop(uuid, None)


class DiskVault:
    """Secrets on disk, shared by all processes of the user.

    ``<config>/secrets/<uuid>.xml`` is a document, ``<uuid>.value`` beside it a value: encrypted (AES-256-GCM, bound to
    the UUID) with the key in ``<data>/secrets/key``, so that a copy of the configuration has no secret in it. Ephemeral
    ones lie below ``<state>/secrets``.
    """

    def __init__(self, directories: Directories) -> None:
        self._kept = _Place(directories.config / "secrets")
        self._ephemeral = _Place(directories.state / "secrets")
        self._key_path = directories.data / "secrets" / "key"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep all other processes and threads from changing secrets."""
        with self._kept.documents.locked():
            yield

    def forget_running(self) -> None:
        """The host was started anew: ephemeral secrets are gone."""
        with self.locked():
            for uuid in self._ephemeral.documents.names():
                self._ephemeral.remove(uuid)

    def uuids(self) -> list[str]:
        """Every secret, sorted."""
        return sorted({*self._kept.documents.names(), *self._ephemeral.documents.names()})

    def document(self, uuid: str) -> str | None:
        """A secret's document."""
        found = self._ephemeral.documents.read(uuid)
        return self._kept.documents.read(uuid) if found is None else found

    def value(self, uuid: str) -> bytes | None:
        """A secret's value.

        Raises:
            VirtError: ``INTERNAL_ERROR``: the file, or the key, is not the one that was written.
        """
        place = self._place(uuid)
        try:
            text = place.values.read(uuid)
        except NotText:
            text = ""  # which is none of ours either
        return None if text is None else self._decrypted(uuid, text, place.values.path(uuid))

    def save(self, uuid: str, document: str, *, ephemeral: bool) -> None:
        """Keep a document; the caller holds the lock. The value goes with it where that changes its place."""
        to, other = (self._ephemeral, self._kept) if ephemeral else (self._kept, self._ephemeral)
        value = other.values.read(uuid)
        to.documents.sweep()
        if value is not None:
            to.values.write(uuid, value)
        to.documents.write(uuid, document)
        other.remove(uuid)

    def save_value(self, uuid: str, value: bytes) -> None:
        """Keep a value; the caller holds the lock."""
        self._place(uuid).values.write(uuid, self._encrypted(uuid, value))

    def remove(self, uuid: str) -> None:
        """Forget document and value; the caller holds the lock."""
        self._ephemeral.remove(uuid)
        self._kept.remove(uuid)

    def _place(self, uuid: str) -> _Place:
        return self._ephemeral if self._ephemeral.documents.has(uuid) else self._kept

    def _encrypted(self, uuid: str, value: bytes) -> str:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce = secrets.token_bytes(_NONCE_LENGTH)
        return base64.b64encode(nonce + AESGCM(self._key(make=True)).encrypt(nonce, value, uuid.encode())).decode()

    def _decrypted(self, uuid: str, text: str, path: Path) -> bytes:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        try:
            data = base64.b64decode(text, validate=True)
            key = self._key(make=False)
            return AESGCM(key).decrypt(data[:_NONCE_LENGTH], data[_NONCE_LENGTH:], uuid.encode())
        except (binascii.Error, InvalidTag, ValueError):
            reason = f"'{path}' cannot be decrypted with '{self._key_path}': set the secret's value again"
            raise fault(ErrorCode.INTERNAL_ERROR, reason, ErrorDomain.SECRET) from None

    def _key(self, *, make: bool) -> bytes:
        """The key; the first value that is set makes it.

        Raises:
            VirtError: ``INTERNAL_ERROR``: it is gone, or damaged.
        """
        store = Store(self._key_path.parent, suffix="")
        text = store.read(self._key_path.name)
        if text is None and make:
            text = base64.b64encode(secrets.token_bytes(_KEY_LENGTH)).decode()
            store.write(self._key_path.name, text)
        if text is None:
            reason = f"'{self._key_path}', the key of all values, is gone: set the secrets' values again"
            raise fault(ErrorCode.INTERNAL_ERROR, reason, ErrorDomain.SECRET)
        with contextlib.suppress(binascii.Error):
            if len(key := base64.b64decode(text, validate=True)) == _KEY_LENGTH:
                return key
        reason = (
            f"'{self._key_path}', the key of all values, is damaged: bring it back, or remove it and set them again"
        )
        raise fault(ErrorCode.INTERNAL_ERROR, reason, ErrorDomain.SECRET)


class _Place:
    """Documents and values in one directory."""

    def __init__(self, directory: Path) -> None:
        self.documents = Store(directory)
        self.values = Store(directory, suffix=".value")

    def remove(self, uuid: str) -> None:
        """Forget both; the value goes first, so that none is left that no document names."""
        if os.path.isdir(self.documents.directory):
            self.values.remove(uuid)
            self.documents.remove(uuid)
