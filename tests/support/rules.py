"""What the rules refuse: documents, and libvirt's code, its words, and where in the document it is.

The cases are one a family at least; the 201 documents that libvirt refuses are ``tools/libvirt_data``'s.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import pytest

from hostel.errors import ErrorCode, ModelError
from hostel.model.domain.defaults import complete
from hostel.model.domain.domain import Domain
from hostel.model.domain.inactive import forget_run
from hostel.model.domain.platform import Platform
from hostel.model.domain.rules.start import check_start
from hostel.model.domain.validate import validate
from support.domain import QEMU
from support.refused import document

CONFIG: Final = ErrorCode.CONFIG_UNSUPPORTED
XML: Final = ErrorCode.XML_ERROR
DETAIL: Final = ErrorCode.XML_DETAIL
INTERNAL: Final = ErrorCode.INTERNAL_ERROR
ARGUMENT: Final = ErrorCode.INVALID_ARG

POWER = Platform(
    is_qemu=True, arch="ppc64", machine="pseries", features=frozenset({"spapr-pci-host-bridge", "pc-dimm"})
)
BARE = Platform(is_qemu=True, arch="x86_64", machine="pc")
SPICE = "<graphics type='spice'/>"
DRIVE = "<address type='drive' controller='0' bus='0' target='0' unit='3'/>"
AUTH = "<auth username='u'><secret type='{}' usage='s'/></auth>"


class Refused(NamedTuple):
    """What a document is refused with; ``only_given`` if one that was defined before is not."""

    xml: str
    path: str
    words: str
    code: ErrorCode = CONFIG
    platform: Platform = QEMU
    only_given: bool = False


def on(arch: str, machine: str, devices: str = "", **parts: str) -> str:
    """A domain of another architecture."""
    return document(devices, machine=machine, **parts).replace("arch='x86_64'", f"arch='{arch}'")


def card(kind: str, more: str = "") -> str:
    """A network interface."""
    source = "<source bridge='b'/>" if kind == "bridge" else ""
    return f"<interface type='{kind}'>{source}{more}</interface>"


def scsi(unit: int, more: str = "", words: str = "") -> str:
    """A SCSI unit of the host."""
    source = f"<source><adapter name='scsi_host0'/><address bus='0' target='0' unit='{unit}'/></source>"
    return f"<hostdev mode='subsystem' type='scsi'{words}>{source}{more}</hostdev>"


def read(case: Refused) -> Domain:
    """The domain of a case, completed as it is before the rules look at it."""
    domain = Domain.parse(case.xml if case.xml.startswith("<domain") else document(case.xml))
    forget_run(domain)
    complete(domain, case.platform)
    return domain


def check_refused(case: Refused) -> None:
    """The document is not even defined; what was defined before it was refused goes on."""
    with pytest.raises(ModelError) as caught:
        validate(read(case), case.platform)
    assert_told(case, caught.value)
    if case.only_given:
        validate(read(case), case.platform, is_given=False)


def check_not_started(case: Refused) -> None:
    """The document is defined, and does not start."""
    domain = read(case)
    validate(domain, case.platform)
    with pytest.raises(ModelError) as caught:
        check_start(domain, case.platform)
    assert_told(case, caught.value)


def assert_told(case: Refused, error: ModelError) -> None:
    assert (error.code, error.path) == (case.code, case.path), error.reason
    assert case.words in error.reason
