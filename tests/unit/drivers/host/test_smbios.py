"""SMBIOS as dmidecode prints it."""

from __future__ import annotations

from hostel.drivers.host.smbios import described

TEXT = """BIOS Information
\tVendor: Coreboot   \n\tVersion: 4.1 (x: y)
\tCharacteristics:
\t\tVersion: no value
\tBIOS Revision: 1.2

System Information
\tManufacturer: A & B
\tUUID: 4CD00C81-4A85-11CB-88EC-A5A7A8F13986

Processor Information
\tSocket Designation: CPU 0
\tStatus: Populated, Enabled

Memory Device
\tSize: No Module Installed
\tLocator: DIMM 0

Memory Device
\tSize: 8 GB
\tLocator: DIMM 1
\tBank Locator: Bank 0

OEM Strings
\tString 1: one
\tString 2: two: three
"""


def test_blocks_are_those_that_libvirt_has_a_place_for() -> None:
    found = described(TEXT)
    assert found is not None
    assert [line.strip() for line in found.format().splitlines()] == [
        "<sysinfo type='smbios'>",
        "<bios>",
        "<entry name='vendor'>Coreboot</entry>",
        "<entry name='version'>4.1 (x: y)</entry>",
        "<entry name='release'>1.2</entry>",
        "</bios>",
        "<system>",
        "<entry name='manufacturer'>A &amp; B</entry>",
        "<entry name='uuid'>4CD00C81-4A85-11CB-88EC-A5A7A8F13986</entry>",
        "</system>",
        "<processor>",
        "<entry name='socket_destination'>CPU 0</entry>",
        "<entry name='status'>Populated, Enabled</entry>",
        "</processor>",
        "<memory_device>",
        "<entry name='size'>8 GB</entry>",
        "<entry name='locator'>DIMM 1</entry>",
        "<entry name='bank_locator'>Bank 0</entry>",
        "</memory_device>",
        "<oemStrings>",
        "<entry>one</entry>",
        "<entry>two: three</entry>",
        "</oemStrings>",
        "</sysinfo>",
    ]


def test_a_host_without_smbios_says_nothing() -> None:
    assert described("# No SMBIOS nor DMI entry point found, sorry.\n") is None
