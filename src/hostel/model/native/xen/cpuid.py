"""Names of processors' features: libvirt's, and libxl's where it has another (``xenTranslateCPUFeature``)."""

from __future__ import annotations

from typing import Final

_XEN_NAMES: Final = {
    "cx16": "cmpxchg16", "cid": "cntxid", "ds_cpl": "dscpl", "pclmuldq": "pclmulqdq", "pni": "sse3", "ht": "htt",
    "pn": "psn", "clflush": "clfsh", "sep": "sysenter", "cx8": "cmpxchg8", "nodeid_msr": "nodeid",
    "cr8legacy": "altmovcr8", "lahf_lm": "lahfsahf", "cmp_legacy": "cmplegacy", "fxsr_opt": "ffxsr",
    "pdpe1gb": "page1gb", "spec-ctrl": "ibrsb",
}  # fmt: skip
_DOCUMENT_NAMES: Final = {xen: name for name, xen in _XEN_NAMES.items()}


def xen_feature(name: str) -> str:
    """Libxl's name of a feature."""
    return _XEN_NAMES.get(name, name)


def document_feature(name: str) -> str:
    """Libvirt's name of a feature."""
    return _DOCUMENT_NAMES.get(name, name)
