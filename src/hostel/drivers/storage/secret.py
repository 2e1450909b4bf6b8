"""The secrets that pools authenticate with, from where the session keeps them."""

from __future__ import annotations

from collections.abc import Callable

from hostel.drivers.fault import fault
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode, ErrorDomain
from hostel.model.authentication import SecretReference


def secrets_of(directories: Directories) -> Callable[[SecretReference, str], bytes]:
    """The lookup of a session's secrets by what names them, and by what they are used for."""

    def value(reference: SecretReference, usage: str) -> bytes:
        # Few pools authenticate.
        from hostel.drivers.base.secret import SecretUsageType
        from hostel.drivers.events import EventBus
        from hostel.drivers.secret.driver import VaultSecretDriver
        from hostel.drivers.secret.vault import DiskVault

        driver = VaultSecretDriver(DiskVault(directories), EventBus(directories.state / "events"))
        wanted = SecretUsageType[usage.upper()]
        if reference.uuid is None:
            return driver.value_for_use(driver.secret_lookup_by_usage(wanted, reference.usage or ""))
        found = driver.secret_lookup_by_uuid(reference.uuid)
        if found.usage_type not in (SecretUsageType.NONE, wanted):
            kind = found.usage_type.name.lower()
            detail = f"secret with uuid {reference.uuid} is of type '{kind}' not expected '{usage}' type"
            raise fault(ErrorCode.CONFIG_UNSUPPORTED, detail, ErrorDomain.STORAGE)
        return driver.value_for_use(found)

    return value
