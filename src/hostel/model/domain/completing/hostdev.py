"""What a device of the host gets that its document does not say (``virDomainHostdevDefPostParse``)."""

from __future__ import annotations

from hostel.model.domain.completing.interface import complete_addresses
from hostel.model.domain.devices.address import DriveAddress
from hostel.model.domain.devices.disk import Disk, DiskBus
from hostel.model.domain.devices.hostdev import Hostdev, MdevHostdev, NetHostdev, ScsiHostdev
from hostel.model.domain.domain import Domain
from hostel.model.domain.platform import Platform


def complete_hostdev(domain: Domain, hostdev: Hostdev, platform: Platform) -> None:
    """Say who binds a device's driver, and where on a SCSI bus it is."""
    if hostdev.mode == "subsystem" and hostdev.managed is None:
        hostdev.managed = False
    if isinstance(hostdev, ScsiHostdev):
        source = hostdev.source
        if source.protocol == "iscsi" and source.name is not None and "/" not in source.name:
            source.name += "/0"
        if hostdev.address is None:
            hostdev.address = _free_scsi_place(domain)
    if isinstance(hostdev, NetHostdev):
        complete_addresses(hostdev.ips, hostdev.routes, domain.devices.path(hostdev), "Domain hostdev device")
    if isinstance(hostdev, MdevHostdev) and hostdev.model == "vfio-pci" and platform.has("vfio-pci.display"):
        hostdev.display = bool(hostdev.display)


def _free_scsi_place(domain: Domain) -> DriveAddress:
    used = {
        (item.address.controller, item.address.unit)
        for item in (*domain.devices.disks, *domain.devices.hostdevs)
        if isinstance(item.address, DriveAddress)
        and (isinstance(item, ScsiHostdev) or (isinstance(item, Disk) and item.target.bus == DiskBus.SCSI))
    }
    controller = 0
    while True:
        for unit in range(7):
            if (controller, unit) not in used:
                return DriveAddress(controller=controller, unit=unit)
        controller += 1
