"""``--update``: the change made to the machine that runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hostel.cli.output import Output
from hostel.cli.virt_install import tree
from hostel.cli.virt_install.disk import Disk
from hostel.cli.virt_install.part import Part
from hostel.cli.virt_install.storage import Storage
from hostel.cli.virt_xml.change import Change
from hostel.drivers.base.device import DeviceDriver
from hostel.drivers.base.domain import Affect
from hostel.drivers.base.offered import offered
from hostel.errors import UsageError, VirtError
from hostel.objects import Domain

# The question, what is said when it is done, and what when it is not.
_WORDS: Final = {
    "add": ("Hotplug this device to the guest", "hotplug"),
    "remove": ("Hotunplug this device from the guest", "hotunplug"),
    "edit": ("Update this device for the guest", "update"),
}


class Live:
    """A change on its way to the machine that runs; ``ask`` asks the user first, where that was wanted."""

    def __init__(
        self,
        domain: Domain,
        change: Change,
        storage: Storage,
        output: Output,
        ask: Callable[[str], bool] | None,
    ) -> None:
        self.change = change
        self._domain = domain
        self._storage = storage
        self._output = output
        self._ask = ask

    def apply(self) -> None:
        """Change each device.

        Raises:
            UsageError: the machine refuses; a volume that was made for it is gone again.
        """
        question, what = _WORDS[self.change.verb]
        for part in self.change.parts:
            xml = tree.text_of(part.element())
            shown = f"    {xml}" if self.change.verb == "add" else xml  # as it stands in the document
            if self._ask is not None and not self._ask(f"{shown}\n\n{question} '{self._domain.name}'?"):
                continue
            try:
                self._send(part, xml)
            except VirtError as error:
                for problem in self._storage.undo():
                    self._output.err.write(f"WARNING  {problem}\n")
                raise UsageError(f"Error attempting device {what}: {error}") from error
            self._storage.keep()
            self._output.note(f"Device {what} successful.")
            if self._ask is not None:
                self._output.note("")

    def _send(self, part: Part, xml: str) -> None:
        hypervisor = self._domain.connection.hypervisor
        ref = hypervisor.domain_lookup_by_uuid(self._domain.uuid)
        if self.change.verb == "add":
            if isinstance(part, Disk) and part.new is not None:
                self._storage.build(part.new)
            _devices(hypervisor, "virDomainAttachDeviceFlags").domain_attach_device_flags(ref, xml, Affect.LIVE)
        elif self.change.verb == "remove":
            _devices(hypervisor, "virDomainDetachDeviceFlags").domain_detach_device_flags(ref, xml, Affect.LIVE)
        else:
            _devices(hypervisor, "virDomainUpdateDeviceFlags").domain_update_device_flags(ref, xml, Affect.LIVE)


def _devices(hypervisor: object, api: str) -> DeviceDriver:
    return offered(hypervisor, DeviceDriver, api)
