"""Connections."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from hostel.drivers.fault import fault
from hostel.errors import ErrorCode, VirtError
from hostel.libvirt import shape
from hostel.libvirt.callback import Callbacks
from hostel.libvirt.closed import Closed, closed
from hostel.libvirt.error import Details, failed, virGetLastError, virResetLastError
from hostel.libvirt.method import (
    Caller,
    Handle,
    Lease,
    by_uuid_text,
    call,
    call_with_files,
    install,
    made,
    wired,
)
from hostel.libvirt.stream import virStream


class virConnect(Handle):
    """A connection; :func:`hostel.libvirt.open` makes one. It is closed with its last use."""

    def __init__(self, _obj: Any = None) -> None:
        self._wire = None
        self._caller: Caller = _obj
        self._lease = Lease(_obj)
        self._callbacks = Callbacks(self)
        self._closed = False

    @property
    def _conn(self) -> virConnect:
        # What held itself would not be gone with its last use.
        return self

    def __enter__(self) -> virConnect:
        return self

    def __exit__(self, exc_type: object, exc_value: object, traceback: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True) and not sys.is_finalizing():
            self._callbacks.close()

    def close(self) -> int:
        """Close the connection; 1 where there are handles of it left, or callbacks, and else 0.

        With handles left it stays open for them until the last is gone; the connection itself makes no calls any more.

        Raises:
            libvirtError: it is closed already.
        """
        if self._closed:
            failed(closed("virConnectClose"), "virConnectClose")
        virResetLastError()
        self._closed = True
        lease, self._lease = self._lease, Lease(Closed())
        self._caller = self._lease.caller
        left = len(lease.handles)
        called = self._callbacks.close()
        if not left:
            lease.close()
        return int(left + called > 0)

    def isAlive(self) -> int:
        """Whether the other side still answers."""
        if self._closed:
            failed(closed("virConnectIsAlive"), "virConnectIsAlive")
        return int(self._caller.is_alive())

    def isEncrypted(self) -> int:
        """Whether nobody on the way can listen."""
        if self._closed:
            failed(closed("virConnectIsEncrypted"), "virConnectIsEncrypted")
        return int(self._caller.is_encrypted())

    def setKeepAlive(self, interval: int, count: int) -> int:
        """Ask the other side every ``interval`` seconds whether it is there, ``count`` times before it is given up."""
        try:
            return int(not self._caller.set_keepalive(interval, count))
        except VirtError as error:
            failed(error, "virConnectSetKeepAlive")

    def newStream(self, flags: int = 0) -> virStream:
        """A stream, for a call to open."""
        return virStream(self, flags)

    def virConnGetLastError(self) -> Details | None:
        """The last error of this thread."""
        return virGetLastError()

    def virConnResetLastError(self) -> None:
        """Forget the last error of this thread."""
        virResetLastError()

    def listDomainsID(self) -> list[int]:
        """The numbers of running domains."""
        return list(call(self, "connect_list_domains", _MOST)[0])

    def lookupByUUIDString(self, uuidstr: str) -> Any:
        """The domain of a UUID as it is written."""
        return by_uuid_text(self, "domain", "domain_lookup_by_uuid", uuidstr)

    def networkLookupByUUIDString(self, uuidstr: str) -> Any:
        """The network of a UUID as it is written."""
        return by_uuid_text(self, "network", "network_lookup_by_uuid", uuidstr)

    def nwfilterLookupByUUIDString(self, uuidstr: str) -> Any:
        """The filter of a UUID as it is written."""
        return by_uuid_text(self, "nwfilter", "nwfilter_lookup_by_uuid", uuidstr)

    def secretLookupByUUIDString(self, uuidstr: str) -> Any:
        """The secret of a UUID as it is written."""
        return by_uuid_text(self, "secret", "secret_lookup_by_uuid", uuidstr)

    def storagePoolLookupByUUIDString(self, uuidstr: str) -> Any:
        """The pool of a UUID as it is written."""
        return by_uuid_text(self, "pool", "storage_pool_lookup_by_uuid", uuidstr)

    def createLinux(self, xmlDesc: str, flags: int = 0) -> Any:
        """The old name of :meth:`createXML`."""
        return self.createXML(xmlDesc, flags)

    def getAllDomainStats(self, stats: int = 0, flags: int = 0) -> list[tuple[Any, dict[str, Any]]]:
        """Statistics of all domains: of which kinds ``stats`` says, 0 for all."""
        return self._stats([], stats, flags)

    def domainListGetStats(
        self, doms: Sequence[Any], stats: int = 0, flags: int = 0
    ) -> list[tuple[Any, dict[str, Any]]]:
        """Statistics of some domains."""
        if not doms:
            what = "doms array in virDomainListGetStats must contain at least one domain"
            failed(fault(ErrorCode.INVALID_ARG, what), "virDomainListGetStats")
        return self._stats([wired(domain, "domain", "doms") for domain in doms], stats, flags)

    def _stats(self, domains: list[Any], stats: int, flags: int) -> list[tuple[Any, dict[str, Any]]]:
        records = call(self, "connect_get_all_domain_stats", domains, stats, flags)[0]
        return [(made(self, "domain", domain), shape.typed(params)) for domain, params in records]

    def getFreePages(
        self, pages: Sequence[int], startCell: int, maxCells: int, flags: int = 0
    ) -> dict[int, dict[int, int]]:
        """By NUMA cell and size of page in KiB, how many are free."""
        if not isinstance(pages, list):
            raise TypeError("pagesize must be list")
        if not maxCells:
            raise LookupError("cellCount must not be zero")
        (counts,) = call(self, "node_get_free_pages", pages, startCell, maxCells, flags)
        width = len(pages)
        return {
            startCell + cell: dict(zip(pages, counts[cell * width : (cell + 1) * width], strict=True))
            for cell in range(len(counts) // width if width else 0)
        }

    def allocPages(self, pages: dict[int, int], startCell: int = 0, cellCount: int = 0, flags: int = 0) -> int:
        """Set aside pages of the host: by their size in KiB, how many; how many were."""
        if not isinstance(pages, dict):
            raise TypeError("pages must be a dictionary")
        if not pages:
            raise LookupError("Need non-empty dictionary to pages attribute")
        sizes, counts = list(pages), list(pages.values())
        return int(call(self, "node_alloc_pages", sizes, counts, startCell, cellCount, flags)[0])

    def getMemoryStats(self, cellNum: int, flags: int = 0) -> dict[str, int]:
        """Memory of a NUMA cell in KiB; -1 for all of them."""
        _, count = call(self, "node_get_memory_stats", 0, cellNum, flags)
        return dict(call(self, "node_get_memory_stats", count, cellNum, flags)[0])

    def getCPUStats(self, cpuNum: int, flags: int = 0) -> dict[str, int]:
        """Times of a CPU in nanoseconds; -1 for all of them."""
        _, count = call(self, "node_get_cpu_stats", cpuNum, 0, flags)
        return dict(call(self, "node_get_cpu_stats", cpuNum, count, flags)[0])

    def getCPUMap(self, flags: int = 0) -> tuple[int, list[bool], int]:
        """How many CPUs there are, which of them are online, and how many are."""
        raw, online, total = call(self, "node_get_cpu_map", 1, 1, flags)
        return total, list(shape.bits(raw, total)), online

    def getInfo(self) -> list[Any]:
        """The host's model, memory in MiB, CPUs, their MHz, NUMA cells, sockets, cores of each, threads of each."""
        model, memory, *rest = call(self, "node_get_info")
        return [shape.text(model), memory >> 10, *rest]

    def domainEventRegister(self, cb: Callable[..., Any], opaque: Any) -> None:
        """Call ``cb(conn, domain, event, detail, opaque)`` when a domain is defined, started, stopped and so on."""
        self._callbacks.add_legacy(cb, opaque)

    def domainEventDeregister(self, cb: Callable[..., Any]) -> None:
        """Call no more."""
        self._callbacks.drop_legacy(cb)

    def domainEventRegisterAny(self, dom: Any, eventID: int, cb: Callable[..., Any], opaque: Any) -> int:
        """Call back on one of ``VIR_DOMAIN_EVENT_ID_``, of a domain or of all; the number to deregister."""
        return self._callbacks.add("domain", dom, eventID, cb, opaque)

    def domainEventDeregisterAny(self, callbackID: int) -> None:
        """Call back no more."""
        self._callbacks.drop("domain", callbackID)

    def networkEventRegisterAny(self, net: Any, eventID: int, cb: Callable[..., Any], opaque: Any) -> int:
        """Call back on one of ``VIR_NETWORK_EVENT_ID_``."""
        return self._callbacks.add("network", net, eventID, cb, opaque)

    def networkEventDeregisterAny(self, callbackID: int) -> None:
        """Call back no more."""
        self._callbacks.drop("network", callbackID)

    def storagePoolEventRegisterAny(self, pool: Any, eventID: int, cb: Callable[..., Any], opaque: Any) -> int:
        """Call back on one of ``VIR_STORAGE_POOL_EVENT_ID_``."""
        return self._callbacks.add("storage_pool", pool, eventID, cb, opaque)

    def storagePoolEventDeregisterAny(self, callbackID: int) -> None:
        """Call back no more."""
        self._callbacks.drop("storage_pool", callbackID)

    def nodeDeviceEventRegisterAny(self, dev: Any, eventID: int, cb: Callable[..., Any], opaque: Any) -> int:
        """Call back on one of ``VIR_NODE_DEVICE_EVENT_ID_``."""
        return self._callbacks.add("node_device", dev, eventID, cb, opaque)

    def nodeDeviceEventDeregisterAny(self, callbackID: int) -> None:
        """Call back no more."""
        self._callbacks.drop("node_device", callbackID)

    def secretEventRegisterAny(self, secret: Any, eventID: int, cb: Callable[..., Any], opaque: Any) -> int:
        """Call back on one of ``VIR_SECRET_EVENT_ID_``."""
        return self._callbacks.add("secret", secret, eventID, cb, opaque)

    def secretEventDeregisterAny(self, callbackID: int) -> None:
        """Call back no more."""
        self._callbacks.drop("secret", callbackID)

    def registerCloseCallback(self, cb: Callable[..., Any], opaque: Any) -> int:
        """Call ``cb(conn, reason, opaque)`` when the connection ends by itself."""
        self._callbacks.on_close(cb, opaque)
        return 0

    def unregisterCloseCallback(self) -> None:
        """Call no more."""
        self._callbacks.on_close(None, None)

    def createXMLWithFiles(self, xmlDesc: str, files: Sequence[int], flags: int = 0) -> Any:
        """Start a transient domain that is given open files."""
        (found,) = call_with_files(self, "domain_create_xml_with_files", files, xmlDesc, flags)
        return made(self, "domain", found)


