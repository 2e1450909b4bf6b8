"""What machines of other kinds than the PC are completed with; tools/libvirt_data holds it against libvirt's files."""

from __future__ import annotations

import pytest

from hostel.errors import ModelError
from hostel.model.domain.defaults import complete
from hostel.model.domain.devices.address import PciAddress
from hostel.model.domain.devices.controller import ControllerType
from hostel.model.domain.domain import Domain
from hostel.model.domain.inactive import forget_run
from hostel.model.domain.platform import Board, HostAudio, HostDevice, Platform, board_of
from support.domain import QEMU, defined
from support.refused import disk, document

CARD = "<interface type='user'><mac address='52:54:00:00:00:01'/><model type='virtio'/></interface>"
MODERN = "virtio-pci-non-transitional"  # virtio on PCI Express
PLATFORMS = {
    "ppc64": ("pseries", {"spapr-pci-host-bridge", "pci-ohci", "qemu-xhci", "machine.pseries.cap-htm"}),
    "aarch64": ("virt", {"gpex-pcihost", "pcie-root-port", "virtio-mmio", "qemu-xhci", MODERN}),
    "riscv64": ("virt", {"gpex-pcihost", "pcie-root-port", "virtio-mmio", MODERN}),
    "s390x": ("s390-ccw-virtio", {"virtio-ccw", "zpci"}),
    "mips": ("malta", set[str]()),
}


def platform(arch: str) -> Platform:
    machine, features = PLATFORMS[arch]
    return Platform(is_qemu=True, arch=arch, machine=machine, features=frozenset(features))


def machine(arch: str, devices: str = "", **parts: str) -> Domain:
    xml = document(devices, machine=PLATFORMS[arch][0], **parts).replace("arch='x86_64'", f"arch='{arch}'")
    return defined(xml, platform(arch))


def address(domain: Domain, kind: str) -> str:
    device = getattr(domain.devices, kind)[0]
    return device.address.format() if device.address is not None else ""


@pytest.mark.parametrize(
    ("arch", "name", "board"),
    [
        ("x86_64", "pc", Board.I440FX),
        ("x86_64", "pc-i440fx-7.2", Board.I440FX),
        ("x86_64", "pc-q35-7.2", Board.Q35),
        ("i686", "isapc", Board.ISA),
        ("x86_64", "microvm", Board.OTHER),
        ("ppc64le", "pseries-7.2", Board.PSERIES),
        ("ppc64", "mac99", Board.OTHER),
        ("aarch64", "virt-7.2", Board.ARM_VIRT),
        ("armv7l", "versatilepb", Board.VERSATILE),
        ("riscv64", "virt", Board.RISCV_VIRT),
        ("aarch64", "virtual", Board.OTHER),
        ("s390x", "s390-ccw-virtio-7.2", Board.S390_CCW),
        ("mips", "malta", Board.MALTA),
    ],
)
def test_boards_are_known_by_their_machine_types(arch: str, name: str, board: Board) -> None:
    xml = document(machine=name).replace("arch='x86_64'", f"arch='{arch}'")
    assert board_of(Domain.parse(xml)) == board


@pytest.mark.parametrize(
    ("arch", "place"),
    [
        ("ppc64", "<address type='pci' domain='0x0000' bus='0x00' slot='0x01' function='0x0'/>\n"),
        ("aarch64", "<address type='pci' domain='0x0000' bus='0x01' slot='0x00' function='0x0'/>\n"),
        ("riscv64", "<address type='pci' domain='0x0000' bus='0x01' slot='0x00' function='0x0'/>\n"),
        ("s390x", "<address type='ccw' cssid='0xfe' ssid='0x0' devno='0x0000'/>\n"),
    ],
)
def test_cards_go_where_the_machine_has_room(arch: str, place: str) -> None:
    assert address(machine(arch, CARD), "interfaces") == place


def test_arm_without_a_bridge_has_virtio_in_its_memory() -> None:
    xml = document(CARD, machine="virt").replace("arch='x86_64'", "arch='aarch64'")
    domain = defined(xml, platform("aarch64")._replace(features=frozenset({"virtio-mmio"})))
    assert address(domain, "interfaces") == "<address type='virtio-mmio'/>\n"


