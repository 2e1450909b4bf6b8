"""Secrets: references, and the calls of who keeps them."""

from __future__ import annotations

import enum
from typing import NamedTuple, Protocol


class SecretUsageType(enum.IntEnum):
    """``virSecretUsageType``."""

    NONE = 0
    VOLUME = 1
    CEPH = 2
    ISCSI = 3
    TLS = 4
    VTPM = 5


class SecretRef(NamedTuple):
    """Names a secret; ``usage_id`` is what it is for, empty where it is for nothing."""

    uuid: str
    usage_type: SecretUsageType = SecretUsageType.NONE
    usage_id: str = ""


class SecretDriver(Protocol):
    """Secrets. Lookups raise ``NO_SECRET``."""

    def connect_list_all_secrets(self) -> list[SecretRef]:
        """Every secret, by UUID."""

    def secret_lookup_by_uuid(self, uuid: str) -> SecretRef:
        """Find by UUID."""

    def secret_lookup_by_usage(self, usage_type: int, usage_id: str) -> SecretRef:
        """Find by what it is for."""

    def secret_define_xml(self, xml: str) -> SecretRef:
        """Make a secret, or replace what is said of one; its value stays."""

    def secret_undefine(self, secret: SecretRef) -> None:
        """Forget a secret and its value."""

    def secret_get_xml_desc(self, secret: SecretRef) -> str:
        """The document, which does not have the value."""

    def secret_set_value(self, secret: SecretRef, value: bytes) -> None:
        """Set the value, 64 KiB at most."""

    def secret_get_value(self, secret: SecretRef) -> bytes:
        """The value; ``INVALID_SECRET`` of a private one, ``NO_SECRET`` where none was set."""

    def close(self) -> None:
        """Release what the driver holds."""
