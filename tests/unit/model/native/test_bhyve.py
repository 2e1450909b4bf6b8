"""Command lines of bhyve and its loaders as documents, and documents as command lines."""

from __future__ import annotations

import time

import pytest

from hostel.errors import ErrorCode, ModelError
from hostel.model.domain.domain import Domain
from hostel.model.native.bhyve.commandline import join, split_commands
from hostel.model.native.bhyve.document import parse_document
from hostel.model.native.bhyve.loader import grub_device_map, loader_command
from hostel.model.native.bhyve.reading import read_bhyve
from hostel.model.native.bhyve.writing import write_bhyve

BHYVE = "/usr/sbin/bhyve -c 2 -m 512"
SCRIPT = """/usr/sbin/bhyveload -m 512 -d /vm/data.img web
/usr/sbin/bhyve -c cpus=4,sockets=1,cores=2,threads=2 -m 512M -AI -S -w -u -H -P \\
  -U 6a4cbb42-0d3c-4a18-8f1c-2ad8b0b2f9f1 \\
  -s 0:0,hostbridge -s 1,lpc -s 2:0,virtio-blk,/vm/root.img -s 3,virtio-blk,/dev/zvol/data \\
  -s 4:0,ahci-cd,/vm/install.iso -s 0:5:1,e1000,tap7,mac=58:9C:FC:00:00:01 \\
  -l com1,/dev/nmdm7A web
"""
DISK = "<disk type='file'><source file='/vm/a b.img'/><target dev='{}' bus='{}'/></disk>"


def bhyve(inside: str = "", devices: str = DISK.format("vda", "virtio"), os: str = "") -> str:
    return (
        "<domain type='bhyve'><name>web</name><memory unit='MiB'>512</memory>"
        f"{inside}<os><type>hvm</type>{os}</os><devices>{devices}</devices></domain>"
    )


FIRMWARE = "<loader readonly='yes' type='pflash'>/fw/UEFI.fd</loader>"


def test_commands_become_a_document() -> None:
    domain = read_bhyve(SCRIPT)
    assert (domain.name, domain.uuid) == ("web", "6a4cbb42-0d3c-4a18-8f1c-2ad8b0b2f9f1")
    assert domain.memory is not None and domain.memory.value == 512 * 1024
    assert domain.cpu is not None and domain.cpu.topology is not None and domain.cpu.topology.cores == 2
    features = domain.features
    assert features is not None and features.acpi and features.apic is not None and features.msrs == "ignore"
    assert domain.memory_backing is not None and domain.memory_backing.locked
    disks = domain.devices.disks
    assert [(disk.type, disk.device, disk.target.dev) for disk in disks] == [
        ("file", "disk", "vda"), ("block", "disk", "vdb"), ("file", "cdrom", "sda")
    ]  # fmt: skip
    card = domain.devices.interfaces[0]
    assert card.mac is not None and card.mac.address == "58:9c:fc:00:00:01" and card.model == "e1000"
    assert domain.devices.serials[0].sources[0].slave == "/dev/nmdm7B"
    assert domain.bootloader is None
    assert Domain.parse(domain.format()).format() == domain.format()


def test_firmware_and_screen_are_read() -> None:
    text = f"{BHYVE} -l bootrom,/fw/UEFI.fd -s 29,fbuf,tcp=[::1]:5905,w=800,h=600,vga=off,password=x web"
    domain = read_bhyve(text)
    assert domain.os is not None and domain.os.loader is not None and domain.os.loader.path == "/fw/UEFI.fd"
    assert (domain.devices.graphics[0].listen, domain.devices.graphics[0].port) == ("::1", 5905)


def test_loader_of_ones_own_is_kept() -> None:
    domain = read_bhyve(f"/opt/loader --fast 'two words'\n{BHYVE} web")
    assert (domain.bootloader, domain.bootloader_args) == ("/opt/loader", "--fast two words")


def test_disk_that_is_booted_is_the_first_in_the_order() -> None:
    text = f"/usr/sbin/bhyveload -m 512 -d /b web\n{BHYVE} -s 2,virtio-blk,/a -s 3,virtio-blk,/b web"
    assert [disk.boot is not None for disk in read_bhyve(text).devices.disks] == [False, True]