def test_s390_has_pci_with_numbers_of_its_own() -> None:
    source = "<source><address domain='0' bus='6' slot='1' function='0'/></source>"
    domain = machine("s390x", f"<hostdev mode='subsystem' type='pci' managed='yes'>{source}</hostdev>")
    assert "<zpci uid='0x0001' fid='0x00000000'/>" in address(domain, "hostdevs")


def test_power_puts_its_own_devices_on_its_own_bus() -> None:
    domain = machine("ppc64", "<serial type='pty'/><controller type='scsi'/>")
    assert address(domain, "serials") == "<address type='spapr-vio' reg='0x30000000'/>\n"
    scsi = next(item for item in domain.devices.controllers if item.type == ControllerType.SCSI)
    assert scsi.model == "ibmvscsi"
    assert scsi.address is not None
    assert scsi.address.format() == "<address type='spapr-vio' reg='0x00002000'/>\n"
    root = next(item for item in domain.devices.controllers if item.model == "pci-root")
    assert root.model_name == "spapr-pci-host-bridge"


@pytest.mark.parametrize(
    ("arch", "model"),
    [("x86_64", "isa-serial"), ("aarch64", "pl011"), ("s390x", "sclpconsole"), ("ppc64", "spapr-vty")],
)
def test_serial_ports_are_the_machines(arch: str, model: str) -> None:
    domain = defined(document("<serial type='pty'/>")) if arch == "x86_64" else machine(arch, "<serial type='pty'/>")
    target = domain.devices.serials[0].target
    assert target is not None
    assert target.model == model


def test_interrupt_controller_of_arm_is_the_newest_there_is() -> None:
    body = "<features><gic/></features>"
    xml = document(machine="virt", body=body).replace("arch='x86_64'", "arch='aarch64'")
    found = defined(xml, platform("aarch64")._replace(gic_versions=(2, 3))).features
    assert found is not None
    assert found.gic is not None
    assert found.gic.version in ("2", "3")


def numa(cells: str, vcpus: int = 2) -> Domain:
    return defined(document(head=f"<vcpu>{vcpus}</vcpu>", body=f"<cpu><numa>{cells}</numa></cpu>"))


def test_cells_are_numbered_and_distances_go_both_ways() -> None:
    far = "<distances><sibling id='1' value='21'/></distances>"
    domain = numa(
        f"<cell cpus='0' memory='32' unit='MiB'>{far}</cell><cell cpus='1' memory='32' unit='MiB'/>",
    )
    assert domain.cpu is not None
    assert domain.cpu.numa is not None
    cells = domain.cpu.numa.cells
    assert [cell.id for cell in cells] == [0, 1]
    distances = [
        [(sibling.id, sibling.value) for sibling in cell.distances.siblings] if cell.distances is not None else []
        for cell in cells
    ]
    assert distances == [[(0, 10), (1, 21)], [(0, 21), (1, 10)]]


def test_processors_that_no_cell_has_are_the_first_ones() -> None:
    domain = numa("<cell id='0' cpus='0' memory='32' unit='MiB'/><cell id='1' cpus='1' memory='32' unit='MiB'/>", 4)
    assert domain.cpu is not None
    assert domain.cpu.numa is not None
    assert [cell.cpus for cell in domain.cpu.numa.cells] == ["0,2-3", "1"]


def test_shares_of_caches_are_of_processors_that_there_are() -> None:
    cache = "<cache id='0' level='3' type='both' size='3' unit='MiB'/>"
    tunes = (
        f"<cachetune vcpus='0-7'>{cache}</cachetune><cachetune vcpus='4-7'>{cache}</cachetune><cachetune vcpus='1'/>"
    )
    domain = defined(document(head="<vcpu>2</vcpu>", body=f"<cputune>{tunes}</cputune>"))
    assert domain.cputune is not None
    assert [item.vcpus for item in domain.cputune.cachetunes] == ["0-1"]


