"""What is refused, and in whose words: tests/golden/refused.txt has libvirt's (tools/record-golden)."""

from __future__ import annotations

import pytest

from hostel.drivers.qemu import document
from hostel.errors import VirtError
from support.domain import QEMU
from support.refused import REFUSED, agrees, recorded


@pytest.mark.parametrize("name", REFUSED)
def test_document_is_refused_as_libvirt_refuses_it(name: str) -> None:
    with pytest.raises(VirtError) as caught:
        document.parse(REFUSED[name], QEMU)
    assert agrees(name, caught.value.message, recorded()[name]), (caught.value.message, recorded()[name])
