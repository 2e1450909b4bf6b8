"""Secrets over a vault."""

from __future__ import annotations

from typing import Final

from hostel.drivers.base.secret import SecretRef, SecretUsageType
from hostel.drivers.document import canonical_uuid, reading
from hostel.drivers.events import SECRET_EVENTS, Event, EventBus, Subject
from hostel.drivers.fault import fault
from hostel.drivers.secret.vault import Vault
from hostel.errors import ErrorCode, ErrorDomain, ModelError, VirtError
from hostel.model.secret import Secret, read_secret

MAX_VALUE: Final = 65536  # bytes; libvirt's bound
_DEFINED, _UNDEFINED = 0, 1  # virSecretEventLifecycleType


class VaultSecretDriver:
    """Implements :class:`hostel.drivers.base.secret.SecretDriver`.

    Args:
        vault: where they are kept.
        bus: told what happens.
    """

    def __init__(self, vault: Vault, bus: EventBus) -> None:
        self._vault = vault
        self._bus = bus

    def connect_list_all_secrets(self) -> list[SecretRef]:
        """Every secret, by UUID; one whose file cannot be read is left out, and refused when it is asked for."""
        found = []
        for uuid in self._vault.uuids():
            try:
                secret = self._read(uuid)
            except VirtError:
                continue
            if secret is not None:
                found.append(_ref(secret))
        return found

    def secret_lookup_by_uuid(self, uuid: str) -> SecretRef:
        """Find by UUID."""
        canonical = canonical_uuid(uuid)
        if canonical is None:
            reason = "uuidstr in virSecretLookupByUUIDString must be a valid UUID"
            raise VirtError(ErrorCode.INVALID_ARG, reason, domain=ErrorDomain.SECRET)
        secret = self._read(canonical)
        if secret is None:
            raise _fault(ErrorCode.NO_SECRET, f"no secret with matching uuid '{uuid}'")
        return _ref(secret)

    def secret_lookup_by_usage(self, usage_type: int, usage_id: str) -> SecretRef:
        """Find by what it is for."""
        for ref in self.connect_list_all_secrets():
            if ref.usage_type == usage_type and ref.usage_id == usage_id:
                return ref
        raise _fault(ErrorCode.NO_SECRET, f"no secret with matching usage '{usage_id}'")

    def secret_define_xml(self, xml: str) -> SecretRef:
        """Make a secret, or replace what is said of one.

        Raises:
            VirtError: the document breaks a rule, or another secret is for the same thing.
        """
        with reading(ErrorDomain.SECRET):
            secret = read_secret(xml)
        uuid = secret.uuid or ""
        with self._vault.locked():
            self._check(secret, self._read(uuid))
            self._vault.save(uuid, secret.format(), ephemeral=bool(secret.ephemeral))
        self._tell(secret, "lifecycle", _DEFINED)
        return _ref(secret)

    def _check(self, secret: Secret, known: Secret | None) -> None:
        """What libvirt demands of a definition."""
        ref = _ref(secret)
        if known is not None:
            if _ref(known).usage_id != ref.usage_id:
                use = _ref(known).usage_id or "(null)"
                reason = f"a secret with UUID {secret.uuid} is already defined for use with {use}"
                raise _fault(ErrorCode.INTERNAL_ERROR, reason)
            if known.private and not secret.private:
                raise _fault(ErrorCode.INTERNAL_ERROR, "cannot change private flag on existing secret")
        for other in self.connect_list_all_secrets():
            if ref.usage_type and other.uuid != ref.uuid and other[1:] == ref[1:]:
                reason = f"a secret with UUID {other.uuid} already defined for use with {ref.usage_id}"
                raise _fault(ErrorCode.INTERNAL_ERROR, reason)

    def secret_undefine(self, secret: SecretRef) -> None:
        """Forget a secret and its value."""
        with self._vault.locked():
            found = self._found(secret)
            self._vault.remove(secret.uuid)
        self._tell(found, "lifecycle", _UNDEFINED)

    def secret_get_xml_desc(self, secret: SecretRef) -> str:
        """The document."""
        return self._found(secret).format()

    def secret_set_value(self, secret: SecretRef, value: bytes) -> None:
        """Set the value."""
        if not value:
            raise VirtError(
                ErrorCode.INVALID_ARG, "value in virSecretSetValue must not be NULL", domain=ErrorDomain.SECRET
            )
        if len(value) > MAX_VALUE:
            reason = f"a secret's value has at most {MAX_VALUE} bytes, and this one {len(value)}"
            raise _fault(ErrorCode.INVALID_ARG, reason)
        with self._vault.locked():
            found = self._found(secret)
            self._vault.save_value(secret.uuid, value)
        self._tell(found, "value-changed")

    def secret_get_value(self, secret: SecretRef) -> bytes:
        """The value, of a secret that is not private."""
        if self._found(secret).private:
            raise _fault(ErrorCode.INVALID_SECRET, "secret is private")
        return self.value_for_use(secret)

    def value_for_use(self, secret: SecretRef) -> bytes:
        """The value for a driver of ours, whether it is private or not.

        Raises:
            VirtError: ``NO_SECRET``: there is no such secret, or it has no value.
        """
        self._found(secret)
        value = self._vault.value(secret.uuid)
        if value is None:
            raise _fault(ErrorCode.NO_SECRET, f"secret '{secret.uuid}' does not have a value")
        return value

    def close(self) -> None:
        """Nothing is held."""

    def _found(self, ref: SecretRef) -> Secret:
        secret = self._read(ref.uuid)
        if secret is None:
            raise _fault(ErrorCode.NO_SECRET, f"no secret with matching uuid '{ref.uuid}'")
        return secret

    def _read(self, uuid: str) -> Secret | None:
        try:
            text = self._vault.document(uuid)
            return None if text is None else read_secret(text)
        except ModelError as error:
            raise _fault(ErrorCode.INTERNAL_ERROR, f"the file of secret '{uuid}' is broken: {error}") from error

    def _tell(self, secret: Secret, kind: str, number: int | None = None) -> None:
        assert kind in SECRET_EVENTS
        ref = _ref(secret)
        detail = {} if number is None else {"event": number, "detail": 0}
        self._bus.publish(Event(Subject.SECRET, kind, ref.uuid, ref.uuid, detail=detail))


def _ref(secret: Secret) -> SecretRef:
    usage = secret.usage
    if usage is None:
        return SecretRef(secret.uuid or "")
    return SecretRef(secret.uuid or "", SecretUsageType[(usage.type or "none").upper()], usage.purpose or "")


def _fault(code: ErrorCode, detail: str) -> VirtError:
    return fault(code, detail, ErrorDomain.SECRET)