@pytest.mark.parametrize(
    ("path", "is_kept"),
    [
        ("/var/lib/libvirt/qemu/channel/target/domain-1-g/c", False),
        ("/var/lib/libvirt/qemu/channel/target/g.c", False),
        ("/var/lib/libvirt/qemu/channel/target/domain-1-g/other", True),
        ("/run/mine/c", True),
    ],
)
def test_sockets_that_starting_made_are_forgotten(path: str, *, is_kept: bool) -> None:
    channel = f"<channel type='unix'><source mode='bind' path='{path}'/><target type='virtio' name='c'/></channel>"
    assert bool(defined(document(channel)).devices.channels[0].sources) == is_kept


def test_guests_are_heard_where_the_host_says() -> None:
    sound = "<sound model='ich6'/>"
    assert "<audio id='1' type='none'/>" in defined(document(sound)).format()
    assert "<audio id='1' type='spice'/>" in defined(document(f"{sound}<graphics type='spice'/>")).format()
    heard = QEMU._replace(audio=HostAudio(driver="pulseaudio", without_graphics=True))
    assert "<audio id='1' type='pulseaudio'/>" in defined(document(sound), heard).format()


def test_devices_of_different_groups_of_the_hosts_are_on_different_buses_of_power() -> None:
    source = "<source><address domain='{}' bus='1' slot='0' function='0'/></source>"
    hostdev = f"<hostdev mode='subsystem' type='pci'>{source}</hostdev>"
    hosts = {f"{number:04x}:01:00.0": HostDevice(group, False) for number, group in ((1, 1), (2, 2))}
    xml = document(hostdev.format(1) + hostdev.format(2), machine="pseries").replace("x86_64", "ppc64")
    domain = defined(xml, platform("ppc64")._replace(host_devices=hosts))
    roots = [item for item in domain.devices.controllers if item.model == "pci-root"]
    assert len(roots) == 3
    buses = [item.address.bus for item in domain.devices.hostdevs if isinstance(item.address, PciAddress)]
    assert len(set(buses)) == 2


@pytest.mark.parametrize("kind", ["vnc", "spice"])
def test_screen_that_is_seen_keeps_the_port_that_it_got(kind: str) -> None:
    domain = Domain.parse(document(f"<graphics type='{kind}' port='5907' autoport='yes'/>", root=" id='1'"))
    complete(domain, QEMU, is_live=True)
    assert domain.devices.graphics[0].port == 5907
    forget_run(domain)
    complete(domain, QEMU)
    assert domain.devices.graphics[0].port in (None, -1)


@pytest.mark.parametrize(
    ("loader", "nvram", "path"),
    [
        ("readonly='yes' type='pflash'", "", "/vars/g_VARS.fd"),
        ("readonly='yes' type='pflash'", "<nvram template='/t'/>", "/vars/g_VARS.fd"),
        ("readonly='yes' type='pflash'", "<nvram>/mine</nvram>", "/mine"),
        ("type='pflash'", "", None),
        ("readonly='yes' type='pflash' stateless='yes'", "", None),
        ("readonly='yes' type='rom'", "", None),
    ],
)
def test_firmware_gets_a_file_for_its_variables(loader: str, nvram: str, path: str | None) -> None:
    xml = document(os=f"<loader {loader}>/x</loader>{nvram}", body="<features><acpi/></features>")
    os = defined(xml, QEMU._replace(nvram_directory="/vars")).os
    assert os is not None
    assert (os.nvram.path if os.nvram is not None else None) == path


def test_mirror_says_in_old_words_what_it_says_in_new_ones() -> None:
    domain = Domain.parse(document(disk(more="<mirror type='file' job='copy'><source file='/m'/></mirror>")))
    complete(domain, QEMU, is_live=True)
    mirror = domain.devices.disks[0].mirror
    assert mirror is not None
    assert mirror.format().startswith("<mirror type='file' file='/m' format='raw' job='copy'>")


def test_machine_without_pci_takes_no_pci_device() -> None:
    with pytest.raises(ModelError):
        defined(document("<watchdog model='i6300esb'/>", machine="isapc"))
