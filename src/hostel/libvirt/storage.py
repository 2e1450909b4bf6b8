"""Storage pools and volumes."""

from __future__ import annotations

from hostel.drivers.adapters import uuid_text
from hostel.libvirt.method import Handle, install, kind
from hostel.libvirt.stream import begin, virStream


@kind
class virStoragePool(Handle):
    """A storage pool."""

    KIND = "pool"

    def name(self) -> str:
        """The name."""
        return str(self._wire.name)

    def UUID(self) -> bytes:
        """The UUID's sixteen bytes."""
        return bytes(self._wire.uuid)

    def UUIDString(self) -> str:
        """The UUID as it is written."""
        return uuid_text(self._wire.uuid)


install(
    virStoragePool,
    """
autostart() storage_pool_get_autostart
build(flags=0) storage_pool_build
create(flags=0) storage_pool_create
createXML(xmlDesc, flags=0) storage_vol_create_xml
createXMLFrom(xmlDesc, clonevol, flags=0) storage_vol_create_xml_from
delete(flags=0) storage_pool_delete
destroy() storage_pool_destroy
info() storage_pool_get_info list
isActive() storage_pool_is_active
isPersistent() storage_pool_is_persistent
listAllVolumes(flags=0) storage_pool_list_all_volumes
listVolumes() storage_pool_list_volumes
numOfVolumes() storage_pool_num_of_volumes
refresh(flags=0) storage_pool_refresh
setAutostart(autostart) storage_pool_set_autostart
storageVolLookupByName(name) storage_vol_lookup_by_name
undefine() storage_pool_undefine
XMLDesc(flags=0) storage_pool_get_xml_desc
""",
)


@kind
class virStorageVol(Handle):
    """A volume of a pool."""

    KIND = "volume"

    def name(self) -> str:
        """The name."""
        return str(self._wire.name)

    def key(self) -> str:
        """What tells it from all other volumes."""
        return str(self._wire.key)

    def download(self, stream: virStream, offset: int, length: int, flags: int = 0) -> int:
        """Let ``stream`` receive the volume's bytes: ``length`` of them, 0 for all, from ``offset`` on."""
        begin(stream, "storage_vol_download", self._wire, offset, length, flags)
        return 0

    def upload(self, stream: virStream, offset: int, length: int, flags: int = 0) -> int:
        """Let what ``stream`` sends replace bytes from ``offset`` on: ``length`` at most, 0 for any number."""
        begin(stream, "storage_vol_upload", self._wire, offset, length, flags)
        return 0


install(
    virStorageVol,
    """
delete(flags=0) storage_vol_delete
info() storage_vol_get_info list
infoFlags(flags=0) storage_vol_get_info_flags list
path() storage_vol_get_path
resize(capacity, flags=0) storage_vol_resize
storagePoolLookupByVolume() storage_pool_lookup_by_volume
wipe(flags=0) storage_vol_wipe
wipePattern(algorithm, flags=0) storage_vol_wipe_pattern
XMLDesc(flags=0) storage_vol_get_xml_desc
""",
)
