"""The command line of virt-install: its options in their groups."""

from __future__ import annotations

import argparse
from typing import Any, Final, NamedTuple

VERSION: Final = "4.1.0"  # the virt-install whose command line this is
USAGE: Final = "%(prog)s --name NAME --memory MB STORAGE INSTALL [options]"
DESCRIPTION: Final = "Make a virtual machine, and install a system in it or boot the one it has."
EPILOG: Final = "'--option=?' or '--option help' lists what an option takes in turn."
BARE: Final = True  # what an option is that stands without its value


class _Option(NamedTuple):
    flags: tuple[str, ...]
    help: str | None
    settings: dict[str, Any] = {}


def _many(*flags: str, help: str | None = None, **settings: Any) -> _Option:
    return _Option(flags, help, {"action": "append", **settings})


def _one(*flags: str, help: str | None = None, **settings: Any) -> _Option:
    return _Option(flags, help, settings)


def _flag(*flags: str, help: str | None = None, **settings: Any) -> _Option:
    return _Option(flags, help, {"action": "store_true", **settings})


_GENERAL: Final = (
    _one("-n", "--name", help="name of the machine"),
    _many("--memory", help="memory in MiB: --memory 1024, --memory memory=1024,maxmemory=2048"),
    _one("-r", "--ram", type=int, dest="ram"),
    _many("--vcpus", help="processors: --vcpus 2, --vcpus 2,maxvcpus=4, --vcpus sockets=1,cores=2,threads=2"),
    _many("--cpu", help="model and features: --cpu host, --cpu host-passthrough, --cpu Skylake-Client,+vmx"),
    _flag("--check-cpu"),
    _one("--cpuset"),
    _many("--metadata", help="what is written about it: --metadata title=Web,description='Our first'"),
    _many("--xml", help="change the final XML: --xml ./cpu/@mode=maximum, --xml xpath.delete=./clock"),
    _one("-u", "--uuid"),
    _one("--description"),
)
_INSTALLATION: Final = (
    _one("-c", dest="cdrom_short"),
    _one("--cdrom", help="install from this CD-ROM image or drive"),
    _flag("--livecd"),
    _flag("--pxe", help="boot from the network"),
    _one("-l", "--location", help="install from a tree: --location https://host/path, a directory or a CD-ROM image"),
    _many("-x", "--extra-args", help="what the kernel of --location is told"),
    _many("--initrd-inject", help="a file to put into its initial RAM disk"),
    _one("--install", help="how it is installed: --install kernel=,initrd=,kernel_args=, --install bootdev=network"),
    _one("--cloud-init", nargs="?", const=BARE, help="what cloud-init does at first boot: --cloud-init ssh-key=FILE"),
    _one("--reinstall", metavar="DOMAIN", help="install into this machine again, which keeps its disks and devices"),
    _one("--unattended", nargs="?", const=BARE, help=argparse.SUPPRESS),
    _flag("--import", help="there is a system on the disk already", dest="import_install"),
    _many("--boot", help="what is booted: --boot hd,cdrom,menu=on, --boot kernel=/vmlinuz,cmdline='console=ttyS0'"),
)
_SYSTEM: Final = (
    _one(
        "--os-variant",
        "--osinfo",
        dest="os_variant",
        help="the operating system, which says what devices it can drive; 'list' lists those known",
    ),
    _one("--os-type", dest="old_os_type"),
)
_DEVICES: Final = (
    _many("--disk", help="a disk: --disk size=10, --disk /images/a.qcow2,bus=virtio,cache=none, --disk none"),
    _many("-w", "--network", help="an interface: --network user, --network bridge=br0,model=virtio, --network none"),
    _many("--graphics", help="a display: --graphics vnc,listen=127.0.0.1,port=5901, --graphics none"),
    _many("--controller", help="a controller: --controller scsi,model=virtio-scsi"),
    _many("--input", help="an input device: --input tablet, --input keyboard,bus=usb"),
    _many("--serial", help="a serial port: --serial pty, --serial file,path=/tmp/log"),
    _many("--parallel", help="a parallel port"),
    _many("--channel", help="a channel between guest and host"),
    _many("--console", help="a text console: --console pty,target.type=virtio"),
    _many("--sound", help="a sound card", nargs="?", const="default"),
    _many("--soundhw", dest="sound"),
    _many("--watchdog", help="a watchdog: --watchdog i6300esb,action=reset"),
    _many("--video", help="a graphics card: --video vga"),
    _many("--redirdev", help="a USB port that a viewer plugs devices into"),
    _many("--memballoon", help="memory that can be taken back: --memballoon model=none"),
    _many("--tpm", help="a trusted platform module"),
    _many("--hostdev", "--host-device", help="a device of the host: --hostdev 0:1a:0.0, --hostdev usb_1_2"),
    _many("--filesystem", help="a directory of the host: --filesystem /source,/target"),
    _many("--audio", help="where sound goes on the host: --audio id=1,type=spice"),
    _many("--smartcard", help="a smart card: --smartcard mode=passthrough"),
    _many("--shmem", help="memory that machines share: --shmem name=shmem_server"),
    _many("--memdev", help="a module of memory: --memdev dimm,target.size=1024"),
    _many("--iommu", help="an IOMMU: --iommu model=intel"),
    _many("--rng", help="random numbers: --rng /dev/urandom"),
    _many("--panic", help="a device that reports a crash"),
    _many("--vsock", help="sockets between guest and host: --vsock cid.auto=yes"),
    _many("-f", "--file", dest="file_paths"),
    _many("-s", "--file-size", type=float, dest="disksize"),
    _one("--nonsparse", action="store_false", default=True, dest="sparse"),
    _flag("--nodisks"),
    _flag("--nonetworks"),
    _many("-b", "--bridge"),
    _many("-m", "--mac"),
    _flag("--vnc"),
    _one("--vncport", type=int),
    _one("--vnclisten"),
    _one("-k", "--keymap"),
    _flag("--sdl"),
    _flag("--nographics"),
)
_MACHINE: Final = (
    _many("--features", help="features of the machine: --features acpi=off"),
    _many("--clock", help="its clock: --clock offset=localtime"),
    _many("--pm", help="how it may sleep"),
    _many("--events", help="what follows when it stops: --events on_reboot=destroy"),
    _many("--iothreads", help="threads for the input and output of disks: --iothreads 2"),
    _many("--seclabel", "--security", help="its security label: --seclabel type=static,label='user:role:type:level'"),
    _many("--keywrap", help="how keys are wrapped on a mainframe"),
    _many("--cputune", help="tuning of its processors: --cputune vcpupin0.vcpu=0,vcpupin0.cpuset=0-3"),
    _many("--numatune", help="where its memory is taken from: --numatune 1-3,mode=strict"),
    _many("--memtune", help="limits of its memory"),
    _many("--blkiotune", help="its share of the disks: --blkiotune weight=500"),
    _many("--memorybacking", help="how its memory is backed: --memorybacking hugepages=on"),
    _many("--resource", help="the group of resources it is counted in: --resource /machine/production"),
    _many("--sysinfo", help="what its firmware says it is: --sysinfo system.serial=1234"),
    _many("--qemu-commandline", help="arguments for QEMU itself: --qemu-commandline='-display gtk'"),
    _many("--launchSecurity", "--launchsecurity", help="encryption of its memory: --launchSecurity sev"),
    _many("--idmap", help="whose the users of a container are: --idmap uid.start=0,uid.target=1000,uid.count=10"),
)
_PLATFORM: Final = (
    _one(
        "-v", "--hvm", action="store_const", const="hvm", dest="os_type", help="a whole machine, which is the default"
    ),
    _one("-p", "--paravirt", action="store_const", const="xen", dest="os_type", help="a kernel made for Xen"),
    _one("--container", action="store_const", const="exe", dest="os_type", help="a container"),
    _one("--init"),
    _one("--virt-type", help="how it is run: kvm, or qemu where KVM runs no guest"),
    _one("--arch", help="the architecture to simulate"),
    _one("--machine", help="the type of machine: pc, q35"),
    _flag("--accelerate"),
    _flag("--noapic"),
    _flag("--noacpi"),
)
_OTHER: Final = (
    _flag("--autostart", help="start it with the connection's driver"),
    _flag("--transient", help="forget it when it stops"),
    _flag("--destroy-on-exit", help="stop it when its console is closed"),
    _one("--wait", type=int, const=-1, nargs="?", help="wait so many minutes for the installation; without end as -1"),
    _flag("--prompt"),
    _flag("--force"),
    _one("--autoconsole", default="default", help="connect to its console: text, graphical, none"),
    _one("--noautoconsole", action="store_const", const="none", dest="autoconsole", help="do not connect to a console"),
    _flag("--noreboot", help="leave it off after the installation"),
    _one(
        "--print-xml",
        dest="xmlonly",
        default=False,
        nargs="?",
        const="all",
        help="only print the XML: of step 1, 2 or all",
    ),
    _one("--print-step", dest="xmlstep"),
    _flag("--dry-run", dest="dry", help="go through everything, and make nothing"),
    _many("--check", help="leave a check out: --check path_in_use=off, --check all=off"),
    _flag("-q", "--quiet", help="print errors only"),
    _flag("-d", "--debug", help="print what is done, and the XML"),
)
GROUPS: Final = (
    ("General options", _GENERAL),
    ("Installation", _INSTALLATION),
    ("Operating system", _SYSTEM),
    ("Devices", _DEVICES),
    ("Machine", _MACHINE),
    ("Platform", _PLATFORM),
    ("Other options", _OTHER),
)


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    made = argparse.ArgumentParser(
        prog="virt-install",
        usage=USAGE,
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--version", action="version", version=VERSION)
    made.add_argument("--connect", metavar="URI", help="the hypervisor: qemu:///session, test:///default")
    for title, options in GROUPS:
        group = made.add_argument_group(title)
        for option in options:
            # Old spellings are taken, and not shown.
            group.add_argument(*option.flags, help=option.help or argparse.SUPPRESS, **option.settings)
    return made
