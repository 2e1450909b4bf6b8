"""VMware's files as documents, and documents as VMware's files."""

from __future__ import annotations

import time

import pytest

from hostel.errors import ErrorCode, ModelError
from hostel.model.domain.domain import Domain
from hostel.model.native.vmx.reading import read_vmx
from hostel.model.native.vmx.writing import write_vmx
from support.native import VMX_HEAD, VMX_MACHINE

HEAD = VMX_HEAD + 'displayName = "mail"\n'
MACHINE = VMX_MACHINE


def vmware(inside: str, devices: str = "") -> str:
    return (
        f"<domain type='vmware'><name>m</name><memory unit='MiB'>64</memory>{inside}"
        f"<os><type arch='x86_64'>hvm</type></os><devices>{devices}</devices></domain>"
    )


def test_machine_becomes_a_document() -> None:
    domain = read_vmx(MACHINE)
    devices = domain.devices
    assert (domain.name, domain.uuid) == ("mail", "564d0011-2233-4455-6677-8899aabbccdd")
    assert domain.memory is not None and domain.memory.to_kib() == 1024 * 1024
    assert domain.cputune is not None and domain.cputune.shares == 8000
    assert domain.os is not None and (domain.os.type.arch, domain.os.firmware) == ("x86_64", "efi")
    assert [(disk.target.dev, disk.device) for disk in devices.disks] == [
        ("sda", "disk"), ("sdb", "disk"), ("hdc", "cdrom")
    ]  # fmt: skip
    assert [disk.transient is not None for disk in devices.disks] == [False, True, False]
    assert (devices.controllers[0].type, devices.controllers[0].model) == ("scsi", "vmpvscsi")
    assert (devices.interfaces[0].type, devices.interfaces[0].model) == ("user", "vmxnet3")
    assert devices.filesystems[0].readonly
    assert devices.graphics[0].port == 5905
    assert (devices.serials[0].protocol, devices.serials[0].sources[0].service) == ("telnet", "4100")


def test_document_and_file_say_the_same() -> None:
    document = read_vmx(MACHINE).format()
    again = read_vmx(write_vmx(document, version=8)).format()
    assert again == document
    assert Domain.parse(document).format() == document


@pytest.mark.parametrize(
    ("version", "place", "name", "address"),
    [(8, "0:15", "sdo", (0, 0, 0, 15)), (8, "1:2", "sdr", (1, 0, 0, 2)), (14, "0:64", None, None),
     (14, "0:63", "sdbk", (0, 0, 0, 63)), (8, "0:16", None, None), (8, "0:7", None, None)],
)  # fmt: skip
def test_units_of_a_scsi_controller(
    version: int, place: str, name: str | None, address: tuple[int, int, int, int] | None
) -> None:
    head = HEAD.replace('virtualHW.version = "8"', f'virtualHW.version = "{version}"')
    present = "".join(f'scsi{number}.present = "true"\n' for number in range(2))
    disks = read_vmx(f'{head}{present}scsi{place}.present = "true"\nscsi{place}.fileName = "a.vmdk"\n').devices.disks
    assert [disk.target.dev for disk in disks] == ([] if name is None else [name])
    assert [getattr(disk.address, "place", None) for disk in disks] == ([] if address is None else [address])


def test_names_do_not_depend_on_case() -> None:
    assert (
        read_vmx(MACHINE.replace("memsize", "MEMSIZE").replace("scsi0", "SCSI0")).format() == read_vmx(MACHINE).format()
    )


def test_escaped_names_are_read_and_written() -> None:
    domain = read_vmx(HEAD.replace("mail", "a%2fb|22c"))
    assert domain.name == 'a/b"c'
    assert 'displayName = "a%2fb|22c"' in write_vmx(domain.format())


def test_file_is_read_in_the_encoding_that_it_names() -> None:
    data = (HEAD.replace("mail", "Grün") + '.encoding = "windows-1252"\n').encode("cp1252")
    assert read_vmx(data.decode("utf-8", "surrogateescape")).name == "Grün"


