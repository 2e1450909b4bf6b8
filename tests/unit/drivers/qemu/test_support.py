"""Nothing of a document is left out without a word."""

from __future__ import annotations

import pytest

from hostel.codec.xml import Element
from hostel.drivers.qemu import document
from hostel.drivers.qemu.command.support import FIELDS, refuse_unknown
from hostel.errors import ErrorCode, VirtError
from support import refused
from support.domain import QEMU
from support.elements import name_of


@pytest.mark.parametrize("cls", FIELDS, ids=name_of)
def test_the_table_names_declarations(cls: type[Element]) -> None:
    assert FIELDS[cls] <= {field.name for field in cls.FIELDS}


@pytest.mark.parametrize(
    ("xml", "path"),
    [
        (refused.document(body="<frob/>"), "/domain/frob"),
        (refused.document(body="<features><frob/></features>"), "/domain/features/frob"),
        (refused.document(body="<keywrap><cipher name='aes' state='on'/></keywrap>"), "/domain/keywrap"),
        (refused.document(refused.disk(driver=" frob='1'")), "/domain/devices/disk/driver/@frob"),
        (refused.document(refused.disk(more="<serial frob='1'>s</serial>")), "/domain/devices/disk/serial/@frob"),
        (refused.document("<interface type='user'><backenddomain name='d'/></interface>"),
         "/domain/devices/interface/backenddomain"),
    ],
)  # fmt: skip
def test_what_the_guest_would_miss_is_refused_by_its_path(xml: str, path: str) -> None:
    domain = document.parse(xml, QEMU)
    with pytest.raises(VirtError, match="is not supported by this driver; remove it") as caught:
        refuse_unknown(domain)
    assert f"({path})" in caught.value.message
    assert caught.value.code == ErrorCode.CONFIG_UNSUPPORTED


@pytest.mark.parametrize(
    "xml",
    [
        refused.document(head="<title>t</title><description>d</description>"),
        refused.document(head="<metadata><a:b xmlns:a='urn:a'>c</a:b></metadata>"),
        refused.document(body="<seclabel type='none'/>"),
        refused.document(body="<cputune></cputune><memtune/>"),
        refused.document(
            "<hostdev mode='subsystem' type='scsi' sgio='filtered'><source><adapter name='scsi_host0'/>"
            "<address bus='0' target='0' unit='0'/></source></hostdev>"
        ),
    ],
)
def test_what_no_guest_sees_is_taken(xml: str) -> None:
    refuse_unknown(document.parse(xml, QEMU))
