"""The document of a secret; what is secret is not in it (``virSecretDefFormat``)."""

from __future__ import annotations

import uuid as uuids
from typing import Final

from hostel.codec.xml import UUID, YES_NO, Element, attr, child, choice, text
from hostel.errors import ErrorCode, ModelError

# Which element has what a secret is for, and how libvirt says that it is missing.
_PURPOSES: Final = {
    "volume": ("volume", "volume usage specified, but volume path is missing"),
    "ceph": ("name", "Ceph usage specified, but name is missing"),
    "iscsi": ("target", "iSCSI usage specified, but target is missing"),
    "tls": ("name", "TLS usage specified, but name is missing"),
    "vtpm": ("name", "vTPM usage specified, but name is missing"),
}
_INVALID: Final = "invalid value of '{name}'"


class SecretUsage(Element, tag="usage"):
    """What a secret is for; which element counts depends on ``type``."""

    type: str | None = attr(
        choice("none", *_PURPOSES, code=ErrorCode.CONFIG_UNSUPPORTED, words="unknown secret usage type {}"),
        default=None,
    )
    volume: str | None = text(default=None)
    name: str | None = text(default=None)
    target: str | None = text(default=None)

    @property
    def purpose(self) -> str | None:
        """What it is for, under whatever name."""
        element = _PURPOSES.get(self.type or "", ("",))[0]
        return getattr(self, element) if element else None


class Secret(Element, tag="secret"):
    """A secret; a ``private`` one is never shown again, an ``ephemeral`` one is not kept on disk."""

    ephemeral: bool | None = attr(YES_NO.saying(_INVALID), default=None)
    private: bool | None = attr(YES_NO.saying(_INVALID), default=None)
    uuid: str | None = text(UUID.saying("malformed uuid element", ErrorCode.INTERNAL_ERROR), default=None)
    description: str | None = text(default=None)
    usage: SecretUsage | None = child(SecretUsage, default=None)


def read_secret(xml: str) -> Secret:
    """Read a secret's document, and complete it.

    Raises:
        ModelError: it is none, or breaks a rule; the path says where.
    """
    secret = Secret.parse(xml, "secret_definition")
    validate(secret)
    complete(secret)
    return secret


def validate(secret: Secret) -> None:
    """A secret says what it is for, where it has a use.

    Raises:
        ModelError: it does not; the words are libvirt's.
    """
    usage = secret.usage
    if usage is not None and usage.type is None:
        raise ModelError("/secret/usage", "unknown secret usage type")
    if usage is not None and usage.type in _PURPOSES and usage.purpose is None:
        element, reason = _PURPOSES[usage.type]
        raise ModelError(f"/secret/usage/{element}", reason, code=ErrorCode.INTERNAL_ERROR)


def complete(secret: Secret) -> None:
    """Say what was left out, and leave out what a secret of the use does not have."""
    secret.ephemeral, secret.private = bool(secret.ephemeral), bool(secret.private)
    secret.uuid = secret.uuid or str(uuids.uuid4())
    usage = secret.usage
    if usage is None or usage.type is None or usage.type == "none":
        secret.usage = None
        # A second one would be taken for the first when it is read again.
        secret.unknown[:] = [item for item in secret.unknown if item.name != SecretUsage.TAG]
        return
    for name in ("volume", "name", "target"):
        if name != _PURPOSES[usage.type][0]:
            setattr(usage, name, None)
