"""``<encryption>`` of disks and volumes (``virStorageEncryptionFormat``)."""

from __future__ import annotations

from hostel.codec.xml import Element, attr, child, children, choice, integer
from hostel.model.authentication import SecretReference


class Cipher(Element, tag="cipher"):
    """The cipher of a new LUKS volume; ``size`` in bits."""

    name: str = attr()
    size: int | None = attr(integer(), default=None)
    mode: str | None = attr(default=None)
    hash: str | None = attr(default=None)


class InitialisationVector(Element, tag="ivgen"):
    """How a new LUKS volume makes its initialisation vectors."""

    name: str = attr()
    hash: str | None = attr(default=None)


class Encryption(Element, tag="encryption", keep_open=True):
    """Format, who decrypts, and the passphrases."""

    format_name: str = attr(choice("default", "qcow", "luks", "luks2"), name="format")
    engine: str | None = attr(choice("qemu", "librbd"), default=None)
    secrets: list[SecretReference] = children(SecretReference, factory=list)
    cipher: Cipher | None = child(Cipher, default=None)
    ivgen: InitialisationVector | None = child(InitialisationVector, default=None)

    def settle(self) -> None:
        """Leave out what is only said of LUKS, of other formats."""
        if self.format_name != "luks":
            self.cipher = self.ivgen = None
