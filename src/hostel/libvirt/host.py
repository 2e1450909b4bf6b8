"""Devices of the host, and secrets."""

from __future__ import annotations

from hostel.drivers.adapters import uuid_text
from hostel.libvirt.method import Handle, install, kind


@kind
class virNodeDevice(Handle):
    """A device of the host."""

    KIND = "node_device"

    def name(self) -> str:
        """The name."""
        return str(self._wire.name)


install(
    virNodeDevice,
    """
autostart() node_device_get_autostart
create(flags=0) node_device_create
destroy() node_device_destroy
detachFlags(driverName, flags=0) node_device_detach_flags
dettach() node_device_dettach
isActive() node_device_is_active
isPersistent() node_device_is_persistent
listCaps() node_device_list_caps
numOfCaps() node_device_num_of_caps
parent() node_device_get_parent
reAttach() node_device_re_attach
reset() node_device_reset
setAutostart(autostart) node_device_set_autostart
undefine(flags=0) node_device_undefine
XMLDesc(flags=0) node_device_get_xml_desc
""",
)


@kind
class virSecret(Handle):
    """A secret."""

    KIND = "secret"

    def UUID(self) -> bytes:
        """The UUID's sixteen bytes."""
        return bytes(self._wire.uuid)

    def UUIDString(self) -> str:
        """The UUID as it is written."""
        return uuid_text(self._wire.uuid)

    def usageID(self) -> str:
        """What it is for."""
        return str(self._wire.usage_id)

    def usageType(self) -> int:
        """What kind of thing it is for: one of ``VIR_SECRET_USAGE_TYPE_``."""
        return int(self._wire.usage_type)


install(
    virSecret,
    """
setValue(value, flags=0) secret_set_value
undefine() secret_undefine
value(flags=0) secret_get_value
XMLDesc(flags=0) secret_get_xml_desc
""",
)
