"""The document of a filter's binding: which interface of a guest it is for (``virNWFilterBindingDefFormatBuf``)."""

from __future__ import annotations

from hostel.codec.xml import UUID, Element, child, setting, text
from hostel.errors import ErrorCode, ModelError
from hostel.model.address import read_mac
from hostel.model.nwfilter.filter import FilterReference, check_reference, complete_reference


class BindingOwner(Element, tag="owner"):
    """The domain that has the interface."""

    name: str | None = text(default=None)
    uuid: str | None = text(UUID.saying("Unable to parse UUID '{}'", ErrorCode.INTERNAL_ERROR), default=None)


class FilterBinding(Element, tag="filterbinding"):
    """A binding."""

    owner: BindingOwner | None = child(BindingOwner, default=None)
    port_device: str | None = setting(tag="portdev", name="name", default=None)
    link_device: str | None = setting(tag="linkdev", name="name", default=None)
    mac: str | None = setting(name="address", default=None)
    reference: FilterReference | None = child(FilterReference, default=None)


def read_binding(xml: str) -> FilterBinding:
    """Read a binding's document, and complete it.

    Raises:
        ModelError: it is none, or breaks a rule; the path says where.
    """
    binding = FilterBinding.parse(xml, "nwfilterbinding_definition")
    validate(binding)
    complete(binding)
    return binding


def validate(binding: FilterBinding) -> None:
    """Hold a binding against the rules.

    Raises:
        ModelError: something is missing; the words are libvirt's.
    """
    owner = binding.owner
    for name, value, what in (
        ("portdev", binding.port_device, "port dev name"),
        ("owner/name", owner and owner.name, "owner name"),
        ("owner/uuid", owner and owner.uuid, "owner UUID"),
        ("mac", binding.mac, "MAC address"),
        ("filterref", binding.reference, "filter reference"),
    ):
        if value is None:
            reason = f"filter binding has no {what}"
            raise ModelError(f"/filterbinding/{name}", reason, code=ErrorCode.INTERNAL_ERROR)
    if read_mac(binding.mac or "") is None:
        reason = f"Unable to parse MAC '{binding.mac}'"
        raise ModelError("/filterbinding/mac/@address", reason, code=ErrorCode.INTERNAL_ERROR)
    if binding.reference is not None:
        check_reference(binding.reference, "/filterbinding/filterref")


def complete(binding: FilterBinding) -> None:
    """Write the address in libvirt's spelling, and the parameters in its order."""
    binding.mac = read_mac(binding.mac or "")
    if binding.reference is not None:
        complete_reference(binding.reference)