@pytest.mark.parametrize(
    ("text", "path", "code"),
    [("", "", ErrorCode.XML_ERROR),
     ("/usr/sbin/bhyve web", "-m", ErrorCode.OPERATION_FAILED),
     ("/usr/sbin/bhyve -m", "-m", ErrorCode.INVALID_ARG),
     ("/usr/sbin/bhyve -m much web", "-m", ErrorCode.OPERATION_FAILED),
     (f"{BHYVE} -m 513 web", "-m", ErrorCode.OPERATION_FAILED),
     (f"/usr/sbin/bhyveload -m 4 web\n{BHYVE} web", "-m", ErrorCode.OPERATION_FAILED),
     (f"/usr/sbin/bhyveload -m 512 mail\n{BHYVE} web", "", ErrorCode.OPERATION_FAILED),
     (f"{BHYVE} web mail", "", ErrorCode.OPERATION_FAILED),
     (f"{BHYVE} -U x web", "-U", ErrorCode.INTERNAL_ERROR),
     (f"{BHYVE} -l com1 web", "-l", ErrorCode.OPERATION_FAILED),
     (f"{BHYVE} -l com3,/dev/nmdm0A web", "-l", ErrorCode.OPERATION_FAILED),
     (f"{BHYVE} -l com1,/dev/nmdm0C web", "-l", ErrorCode.OPERATION_FAILED),
     (f"{BHYVE} -s 2 web", "-s", ErrorCode.OPERATION_FAILED),
     (f"{BHYVE} -s 2,passthru,1/0/0 web", "-s", ErrorCode.CONFIG_UNSUPPORTED),
     (f"{BHYVE} -s 32,virtio-blk,/a web", "-s", ErrorCode.OPERATION_FAILED),
     (f"{BHYVE} -s 1:2:3:4,virtio-blk,/a web", "-s", ErrorCode.OPERATION_FAILED),
     (f"{BHYVE} -s 2,virtio-net,em0 web", "-s", ErrorCode.CONFIG_UNSUPPORTED),
     (f"{BHYVE} -s 2,virtio-net,tap0,mac=x web", "-s", ErrorCode.INTERNAL_ERROR),
     (f"{BHYVE} -s 2,fbuf,tcp=5900 web", "-s", ErrorCode.OPERATION_FAILED),
     (f"{BHYVE} -G 1234 web", "-G", ErrorCode.CONFIG_UNSUPPORTED)],
)  # fmt: skip
def test_refusal_names_the_option(text: str, path: str, code: ErrorCode) -> None:
    with pytest.raises(ModelError) as refusal:
        read_bhyve(text)
    assert (refusal.value.path, refusal.value.code) == (path, code)


def test_document_becomes_commands() -> None:
    loader, machine = split_commands(write_bhyve(bhyve("<features><acpi/></features>")))
    assert loader == ["/usr/sbin/bhyveload", "-m", "512", "-d", "/vm/a b.img", "web"]
    words = ["/usr/sbin/bhyve", "-c", "1", "-m", "512", "-A", "-u", "-H", "-P", "-s", "0:0,hostbridge", "-s"]
    assert machine == [*words, "2:0,virtio-blk,/vm/a b.img", "web"]


def test_firmware_needs_no_loader() -> None:
    (machine,) = split_commands(write_bhyve(bhyve(os=FIRMWARE)))
    assert "bootrom,/fw/UEFI.fd" in machine and "1:0,lpc" in machine


def test_commands_say_what_the_document_says() -> None:
    serial = "<serial type='nmdm'><source master='/dev/nmdm0A' slave='/dev/nmdm0B'/><target port='0'/></serial>"
    card = "<interface type='bridge'><mac address='52:54:00:00:00:01'/><source bridge='virbr0'/><model type='e1000'/>"
    document = bhyve("<clock offset='localtime'/>", DISK.format("vda", "virtio") + card + "</interface>" + serial)
    domain, again = parse_document(document), read_bhyve(write_bhyve(document))
    for name in ("disks", "interfaces"):
        ours, theirs = (getattr(item.devices, name)[0] for item in (domain, again))
        assert ours.address.place == theirs.address.place
    assert again.devices.serials[0].sources[0].master == "/dev/nmdm0A"
    assert again.clock is not None and again.clock.offset == "localtime"


