"""Who we are towards a storage server, and where the secret for it is kept."""

from __future__ import annotations

from hostel.codec.xml import UUID, Element, attr, child, choice


class SecretReference(Element, tag="secret"):
    """A secret by its UUID or by its use."""

    type: str | None = attr(choice("volume", "ceph", "iscsi", "tls", "vtpm", "passphrase"), default=None)
    uuid: str | None = attr(UUID, default=None)
    usage: str | None = attr(default=None)


class Authentication(Element, tag="auth"):
    """User name and secret (``virStorageAuthDefFormat``)."""

    type: str | None = attr(choice("chap", "ceph"), default=None)
    username: str = attr()
    secret: SecretReference | None = child(SecretReference, default=None)
