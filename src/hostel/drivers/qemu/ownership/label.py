"""Labels of documents: what a machine that starts gets for those it has, and who it is by them.

One security driver is there besides "none", which does nothing: "dac", of machines that are somebody else's than who
starts them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hostel.drivers.fault import fault
from hostel.drivers.qemu.ownership.user import Identity, Owner, read_label
from hostel.errors import ErrorCode, ErrorDomain
from hostel.model.domain.devices.seclabel import DeviceSecurityLabel, SecurityLabel
from hostel.model.domain.domain import Domain

DAC = "dac"
_NONE = "none"


def generate(domain: Domain, identity: Identity | None) -> None:
    """Write into the document of a machine that is about to run whose it is (``virSecurityManagerGenLabel``).

    Raises:
        VirtError: ``CONFIG_UNSUPPORTED``: a label is for a security driver that is not there; ``INVALID_ARG``: it
            names nobody.
    """
    _check_models(domain, has_dac=identity is not None)
    for label in domain.seclabels:
        if label.model == _NONE and label.type in (None, "default"):
            label.type = "none"
    if identity is None:
        return
    label = label_of(domain) or SecurityLabel(model=DAC, type="default")
    if label not in domain.seclabels:
        if not identity.is_usual:
            return
        domain.seclabels.append(label)
    if label.type == "default":
        label.type, label.relabel = ("dynamic", True) if identity.is_usual else ("none", False)
    if label.type in (None, "dynamic"):
        label.type, label.relabel, label.label = "dynamic", True, identity.owner.label
    if label.label is not None:
        read_label(label.label)
        label.image_label = label.label if label.relabel else None


def _check_models(domain: Domain, *, has_dac: bool) -> None:
    known = (_NONE, DAC) if has_dac else (_NONE,)
    unknown = next((model for model in _models(domain) if model not in known), None)
    if unknown is not None:
        what = f"Security driver model '{unknown}' is not available"
        raise fault(ErrorCode.CONFIG_UNSUPPORTED, what, ErrorDomain.QEMU)


def _models(domain: Domain) -> Iterator[str]:
    """The security drivers that labels of a document are for (``virSecurityManagerCheckAllLabel``)."""
    labels: list[SecurityLabel | DeviceSecurityLabel] = [*domain.seclabels]
    labels += [label for disk in domain.devices.disks if disk.source is not None for label in disk.source.seclabels]
    labels += [
        label for device in domain.devices.characters() for source in device.sources for label in source.seclabels
    ]
    yield from (label.model for label in labels if label.model is not None)


def label_of(domain: Domain) -> SecurityLabel | None:
    """A document's label for the owner."""
    return next((label for label in domain.seclabels if label.model == DAC), None)


def device_label(labels: Iterable[DeviceSecurityLabel]) -> DeviceSecurityLabel | None:
    """That of one device's source."""
    return next((label for label in labels if label.model == DAC), None)


def owner_of(domain: Domain, identity: Identity) -> Owner:
    """Who a live document's QEMU runs as.

    Raises:
        VirtError: ``INVALID_ARG``: its label names nobody.
    """
    label = label_of(domain)
    return identity.owner if label is None or label.label is None else read_label(label.label)


def drop_made(domain: Domain) -> None:
    """Take the label out of a live document that it got when it started, as far as that can be told."""
    domain.seclabels = [item for item in domain.seclabels if not _is_made(item)]


def _is_made(label: SecurityLabel) -> bool:
    return label.model == DAC and label.type == "dynamic" and label.label is not None and label.base_label is None
