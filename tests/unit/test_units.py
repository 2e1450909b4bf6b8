from __future__ import annotations

import pytest

from hostel.units import GiB, KiB, MiB, TiB, format_size, parse_size, scale_libvirt


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("0", 0),
        ("512", 512),
        ("10G", 10 * GiB),
        ("10g", 10 * GiB),
        ("1.5M", MiB + MiB // 2),
        ("64k", 64 * KiB),
        ("2GB", 2 * GiB),
        ("2GiB", 2 * GiB),
        ("0x10000", 65536),
        ("0xE", 14),
        ("7E", 7 * 2**60),
        ("9223372036854775807", 2**63 - 1),
        ("1.K", 1024),
        ("0.1G", GiB // 10),
        ("0.1M", 104858),
        (" +1.5e", 3 * 2**59),
        ("5B", 5),
    ],
)
def test_size_is_parsed_in_powers_of_1024(text: str, length: int) -> None:
    assert parse_size(text) == length


@pytest.mark.parametrize(
    "text",
    [
        "",
        "G",
        "1Q",
        "-1",
        "1.5",
        "1_0",
        "0x",
        "1.2.3G",
        "1e3",
        "nan",
        "inf",
        "1 0",
        "K1",
        "٣",
        ".5K",
        "-0",
        "1 ",
        "1_0",
        "0x٣",
    ],
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a size|is negative"):
        parse_size(text)


@pytest.mark.parametrize("text", ["8E", "9223372036854775808", "16777216T"])
def test_size_beyond_63_bits_is_refused(text: str) -> None:
    with pytest.raises(OverflowError):
        parse_size(text)


@pytest.mark.parametrize(
    ("length", "text"),
    [
        (0, "0 B"),
        (512, "512 B"),
        (999, "999 B"),
        (1000, "0.977 KiB"),
        (1024, "1 KiB"),
        (64 * KiB, "64 KiB"),
        (int(1.27 * MiB), "1.27 MiB"),
        (1023 * KiB, "0.999 MiB"),
        (10 * GiB, "10 GiB"),
        (64 * TiB, "64 TiB"),
        (196616, "192 KiB"),
    ],
)
def test_size_is_printed_with_three_significant_digits(length: int, text: str) -> None:
    assert format_size(length) == text


def test_libvirt_units_tell_1000_from_1024() -> None:
    assert scale_libvirt(3, "KB") == 3000
    assert scale_libvirt(3, "KiB") == scale_libvirt(3, "k") == 3 * KiB
    assert scale_libvirt(1, "GB") == 10**9
    assert scale_libvirt(7, "bytes") == 7


def test_scaled_integer_beyond_63_bits_is_refused() -> None:
    with pytest.raises(OverflowError):
        scale_libvirt(2**60, "K")
