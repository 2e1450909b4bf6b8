"""The guest's images, its pattern and its state, as the host sees them."""

from __future__ import annotations

from typing import Any

import pytest

from hostel import guest
from hostel.errors import UsageError
from hostel.guest import Mode, Operation, OperationCode
from hostel.guest.image import program


def test_image_is_bootable_and_leaves_room_for_a_partition_table() -> None:
    image = guest.image()
    assert len(image) % guest.SECTOR == 0
    assert image[510:512] == b"\x55\xaa"
    assert image[440:510] == bytes(70)


def test_image_is_padded_to_the_size_asked_for() -> None:
    image = guest.image(size=1 << 20)
    assert len(image) == 1 << 20
    assert image.startswith(guest.image())


def test_label_mode_and_operations_are_in_the_parameter_sector() -> None:
    operation = Operation(OperationCode.VERIFY, lba=0x1122334455, sectors=7, seed=9, drive=0x81)
    image = guest.image(label="alpha", mode=Mode.REBOOT, until=5, operations=[operation])
    sector = image[program().offset("parameters") :][: guest.SECTOR]
    assert sector[:8] == b"HOSTELPS"
    assert sector[10:12] == bytes((2, 1))
    assert sector[12:16] == (5).to_bytes(4, "little")
    assert sector[16:48] == b"alpha".ljust(32, b"\0")
    assert sector[48:72].hex() == "03810000" + "09000000" + "5544332211000000" + "07000000" + "00000000"


def test_cdrom_image_says_that_all_of_it_is_loaded() -> None:
    disk, cdrom = guest.image(label="x"), guest.cdrom_image(label="x")
    assert disk[program().offset("medium")] == 0
    assert cdrom[program().offset("medium")] == 1
    assert len(cdrom) == len(disk)


@pytest.mark.parametrize("label", ["", "two words", "x" * 32, "grün", "a\nb"])
def test_label_that_the_report_could_not_carry_is_refused(label: str) -> None:
    with pytest.raises(UsageError, match="label"):
        guest.image(label=label)


def test_too_many_operations_are_refused() -> None:
    with pytest.raises(UsageError, match="19 operations at most, not 20"):
        guest.image(operations=[Operation(OperationCode.SUM, 0, 1)] * 20)


@pytest.mark.parametrize("field", ["lba", "sectors", "seed", "drive"])
def test_operation_out_of_its_limits_is_refused(field: str) -> None:
    limits: dict[str, Any] = {field: -1}
    operation = Operation(OperationCode.SUM, 0, 1)._replace(**limits)
    with pytest.raises(UsageError, match=f"the {field} of a guest's operation"):
        guest.image(operations=[operation])


@pytest.mark.parametrize("size", [512, (1 << 20) + 1])
def test_size_that_does_not_hold_the_guest_in_whole_sectors_is_refused(size: int) -> None:
    with pytest.raises(UsageError, match="whole sectors"):
        guest.image(size=size)


def test_state_of_a_new_image_is_no_boot_yet() -> None:
    image = guest.image()
    assert guest.read_state(image[guest.state_offset() :][:512]) == guest.State(0, True)


def test_state_sector_reads_back_and_a_changed_byte_shows() -> None:
    sector = bytearray(guest.state_sector(7))
    assert guest.read_state(bytes(sector)) == guest.State(7, True)
    sector[400] ^= 1
    assert guest.read_state(bytes(sector)) == guest.State(7, False)


@pytest.mark.parametrize("sector", [b"", bytes(512), guest.state_sector(1)[:511]])
def test_what_is_no_state_sector_is_refused(sector: bytes) -> None:
    with pytest.raises(UsageError, match="not the state sector"):
        guest.read_state(sector)


def test_pattern_starts_anew_in_each_sector() -> None:
    assert guest.pattern(5, 10, 3) == guest.pattern(5, 10) + guest.pattern(5, 11) + guest.pattern(5, 12)
    assert len({guest.pattern(seed, lba) for seed in range(1, 5) for lba in range(4)}) == 16


def test_pattern_is_xorshift32() -> None:
    # Marsaglia, "Xorshift RNGs", 2003: from 1, with shifts 13, 17 and 5, the sequence starts so.
    assert guest.pattern(1, 0)[:8] == (270369).to_bytes(4, "little") + (67634689).to_bytes(4, "little")


def test_pattern_of_seed_zero_is_not_all_zeroes() -> None:
    assert guest.pattern(0, 0) == guest.pattern(1, 0)


def test_probe_is_one_bootable_sector() -> None:
    sector = guest.probe_sector()
    assert len(sector) == 512
    assert sector[510:] == b"\x55\xaa"
    assert b"HOSTEL-PROBE" in sector
