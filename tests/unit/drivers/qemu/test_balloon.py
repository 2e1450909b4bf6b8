"""How much memory a guest has."""

from __future__ import annotations

from typing import Any

import pytest

from hostel.drivers.qemu import balloon
from hostel.errors import QmpError
from hostel.model.domain.domain import Domain

XML = (
    "<domain type='qemu'><name>g</name><memory>65536</memory><currentMemory>32768</currentMemory>"
    "<os><type>hvm</type></os><devices><memballoon model='virtio'/></devices></domain>"
)


class Refusing:
    """A QEMU that refuses each command in the same way."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def execute(self, command: str, **arguments: Any) -> Any:
        raise QmpError(self.kind, f"{command} is not for this host")


@pytest.mark.parametrize("kind", ["DeviceNotActive", "KVMMissingCap"])
def test_guest_whose_host_takes_nothing_back_starts_and_has_all_its_memory(kind: str) -> None:
    domain = Domain.parse(XML)
    balloon.begin(domain, Refusing(kind), comes=False)  # type: ignore[arg-type]
    assert domain.current_memory is not None and domain.current_memory.to_kib() == 65536


def test_other_refusals_are_none_to_pass_over() -> None:
    with pytest.raises(QmpError):
        balloon.begin(Domain.parse(XML), Refusing("GenericError"), comes=False)  # type: ignore[arg-type]
