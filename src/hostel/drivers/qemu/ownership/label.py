"""Labels of documents: what a machine that starts gets for those it has, and who it is by them.

Three security drivers write labels: "dac", of machines that are somebody else's than who starts them, and "selinux" or
"apparmor", where the host's kernel has one. "none" does nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from hostel.drivers.fault import fault
from hostel.drivers.qemu.ownership.user import Identity, Owner, read_label
from hostel.errors import ErrorCode, ErrorDomain
from hostel.model.domain.devices.seclabel import DeviceSecurityLabel, SecurityLabel
from hostel.model.domain.domain import Domain

DAC: Final = "dac"
NONE: Final = "none"


def generate(domain: Domain, identity: Identity | None) -> None:
    """Write into the document of a machine that is about to run whose it is (``virSecurityManagerGenLabel``).

    Raises:
        VirtError: ``INVALID_ARG``: its label names nobody.
    """
    if identity is None:
        return
    label = wanted(domain, DAC, is_usual=identity.is_usual)
    if label is None:
        return
    if label.type == "dynamic":
        label.label = identity.owner.label
    if label.label is not None:
        read_label(label.label)
        label.image_label = label.label if label.relabel else None


def wanted(domain: Domain, model: str, *, is_usual: bool) -> SecurityLabel | None:
    """The label of a document for one security driver, with its type; a new one where it has none.

    Args:
        domain: the document.
        model: the driver.
        is_usual: whether a document that says nothing gets one.
    """
    label = label_of(domain, model) or SecurityLabel(model=model, type="default")
    if label not in domain.seclabels:
        if not is_usual:
            return None
        domain.seclabels.append(label)
    if label.type == "default":
        label.type, label.relabel = ("dynamic", True) if is_usual else ("none", False)
    if label.type in (None, "dynamic"):
        label.type, label.relabel = "dynamic", True
    return label


def check_models(domain: Domain, known: Iterable[str]) -> None:
    """See to it that every label of a document is for a security driver that there is.

    Raises:
        VirtError: ``CONFIG_UNSUPPORTED``: one is not.
    """
    names = {NONE, *known}
    unknown = next((model for model in _models(domain) if model not in names), None)
    if unknown is not None:
        what = f"Security driver model '{unknown}' is not available"
        raise fault(ErrorCode.CONFIG_UNSUPPORTED, what, ErrorDomain.QEMU)
    for label in domain.seclabels:
        if label.model == NONE and label.type in (None, "default"):
            label.type = "none"


def _models(domain: Domain) -> Iterator[str]:
    """The security drivers that labels of a document are for (``virSecurityManagerCheckAllLabel``)."""
    labels: list[SecurityLabel | DeviceSecurityLabel] = [*domain.seclabels]
    labels += [label for disk in domain.devices.disks if disk.source is not None for label in disk.source.seclabels]
    labels += [
        label for device in domain.devices.characters() for source in device.sources for label in source.seclabels
    ]
    yield from (label.model for label in labels if label.model is not None)


def label_of(domain: Domain, model: str = DAC) -> SecurityLabel | None:
    """A document's label for one security driver, which is the owner's where none is named."""
    return next((label for label in domain.seclabels if label.model == model), None)


def device_label(labels: Iterable[DeviceSecurityLabel], model: str = DAC) -> DeviceSecurityLabel | None:
    """That of one device's source."""
    return next((label for label in labels if label.model == model), None)


def owner_of(domain: Domain, identity: Identity) -> Owner:
    """Who a live document's QEMU runs as.

    Raises:
        VirtError: ``INVALID_ARG``: its label names nobody.
    """
    label = label_of(domain)
    return identity.owner if label is None or label.label is None else read_label(label.label)


def drop_made(domain: Domain) -> None:
    """Take the labels out of a live document that it got when it started, as far as that can be told."""
    domain.seclabels = [item for item in domain.seclabels if not _is_made(item)]


def _is_made(label: SecurityLabel) -> bool:
    is_dynamic = label.type == "dynamic" and label.label is not None and label.base_label is None
    return is_dynamic and label.model not in (None, NONE)
