"""Rules for security labels (``virSecurityLabelDefsParseXML``)."""

from __future__ import annotations

from typing import Final

from hostel.errors import ErrorCode, ModelError
from hostel.model.domain.devices.seclabel import DeviceSecurityLabel
from hostel.model.domain.domain import Domain

_UNSUPPORTED: Final = ErrorCode.CONFIG_UNSUPPORTED


def check_labels(domain: Domain) -> None:
    """Hold a domain's labels against each other, and those of its disks against them.

    Raises:
        ModelError: a security driver has two, or one says what its type excludes.
    """
    models: set[str | None] = set()
    for position, label in enumerate(domain.seclabels, 1):
        path = f"/domain/seclabel[{position}]"
        if label.model in models:
            reason = f"seclabel for model {label.model} is already provided"
            raise ModelError(f"{path}/@model", reason, code=ErrorCode.XML_DETAIL)
        models.add(label.model)
        if label.type in (None, "dynamic") and label.relabel is False:
            raise ModelError(f"{path}/@relabel", "dynamic label type must use resource relabeling", code=_UNSUPPORTED)
        if label.type == "none" and label.relabel:
            reason = "resource relabeling is not compatible with 'none' label type"
            raise ModelError(f"{path}/@relabel", reason, code=_UNSUPPORTED)
        if label.type == "static" and label.model != "none" and not label.label:
            raise ModelError(f"{path}/label", "security label is missing")
    if len(domain.seclabels) > 1 and None in models:
        raise ModelError("/domain/seclabel/@model", "missing security model when using multiple labels")
    for disk in domain.devices.disks:
        if disk.source is not None:
            _check_device(disk.source.seclabels, f"{domain.devices.path(disk)}/source/seclabel")


def _check_device(labels: list[DeviceSecurityLabel], path: str) -> None:
    models = [label.model for label in labels]
    twice = next((model for model in models if models.count(model) > 1), None)
    if len(labels) > 1 and (None in models or twice is not None):
        if twice is None or None in models:
            raise ModelError(f"{path}/@model", "missing security model when using multiple labels")
        raise ModelError(f"{path}/@model", f"seclabel for model {twice} is already provided", code=ErrorCode.XML_DETAIL)
    for label in labels:
        if label.label is not None and label.relabel is False:
            reason = f"Cannot specify a label if relabelling is turned off. model={label.model}"
            raise ModelError(f"{path}/label", reason)
