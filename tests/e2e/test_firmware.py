"""Firmware by its descriptors, with real OVMF: variables outlive the run, go back with snapshots, and end when told."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostel.drivers.base import DomainRef, DomainXmlFlag, StartFlag, UndefineFlag
from hostel.drivers.qemu.driver import QemuDriver
from hostel.errors import ErrorCode, VirtError
from hostel.model.domain.domain import Domain
from hostel.model.domain.os import Os
from hostel.objects import Connection
from support import image
from support.session import disk
from support.uefi import UefiShell

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.requires_tool("qemu-img"),
    pytest.mark.requires_tool("/usr/share/OVMF/OVMF_CODE_4M.fd"),
]
XML = """<domain type='qemu'><name>uefi</name><memory unit='MiB'>128</memory>
<os firmware='efi'><type machine='{machine}'>hvm</type>{firmware}</os><features><acpi/></features>
<devices>{disk}<serial type='pty'/></devices></domain>"""


def define(connection: Connection, home: Path, firmware: str, machine: str = "pc") -> DomainRef:
    path = home / "disk.qcow2"
    if not path.exists():
        image.qemu_img("create", "-q", "-f", "qcow2", path, "1M")
    xml = XML.format(machine=machine, firmware=firmware, disk=disk(path, "qcow2"))
    return connection.hypervisor.domain_define_xml(xml)


def live_os(driver: QemuDriver, domain: DomainRef, flags: DomainXmlFlag = DomainXmlFlag.NONE) -> Os:
    found = Domain.parse(driver.domain_get_xml_desc(domain, flags)).os
    assert found is not None
    return found


def variables_of(driver: QemuDriver, domain: DomainRef) -> Path:
    nvram = live_os(driver, domain).nvram
    assert nvram is not None and nvram.path is not None
    return Path(nvram.path)


def test_variables_outlive_runs_and_go_back_with_snapshots(
    connection: Connection, driver: QemuDriver, tmp_path: Path
) -> None:
    domain = define(connection, tmp_path, "<nvram format='qcow2'/>")
    driver.domain_create(domain)
    path = variables_of(driver, domain)
    shell = UefiShell.boot(driver, domain)
    assert shell.variable() is None
    shell.set_variable(1)
    inside = driver.domain_snapshot_create_xml(domain, "<domainsnapshot><name>inside</name></domainsnapshot>")
    memory = f"<memory snapshot='external' file='{tmp_path}/memory'/>"
    shell.set_variable(2)
    xml = f"<domainsnapshot><name>outside</name>{memory}</domainsnapshot>"
    outside = driver.domain_snapshot_create_xml(domain, xml)
    shell.set_variable(3)
    shell.close()
    for snapshot, value in ((outside, 2), (inside, 1)):
        driver.domain_revert_to_snapshot(snapshot)
        shell = UefiShell(driver, domain)
        assert shell.variable() == value
        shell.close()
    driver.domain_destroy(domain)
    assert "inside" in image.real_qemu_img("snapshot", "-l", path)
    driver.domain_create(domain)
    shell = UefiShell.boot(driver, domain)
    assert shell.variable() == 1
    shell.close()
    driver.domain_destroy(domain)
    image.assert_clean(path, "qcow2")
    driver.domain_create(domain, StartFlag.RESET_NVRAM | StartFlag.PAUSED)
    driver.domain_destroy(domain)
    image.real_qemu_img("compare", "-F", "raw", path, "/usr/share/OVMF/OVMF_VARS_4M.fd")


def test_variables_stay_or_go_with_the_definition(connection: Connection, driver: QemuDriver, tmp_path: Path) -> None:
    domain = define(connection, tmp_path, "")
    driver.domain_create(domain, StartFlag.PAUSED)
    path = variables_of(driver, domain)
    assert path == tmp_path / "config/qemu/nvram/uefi_VARS.fd"
    assert path.read_bytes() == Path("/usr/share/OVMF/OVMF_VARS_4M.fd").read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(VirtError, match="internal snapshots of a VM with pflash based firmware"):
        driver.domain_snapshot_create_xml(domain, "<domainsnapshot/>")
    driver.domain_destroy(domain)
    for flags, message in (
        (UndefineFlag.NONE, "cannot undefine domain with nvram"),
        (UndefineFlag.NVRAM | UndefineFlag.KEEP_NVRAM, "cannot both keep and delete nvram"),
    ):
        with pytest.raises(VirtError, match=message) as caught:
            driver.domain_undefine(domain, flags)
        assert caught.value.code is ErrorCode.OPERATION_INVALID
    driver.domain_rename(domain, "other")
    renamed = driver.domain_lookup_by_name("other")
    driver.domain_create(renamed, StartFlag.PAUSED)
    assert variables_of(driver, renamed) == path
    driver.domain_destroy(renamed)
    driver.domain_undefine(renamed, UndefineFlag.KEEP_NVRAM)
    assert path.exists()
    again = define(connection, tmp_path, "")
    driver.domain_undefine(again, UndefineFlag.NVRAM)
    assert not path.exists()


@pytest.mark.parametrize(
    ("machine", "firmware", "code"),
    [
        ("pc", "", "OVMF_CODE_4M.fd"),
        ("q35", "<firmware><feature enabled='yes' name='secure-boot'/></firmware>", "OVMF_CODE_4M.ms.fd"),
        ("q35", "<firmware><feature enabled='no' name='enrolled-keys'/></firmware>", "OVMF_CODE_4M.secboot.fd"),
    ],
)
def test_firmware_is_chosen_by_what_a_machine_asks_for(
    connection: Connection, driver: QemuDriver, tmp_path: Path, machine: str, firmware: str, code: str
) -> None:
    domain = define(connection, tmp_path, firmware, machine=machine)
    driver.domain_create(domain, StartFlag.PAUSED)
    live = live_os(driver, domain)
    assert live.loader is not None
    assert (live.firmware, live.loader.path) == (None, f"/usr/share/OVMF/{code}")
    assert bool(live.loader.secure) == (code != "OVMF_CODE_4M.fd")
    assert live_os(driver, domain, DomainXmlFlag.INACTIVE).firmware == "efi"


def test_what_no_firmware_fits_says_what_there_is(connection: Connection, driver: QemuDriver, tmp_path: Path) -> None:
    domain = define(connection, tmp_path, "<firmware><feature enabled='yes' name='secure-boot'/></firmware>")
    with pytest.raises(VirtError, match=r"any firmware to satisfy 'efi'; none of .*60-edk2-x86_64\.json"):
        driver.domain_create(domain)
    assert not (tmp_path / "config/qemu/nvram").exists()
