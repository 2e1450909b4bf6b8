"""``<qemu:…>``: what goes to QEMU past the document (``qemuDomainDefNamespaceFormatXML``)."""

from __future__ import annotations

from hostel.codec.xml import Element, attr, child, children, choice

QEMU = ("qemu", "http://libvirt.org/schemas/domain/qemu/1.0")


class QemuArgument(Element, tag="arg", namespace=QEMU):
    """An argument."""

    value: str = attr()


class QemuVariable(Element, tag="env", namespace=QEMU):
    """An environment variable."""

    name: str = attr()
    value: str | None = attr(default=None)


class QemuCommandline(Element, tag="commandline", namespace=QEMU):
    """Arguments and variables that are added."""

    arguments: list[QemuArgument] = children(QemuArgument, factory=list)
    environment: list[QemuVariable] = children(QemuVariable, factory=list)


class CapabilityAdded(Element, tag="add", namespace=QEMU):
    """A capability that QEMU is taken to have."""

    capability: str = attr()


class CapabilityDeleted(Element, tag="del", namespace=QEMU):
    """A capability that QEMU is taken not to have."""

    capability: str = attr()


class QemuCapabilities(Element, tag="capabilities", namespace=QEMU):
    """What QEMU is taken to be able to."""

    added: list[CapabilityAdded] = children(CapabilityAdded, factory=list)
    deleted: list[CapabilityDeleted] = children(CapabilityDeleted, factory=list)


class QemuProperty(Element, tag="property", namespace=QEMU):
    """A property of a device."""

    name: str = attr()
    type: str = attr(choice("string", "signed", "unsigned", "bool", "remove"))
    value: str | None = attr(default=None)


class QemuFrontend(Element, tag="frontend", namespace=QEMU):
    """Properties of what the guest sees."""

    properties: list[QemuProperty] = children(QemuProperty, factory=list)


class QemuDevice(Element, tag="device", namespace=QEMU):
    """A device by its alias."""

    alias: str = attr()
    frontend: QemuFrontend | None = child(QemuFrontend, default=None)


class QemuOverride(Element, tag="override", namespace=QEMU):
    """Properties of devices that are set otherwise."""

    devices: list[QemuDevice] = children(QemuDevice, factory=list)


class QemuDeprecation(Element, tag="deprecation", namespace=QEMU):
    """What QEMU does when something deprecated is asked of it."""

    behavior: str = attr(choice("none", "omit", "reject", "crash"))