@pytest.mark.parametrize(
    ("text", "path"),
    [("", "config.version"),
     ('config.version = "7"\n', "config.version"),
     ('config.version = "8"\nvirtualHW.version = "3"\n', "virtualHW.version"),
     (HEAD + 'memsize = "17"', "memsize"),
     (HEAD + 'numvcpus = "0"', "numvcpus"),
     (HEAD + 'numvcpus = "x"', "numvcpus"),
     (HEAD + 'firmware = "bios"', "firmware"),
     (HEAD + '.encoding = "klingon"', ".encoding"),
     (HEAD + 'displayname = "x"\nannotation = "|2"', "annotation"),
     (HEAD + 'scsi0.present = "true"\nscsi0.virtualDev = "nvme"', "scsi0.virtualDev"),
     (HEAD + 'scsi0.present = "true"\nscsi0:0.present = "true"\nscsi0:0.fileName = "a.img"', "scsi0:0.fileName"),
     (HEAD + 'ide0:0.present = "maybe"', "ide0:0.present"),
     (HEAD + 'ethernet0.present = "true"\nethernet0.connectionType = "hostonly"', "ethernet0.connectionType"),
     (HEAD + 'ethernet0.present = "true"\nethernet0.generatedAddress = "x"', "ethernet0.generatedAddress"),
     (HEAD + 'serial0.present = "true"\nserial0.fileType = "network"\nserial0.fileName = "tcp://h"',
      "serial0.fileName"),
     (HEAD + 'sched.cpu.affinity = "0,70000"', "sched.cpu.affinity")],
)  # fmt: skip
def test_refusal_names_the_entry(text: str, path: str) -> None:
    with pytest.raises(ModelError) as refusal:
        read_vmx(text)
    assert (refusal.value.path, refusal.value.code) == (path, ErrorCode.INTERNAL_ERROR)


@pytest.mark.parametrize(
    ("xml", "path"),
    [("<domain type='kvm'><name>m</name><memory>1</memory><os><type>hvm</type></os></domain>", "/domain/@type"),
     (vmware("<vcpu current='1'>2</vcpu>"), "/domain/vcpu/@current"),
     (vmware("<cpu mode='host-model'/>"), "/domain/cpu/@mode"),
     (vmware("", "<disk><source file='a.vmdk'/><target dev='vda' bus='virtio'/></disk>"),
      "/domain/devices/disk[1]/target/@bus"),
     (vmware("", "<disk><source file='a.qcow2'/><target dev='sda' bus='scsi'/></disk>"),
      "/domain/devices/disk[1]/source/@file"),
     (vmware("", "<interface type='network'><source network='default'/></interface>"),
      "/domain/devices/interface[1]"),
     (vmware("", "<graphics type='spice' port='5900'/>"), "/domain/devices/graphics[1]")],
)  # fmt: skip
def test_refusal_names_the_element(xml: str, path: str) -> None:
    with pytest.raises(ModelError) as refusal:
        write_vmx(xml)
    assert refusal.value.path == path


def test_newer_hardware_has_more_cards_and_bridges_for_them() -> None:
    cards = "<interface type='user'/>" * 10
    text = write_vmx(vmware("", cards))
    assert 'virtualHW.version = "7"' in text and 'ethernet9.present = "true"' in text and "vmci0" in text
    for count, version in ((11, 7), (5, 4)):
        with pytest.raises(ModelError, match="Ethernet controller index"):
            write_vmx(vmware("", "<interface type='user'/>" * count), version=version)


def test_no_text_of_a_document_becomes_an_entry_of_its_own() -> None:
    disk = "<disk><source file='a\"&#10;x = \"1.vmdk'/><target dev='sda' bus='scsi'/></disk>"
    with pytest.raises(ModelError, match="quotation mark or a line end"):
        write_vmx(vmware("", disk))


def test_numbers_of_devices_cost_nothing() -> None:
    begin = time.process_time()
    text = 'ethernet999999.present = "false"\nsharedFolder.maxNum = "99999999999999"\n'
    domain = read_vmx(HEAD + 'isolation.tools.hgfs.disable = "false"\n' + text)
    assert not domain.devices.interfaces and time.process_time() - begin < 5


def test_drive_of_the_host_stays_one_while_it_is_empty_and_in_a_document_is_none() -> None:
    drive = 'ide1:0.present = "true"\nide1:0.deviceType = "atapi-cdrom"\n'
    domain = read_vmx(HEAD + drive)
    (disk,) = domain.devices.disks
    assert (disk.type, disk.device, disk.source and disk.source.dev) == ("block", "cdrom", None)
    assert "<disk type='block' device='cdrom'>" in domain.format()
    assert Domain.parse(domain.format()).devices.disks[0].type == "file"  # as libvirt reads it
