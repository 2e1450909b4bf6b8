"""Disks whose QEMU ended while it was to go over from one image to another, before anybody knew whether it had.

All that the guest wrote last is in the one image or in the other. Started from the wrong one it would lose that; after
an active commit it would have an overlay on a base that is another one by now. So the domain does not start from the
old image until somebody has looked at both.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from hostel.drivers.qemu import process
from hostel.drivers.qemu.block.chain import Place, mirror_image
from hostel.drivers.qemu.machines import Machines, invalid
from hostel.drivers.qemu.status import MERGING, BlockJob, Status
from hostel.model.domain.domain import Domain


class Switch(NamedTuple):
    """A disk's way from one image to another, of which nobody knows whether it was gone."""

    uuid: str
    disk: str
    old: str
    pool: str
    volume: str
    new: str

    def __str__(self) -> str:
        return (
            f"QEMU ended while disk '{self.disk}' was to go over from '{self.old}' to '{self.new}', "
            "and nobody knows which of them its guest wrote to last"
        )

    def is_of(self, domain: Domain) -> bool:
        """Whether a domain would start from the old image."""
        place = Place(self.old, self.pool, self.volume)
        return self.uuid == domain.uuid and any(
            disk.target.dev == self.disk and disk.source is not None and place.is_of(disk.source)
            for disk in domain.devices.disks
        )


def is_switching(status: Status) -> bool:
    """Whether QEMU was told to take a disk to another image, and it is not written down whether it has."""
    return any(map(_is_open, status.jobs))


def _is_open(job: BlockJob) -> bool:
    return job.intent == "pivot" and not job.ended


def keep(machines: Machines, status: Status) -> None:
    """Write down what nobody knows of a machine that is no more; the caller holds the domain's lock.

    Raises:
        VirtError: it cannot be written; the machine's state has to stay then.
    """
    if status.ending == MERGING:  # its guest never ran
        return
    name, uuid = status.domain.name, status.domain.uuid or ""
    targets = {disk.target.dev: mirror_image(disk) for disk in status.domain.devices.disks}
    found = []
    for job in filter(_is_open, status.jobs):
        target = targets.get(job.disk)
        found.append(Switch(uuid, job.disk, job.old, job.pool, job.volume, target.path if target is not None else ""))
    if found:
        machines.switches.write(name, json.dumps(found))
        process.write_log(machines.log(name), [str(switch) for switch in found])


def check(machines: Machines, domain: Domain) -> None:
    """Refuse to start a domain from an image that its guest may have left.

    Raises:
        VirtError: ``OPERATION_INVALID``.
    """
    for switch in _kept(machines, domain.name):
        if switch.is_of(domain):
            note = machines.switches.path(domain.name)
            what = f"{switch}; look at both, and define the domain with '{switch.new}' or remove '{note}'"
            raise invalid(what)


def _kept(machines: Machines, name: str) -> list[Switch]:
    text = machines.switches.read(name)
    try:
        return [Switch(*fields) for fields in json.loads(text or "[]")]
    except (ValueError, TypeError) as error:
        note = machines.switches.path(name)
        what = (
            f"'{note}' says which disks of domain '{name}' may have gone over to another image, and is damaged: {error}"
        )
        raise invalid(f"{what}; see that the domain has the right images, and remove it") from None