_MOST = 16384


install(
    virConnect,
    """
baselineCPU(xmlCPUs, flags=0) connect_baseline_cpu
baselineHypervisorCPU(emulator, arch, machine, virttype, xmlCPUs, flags=0) connect_baseline_hypervisor_cpu
changeBegin(flags=0) interface_change_begin
changeCommit(flags=0) interface_change_commit
changeRollback(flags=0) interface_change_rollback
compareCPU(xmlDesc, flags=0) connect_compare_cpu
compareHypervisorCPU(emulator, arch, machine, virttype, xmlCPU, flags=0) connect_compare_hypervisor_cpu
createXML(xmlDesc, flags=0) domain_create_xml
defineXML(xml) domain_define_xml
defineXMLFlags(xml, flags=0) domain_define_xml_flags
domainXMLFromNative(nativeFormat, nativeConfig, flags=0) connect_domain_xml_from_native
domainXMLToNative(nativeFormat, domainXml, flags=0) connect_domain_xml_to_native
findStoragePoolSources(type, srcSpec, flags=0) connect_find_storage_pool_sources
getCapabilities() connect_get_capabilities
getCellsFreeMemory(startCell, maxCells) node_get_cells_free_memory list_first
getCPUModelNames(arch, flags=0) connect_get_cpu_model_names
getDomainCapabilities(emulatorbin=None, arch=None, machine=None, virttype=None, flags=0) connect_get_domain_capabilities
getFreeMemory() node_get_free_memory
getHostname() connect_get_hostname
getLibVersion() connect_get_lib_version
getMaxVcpus(type) connect_get_max_vcpus
getMemoryParameters(flags=0) node_get_memory_parameters
getSecurityModel() node_get_security_model list
getSEVInfo(flags=0) node_get_sev_info
getStoragePoolCapabilities(flags=0) connect_get_storage_pool_capabilities
getSysinfo(flags=0) connect_get_sysinfo
getType() connect_get_type
getURI() connect_get_uri
getVersion() connect_get_version
interfaceDefineXML(xml, flags=0) interface_define_xml
interfaceLookupByMACString(macstr) interface_lookup_by_mac_string
interfaceLookupByName(name) interface_lookup_by_name
isSecure() connect_is_secure
listAllDevices(flags=0) connect_list_all_node_devices
listAllDomains(flags=0) connect_list_all_domains
listAllInterfaces(flags=0) connect_list_all_interfaces
listAllNetworks(flags=0) connect_list_all_networks
listAllNWFilterBindings(flags=0) connect_list_all_nwfilter_bindings
listAllNWFilters(flags=0) connect_list_all_nwfilters
listAllSecrets(flags=0) connect_list_all_secrets
listAllStoragePools(flags=0) connect_list_all_storage_pools
listDefinedDomains() connect_list_defined_domains
listDefinedInterfaces() connect_list_defined_interfaces
listDefinedNetworks() connect_list_defined_networks
listDefinedStoragePools() connect_list_defined_storage_pools
listDevices(cap, flags=0) node_list_devices
listInterfaces() connect_list_interfaces
listNetworks() connect_list_networks
listNWFilters() connect_list_nwfilters
listSecrets() connect_list_secrets
listStoragePools() connect_list_storage_pools
lookupByID(id) domain_lookup_by_id
lookupByName(name) domain_lookup_by_name
lookupByUUID(uuid) domain_lookup_by_uuid
networkCreateXML(xmlDesc) network_create_xml
networkCreateXMLFlags(xmlDesc, flags=0) network_create_xml_flags
networkDefineXML(xml) network_define_xml
networkDefineXMLFlags(xml, flags=0) network_define_xml_flags
networkLookupByName(name) network_lookup_by_name
networkLookupByUUID(uuid) network_lookup_by_uuid
nodeDeviceCreateXML(xmlDesc, flags=0) node_device_create_xml
nodeDeviceDefineXML(xmlDesc, flags=0) node_device_define_xml
nodeDeviceLookupByName(name) node_device_lookup_by_name
nodeDeviceLookupSCSIHostByWWN(wwnn, wwpn, flags=0) node_device_lookup_scsi_host_by_wwn
numOfDefinedDomains() connect_num_of_defined_domains
numOfDefinedInterfaces() connect_num_of_defined_interfaces
numOfDefinedNetworks() connect_num_of_defined_networks
numOfDefinedStoragePools() connect_num_of_defined_storage_pools
numOfDevices(cap, flags=0) node_num_of_devices
numOfDomains() connect_num_of_domains
numOfInterfaces() connect_num_of_interfaces
numOfNetworks() connect_num_of_networks
numOfNWFilters() connect_num_of_nwfilters
numOfSecrets() connect_num_of_secrets
numOfStoragePools() connect_num_of_storage_pools
nwfilterBindingCreateXML(xml, flags=0) nwfilter_binding_create_xml
nwfilterBindingLookupByPortDev(portdev) nwfilter_binding_lookup_by_port_dev
nwfilterDefineXML(xmlDesc) nwfilter_define_xml
nwfilterDefineXMLFlags(xmlDesc, flags=0) nwfilter_define_xml_flags
nwfilterLookupByName(name) nwfilter_lookup_by_name
nwfilterLookupByUUID(uuid) nwfilter_lookup_by_uuid
restore(frm) domain_restore
restoreFlags(frm, dxml=None, flags=0) domain_restore_flags
restoreParams(params, flags=0) domain_restore_params
saveImageDefineXML(file, dxml, flags=0) domain_save_image_define_xml
saveImageGetXMLDesc(file, flags=0) domain_save_image_get_xml_desc
secretDefineXML(xml, flags=0) secret_define_xml
secretLookupByUsage(usageType, usageID) secret_lookup_by_usage
secretLookupByUUID(uuid) secret_lookup_by_uuid
setIdentity(params, flags=0) connect_set_identity
setMemoryParameters(params, flags=0) node_set_memory_parameters
storagePoolCreateXML(xmlDesc, flags=0) storage_pool_create_xml
storagePoolDefineXML(xml, flags=0) storage_pool_define_xml
storagePoolLookupByName(name) storage_pool_lookup_by_name
storagePoolLookupByTargetPath(path) storage_pool_lookup_by_target_path
storagePoolLookupByUUID(uuid) storage_pool_lookup_by_uuid
storageVolLookupByKey(key) storage_vol_lookup_by_key
storageVolLookupByPath(path) storage_vol_lookup_by_path
suspendForDuration(target, duration, flags=0) node_suspend_for_duration
""",
)