def test_slot_that_the_bridge_would_have_may_be_taken() -> None:
    address = "<address type='pci' slot='1'/>"
    disks = DISK.format("vda", "virtio").replace("</disk>", f"{address}</disk>") + DISK.format("vdb", "virtio")
    places = [disk.address for disk in parse_document(bhyve("", disks)).devices.disks]
    assert [getattr(place, "slot", None) for place in places] == [1, 2]


@pytest.mark.parametrize(
    ("xml", "path"),
    [(bhyve().replace("'bhyve'", "'kvm'"), "/domain/@type"),
     (bhyve(devices=""), "/domain/devices"),
     (bhyve("<clock offset='timezone' timezone='CET'/>"), "/domain/clock/@offset"),
     (bhyve("<bootloader>/opt/loader</bootloader>"), "/domain/bootloader_args"),
     (bhyve(os="<boot dev='network'/>"), "/domain/os/boot"),
     (bhyve(devices=DISK.format("hda", "ide")), "/domain/devices/disk[1]"),
     (bhyve(devices=DISK.format("vda", "virtio").replace("a b", "a,b")), "/domain/devices/disk[1]"),
     (bhyve(os="<loader>/fw/UEFI.fd</loader>"), "/domain/os/loader"),
     (bhyve(devices=DISK.format("vda", "virtio") + "<interface type='user'><model type='virtio'/></interface>"),
      "/domain/devices/interface[1]"),
     (bhyve(devices=DISK.format("vda", "virtio") + "<graphics type='vnc' port='5900'/>"),
      "/domain/devices/graphics[1]"),
     (bhyve(devices=DISK.format("vda", "virtio") + "<serial type='pty'/>"), "/domain/devices/serial[1]"),
     (bhyve(devices=2 * DISK.format("vda", "virtio").replace("</disk>", "<address type='pci' slot='3'/></disk>")),
      "/domain/devices/disk[2]/address")],
)  # fmt: skip
def test_refusal_names_the_element(xml: str, path: str) -> None:
    with pytest.raises(ModelError) as refusal:
        write_bhyve(xml)
    assert refusal.value.path == path


def test_no_text_of_a_document_becomes_a_command_of_its_own() -> None:
    name = "web; rm -rf '$HOME'"
    document = bhyve(os=FIRMWARE).replace("<name>web", f"<name>{name}")
    assert write_bhyve(document).endswith(r"'web; rm -rf '\''$HOME'\'''" + "\n")


@pytest.mark.parametrize("words", [["a", "b c"], ["", 'd"e'], ["$x", "tab\there"]])
def test_words_that_are_joined_are_split_again(words: list[str]) -> None:
    assert split_commands(join(["run", *words])) == [["run", *words]]


def test_hostile_command_lines_end_soon() -> None:
    begin = time.process_time()
    for text in ("'" * 200_001, '"a ' * 100_000, "\\\n" * 200_000, " " * 500_000, f"{BHYVE} " + "-s 2,lpc " * 50_000):
        with pytest.raises(ModelError):
            read_bhyve(text)
    assert time.process_time() - begin < 5


@pytest.mark.parametrize(
    ("disks", "root", "map"),
    [(DISK.format("vda", "virtio"), "hd0,msdos1", "(hd0) /vm/a b.img\n"),
     (DISK.format("sda", "sata") + DISK.format("sdb", "sata").replace("'file'>", "'file' device='cdrom'>", 1), "cd",
      "(hd0) /vm/a b.img\n(cd) /vm/a b.img\n")],
)  # fmt: skip
def test_grub_is_told_what_it_boots_from(disks: str, root: str, map: str) -> None:
    domain = parse_document(bhyve("<bootloader>/usr/local/sbin/grub-bhyve</bootloader>", disks))
    words = loader_command(domain, "device.map")
    assert words[1:5] == ["--root", root, "--device-map", "device.map"]
    assert grub_device_map(domain) == map
