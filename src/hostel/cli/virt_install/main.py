"""Start of ``hostel virt-install``: from the command line to a plan, and to its XML or to the machine itself."""

from __future__ import annotations

import os
import select
import sys
from argparse import Namespace
from collections.abc import Mapping
from typing import Final

import hostel
from hostel.cli.output import Output
from hostel.cli.virt_install import disk, existing, general, network, oshardware, osinfo, registry, storage
from hostel.cli.virt_install.arguments import BARE, parser
from hostel.cli.virt_install.console import warn
from hostel.cli.virt_install.database import Database, name_of
from hostel.cli.virt_install.guest import Guest
from hostel.cli.virt_install.host import Host
from hostel.cli.virt_install.install import Installation
from hostel.cli.virt_install.legacy import convert
from hostel.cli.virt_install.location import LOCATION
from hostel.cli.virt_install.media import INSTALL, Media, Start
from hostel.cli.virt_install.option import Option
from hostel.cli.virt_install.plan import Method, Plan, cdrom_medium
from hostel.cli.virt_install.seed import CLOUD_INIT, Seed
from hostel.cli.virt_install.storage import Storage
from hostel.cli.virt_install.suboption import Kind, Refusal, Sub, SubOptions, on_off
from hostel.cli.virt_install.unattended import UNATTENDED, Source, Unattended
from hostel.drivers.document import canonical_uuid
from hostel.drivers.store import Directories
from hostel.errors import HostelError, UsageError
from hostel.objects import Connection

URI_VARIABLES: Final = ("LIBVIRT_DEFAULT_URI", "HOSTEL_URI")
DEFAULT_URI: Final = "qemu:///session"
METHODS: Final = "--location URL, --cdrom CD/ISO, --pxe, --import, --boot hd|cdrom|..."
_PASSWORD_TIME: Final = 10  # seconds to read a generated password in
_CONTAINER_MEMORY: Final = 1024  # MiB
_LOW_MEMORY: Final = 17  # MiB: less than this was meant to be GiB

CHECK: Final = SubOptions(
    "--check",
    tuple(Sub(name) for name in ("path_in_use", "disk_size", "path_exists", "mac_in_use", "trust", "all")),
    clears=False,
)
OSINFO: Final = SubOptions(
    "--os-variant",
    (Sub("name"), Sub("short-id"), Sub("id"), Sub("detect", kind=Kind.YES_NO), Sub("require", kind=Kind.YES_NO)),
    clears=False,
)
_LISTINGS: Final[dict[str, SubOptions]] = {
    **registry.tables(),
    "check": CHECK,
    "os_variant": OSINFO,
    "location": LOCATION,
    "install": INSTALL,
    "cloud-init": CLOUD_INIT,
    "unattended": UNATTENDED,
}


def main(words: list[str]) -> int:
    """Run virt-install; returns its exit code."""
    try:
        options = parser().parse_args(words)
    except SystemExit as error:  # argparse has printed what is wrong, or the help
        return error.code if isinstance(error.code, int) else 1
    if options.xmlstep:
        options.xmlonly = options.xmlstep
    output = Output(quiet=bool(options.xmlonly) or options.quiet)
    if explained(options, _LISTINGS, output):
        return 0
    for message in convert(options):
        warn(output, message)
    defaults = (os.environ.get(name) for name in URI_VARIABLES)
    uri = options.connect or next(filter(None, defaults), DEFAULT_URI)
    with hostel.open(uri) as connection:
        return run(connection, options, output)


def run(connection: Connection, options: Namespace, output: Output) -> int:
    """Make the machine that the options describe, or print its XML; returns the exit code."""
    command = _Command(connection, options, output)
    with command.media:
        plan = command.plan()
        if options.xmlonly or options.dry:
            return command.show(plan)
        return Installation(connection, command.storage, plan, options, output, command.tell_password).run()


def explained(options: Namespace, listings: Mapping[str, SubOptions], output: Output) -> bool:
    """Whether only an explanation was asked for: ``--disk=?``, ``--osinfo list``."""
    found = False
    for name, table in listings.items():
        given = getattr(options, name.replace("-", "_"))
        for text in given if isinstance(given, list) else [given]:
            if text in ("?", "help"):
                output.line(table.listing())
                found = True
    if options.os_variant == "list" and not found:
        for line in osinfo.listing():
            output.line(line)
        found = True
    return found


def checks(texts: list[str]) -> dict[str, bool]:
    """Read ``--check``: which checks are made.

    Raises:
        UsageError: there is no such check, or its value is none.
    """
    found: dict[str, bool] = {}
    for text in texts:
        for name, value in CHECK.read(text).items():
            if CHECK.find(name) is None:
                raise Refusal(f"Unknown --check options: ['{name}']")
            if value is None:
                raise UsageError(f"Error: --check {text}: Option '{name}' had no value set.")
            found[name] = on_off(name, value)
    return found


class _Command:
    """One command line on one connection."""

    def __init__(self, connection: Connection, options: Namespace, output: Output) -> None:
        self.options = options
        self.output = output
        self.checks = checks(options.check or [])
        self.host = Host(connection)
        self.storage = Storage(connection, images(self.host))
        scratch = Directories.from_environment(os.environ).cache / "boot"
        self._database = Database.of_host(os.environ)
        wants_answers = bool(options.unattended) and options.unattended != "none"
        given = "" if options.unattended is BARE else options.unattended
        self._unattended = Unattended(given, self._database) if wants_answers else None
        self.media = Media(
            scratch, self.storage, options, self._database, self._unattended, output, is_remote=self.host.is_remote
        )
        self._seed: Seed | None = None
        self._doubts: list[str] = []
        self._readers: dict[str, Option] = {}

    def plan(self) -> Plan:
        """Turn the command line into a plan.

        Raises:
            UsageError: it is wrong or says too little.
        """
        options, output = self.options, self.output
        if options.reinstall:
            return self._plan_again()
        guest = self._guest()
        plan = Plan(guest, self._method(guest))
        self._choose_system(plan)
        if not guest.name:
            guest.domain.put("name", self._free_name(guest))
            output.note(f"Using default --name {guest.name}")
        for name, option in self._readers.items():
            if name not in registry.EARLY:
                self._read(name, guest, option)
        guest.domain.edits += [registry.read_xml(text) for text in options.xml or [] if text]
        self._fill_recommended(guest)
        warnings = plan.complete()
        self._check_disks(guest)
        self._check_addresses(guest)
        self._require(plan)
        self._answer(plan)
        self._want_memory(plan)
        for message in [*self._doubts, *guest.warnings, *self._doubts_about(guest), *warnings]:
            warn(output, message)
        return plan

    def _plan_again(self) -> Plan:
        """The plan of ``--reinstall``: the machine stays as it is, but for how it boots this once."""
        options = self.options
        domain = existing.find(self.host.connection, options.reinstall)
        for flag in existing.needless(options):
            warn(self.output, f"{flag} is not looked at with --reinstall: virt-xml changes machines")
        guest = existing.read(self.host, self.storage, domain)
        plan = Plan(guest, self._method(guest), is_again=True)
        self._choose_system(plan)
        self._require(plan)
        if not options.xmlonly and not options.dry:
            existing.check_stopped(domain)
        warnings = plan.complete()
        self._answer(plan)
        for message in [*self._doubts_about(guest), *warnings]:
            warn(self.output, message)
        return plan

    def _guest(self) -> Guest:
        options = self.options
        guest = Guest(self.host, self.storage)
        self._readers = registry.options(guest)
        for path, value in (
            ("name", options.name),
            ("uuid", options.uuid),
            ("description", options.description),
            ("os/type", options.os_type),
            ("@type", options.virt_type),
            ("os/type/@arch", options.arch),
            ("os/type/@machine", options.machine),
        ):
            if value:
                guest.domain.put(path, value)
        for name in registry.EARLY:
            self._read(name, guest, self._readers[name])
        if (uuid := guest.domain.get("uuid")) is not None and canonical_uuid(uuid) is None:
            raise UsageError(f"malformed uuid '{uuid}'; write it as 8-4-4-4-12 hexadecimal digits")
        is_open = guest.domain.get("@type") is None and guest.domain.get("os/type") is None
        platform = guest.resolve()
        if is_open and self.host.is_qemu and guest.is_x86 and platform.type != "kvm":
            warn(self.output, f"KVM acceleration not available, using '{platform.type}'")
        return guest

    def _fill_recommended(self, guest: Guest) -> None:
        """Give the machine what its system wants, where the user says nothing about it."""
        has_memory = any(guest.domain.has(path) for path in ("memory", "currentMemory", "cpu/numa/cell"))
        if guest.is_container:
            if not has_memory:
                self.output.note(f"Using container default --memory {_CONTAINER_MEMORY}")
                self._give(guest, "memory", str(_CONTAINER_MEMORY))
            return
        if self._unattended is not None:
            self._unattended.add_drivers(guest)
        hardware = guest.hardware
        if hardware.memory and not has_memory:
            self.output.note(f"Using {guest.system.name} default --memory {hardware.memory}")
            self._give(guest, "memory", str(hardware.memory))
        if hardware.vcpus > 1:
            general.spread_vcpus(guest, hardware.vcpus)
        if hardware.storage and not self._has_storage(guest):
            self.output.note(f"Using {guest.system.name} default --disk size={hardware.storage}")
            self._give(guest, "disk", f"size={hardware.storage}")
            self.options.disk = [f"size={hardware.storage}"]

    def _give(self, guest: Guest, name: str, text: str) -> None:
        self._readers[name].read(guest, text)

    def _has_storage(self, guest: Guest) -> bool:
        return guest.is_container or bool(self.options.disk or self.options.filesystem)

    def tell_password(self) -> None:
        """Say the password that was generated, and give the user time to read it."""
        if self._seed is None or self._seed.password is None:
            return
        self.output.line(f"Password for first root login is: {self._seed.password}")
        if sys.stdin is not None and sys.stdin.isatty():
            self.output.line(f"Installation will continue in {_PASSWORD_TIME} seconds (press Enter to skip)...")
            self.output.out.flush()
            select.select([sys.stdin], [], [], _PASSWORD_TIME)

    def _method(self, guest: Guest) -> Method:
        """How the system gets onto the machine, with what it starts from fetched."""
        options = self.options
        start = self.media.start(guest.arch)
        made = self.media.seed()
        seed: str | None = None
        if made is not None:
            self._seed, seed = made
            if self._seed.password and options.cloud_init is BARE:
                warn(self.output, "Defaulting to --cloud-init root-password-generate=yes,disable=yes")
        method = self._medium_of(start)
        return method if seed is None else method._replace(seed=seed, is_chosen=True)

    def _answer(self, plan: Plan) -> None:
        """Make what answers the installer, and put it where that looks for it."""
        if self._unattended is None:
            return
        guest, method = plan.guest, plan.method
        if method.start is not None:
            start = method.start
            source = Source("initrd", start.tree, start.medium.path if start.medium is not None else None, start.note)
            made = self._unattended.answers(guest, source)
            plan.method = method._replace(start=self.media.answered(start, made))
        else:
            medium = method.cdrom
            is_file = medium is not None and medium.type == "file"
            made = self._unattended.answers(guest, Source("cdrom", medium=medium.path if medium and is_file else None))
            path = self.media.disc(made.files, self._unattended.drivers(guest))
            plan.method = method._replace(answers=path)
        self._doubts += made.warnings

    def _want_memory(self, plan: Plan) -> None:
        """Give the installation the memory that it needs over a network, where the machine has less."""
        start, guest = plan.method.start, plan.guest
        if start is None or not self._needs_network(start):
            return
        system = self._database.system(guest.system.name)
        needed = system.network_memory(guest.arch) if system is not None else 0
        if needed > int(guest.domain.get("currentMemory") or guest.domain.get("memory") or 0):
            self._doubts.append(
                f"Overriding memory to {needed // 1024} MiB needed for {guest.system.name} network install."
            )
            plan.method = plan.method._replace(memory=needed)

    def _needs_network(self, start: Start) -> bool:
        if start.medium is None:
            return start.tree is not None
        told = osinfo.describe(start.medium.path)
        medium = self._database.identify(told) if told is not None else None
        return medium is not None and any("netinst" in each.get("id", "") for each in medium.iterfind("variant"))

    def _medium_of(self, start: Start | None) -> Method:
        options = self.options
        given = self.media.install() if options.install else {}
        no_install = on_off("no_install", given.get("no_install") or "no")
        boot = given.get("bootdev") or ("network" if options.pxe else None)
        if start is not None:
            return Method(boot=boot, installs=not no_install, is_chosen=True, start=start)
        if options.cdrom:
            medium = cdrom_medium(self.storage, options.cdrom)
            return Method(medium, "cdrom", installs=not options.livecd and not no_install, is_chosen=True)
        if options.pxe:
            return Method(boot="network", installs=not no_install, is_chosen=True)
        if given:
            return Method(boot=boot, installs=bool(boot) and not no_install, is_chosen=bool(boot) or no_install)
        chosen = bool(options.import_install or options.xmlonly or options.boot or self._unattended)
        return Method(is_chosen=chosen)

    def _read(self, name: str, guest: Guest, option: Option) -> None:
        for text in getattr(self.options, name.replace("-", "_")) or []:
            if not text:
                continue
            try:
                option.read(guest, text)
            except Refusal:
                raise
            except HostelError as error:
                raise UsageError(f"Error: --{name} {text}: {error}") from error

    def _choose_system(self, plan: Plan) -> None:
        """Take the operating system that was named, or the medium's, or assume one; and say so."""
        name, detects, requires = read_osinfo(self.options.os_variant or self.media.install().get("os"))
        guest = plan.guest
        if name is not None:
            system = osinfo.find(name)
            if not system.is_known:
                self._doubts.append(f"OS name '{name}' is not in the list of --osinfo list: using generic devices.")
            guest.set_system(system)
        medium = plan.method.cdrom
        found = self._told_by(medium.path) if detects and medium is not None and medium.type == "file" else None
        start = plan.method.start
        if detects and start is not None and start.system is not None and osinfo.find(start.system).is_known:
            found = start.system
        if found is not None:
            guest.set_system(osinfo.find(found))
        if name is not None or found is not None or not guest.is_hvm or not guest.system.is_generic:
            return
        if requires:
            raise UsageError(
                "--os-variant/--osinfo OS name is required, but no value was set or detected; "
                "--osinfo list lists the names"
            )
        if requires is None and self.host.is_qemu and not plan.is_again:
            guest.set_system(osinfo.find(osinfo.ASSUMED))
            self._doubts.append(
                f"No --osinfo given: assuming {osinfo.ASSUMED}, with virtio devices. "
                "Name the system if that is wrong: --osinfo win10, or --osinfo generic for what every system knows.",
            )

    def _told_by(self, path: str) -> str | None:
        """The name of the system on a CD-ROM, which libosinfo's database knows best."""
        told = osinfo.describe(path)
        medium = self._database.identify(told) if told is not None else None
        name = name_of(medium) if medium is not None else None
        return name if name is not None and osinfo.find(name).is_known else osinfo.detect(path)

    def _free_name(self, guest: Guest) -> str:
        is_generic = guest.system.is_generic
        base = ("container" if guest.is_container else "vm") if is_generic else guest.system.name
        base = base.removesuffix("-unknown")
        arch = guest.domain.get("os/type/@arch")
        is_foreign = arch != self.host.arch
        if is_foreign:
            base += f"-{'arm' if arch == 'armv7l' else arch}"
        names = {domain.name for domain in self.host.connection.domains()}
        if is_generic and not is_foreign:
            number = 1
            while f"{base}{number}" in names:
                number += 1
            return f"{base}{number}"
        name, number = base, 2
        while name in names:
            name, number = f"{base}-{number}" if not is_generic else f"{base}{number}", number + 1
        return name

    def _check(self, name: str, problem: str) -> None:
        """Refuse, or only warn where the user said so."""
        if self.checks.get("all", self.checks.get(name, True)):
            raise UsageError(f"{problem} (Use --check {name}=off or --check all=off to override)")
        warn(self.output, problem)

    def _check_disks(self, guest: Guest) -> None:
        for part in disk.disks(guest):
            if part.medium is not None:
                is_shared, is_read = part.get("shareable") is not None, part.get("readonly") is not None
                path = part.medium.path
                users = storage.users_of(self.host.connection, path, shareable=is_shared, read_only=is_read)
                if users:
                    self._check("path_in_use", f"Disk {path} is already in use by other guests {users}.")
                doubt = storage.doubt_about(self.host.connection, part.medium)
                if doubt is not None:
                    self._check("trust", f"Disk {path} is not taken as it is: {doubt}.")
            problem = None if part.new is None else self.storage.excess(part.new)
            if problem is not None:
                self._check("disk_size", problem)

    def _check_addresses(self, guest: Guest) -> None:
        used = network.used_addresses(guest)
        for part in guest.devices["interface"]:
            address = part.get("mac/@address") or ""
            if address.lower() in used:
                self._check("mac_in_use", f"The MAC address '{address}' is in use by another virtual machine.")

    def _require(self, plan: Plan) -> None:
        guest, missing = plan.guest, ""
        if not plan.is_again and not any(
            guest.domain.has(path) for path in ("memory", "currentMemory", "cpu/numa/cell")
        ):
            missing += "\n--memory amount in MiB is required"
        if not plan.is_again and not self._has_storage(guest):
            missing += "\n--disk storage must be specified (override with --disk none)"
        if not plan.method.is_chosen and not guest.is_container:
            missing += f"\nAn install method must be specified\n({METHODS})"
        if missing:
            raise UsageError(missing)

    def _doubts_about(self, guest: Guest) -> list[str]:
        doubts: list[str] = []
        if self.options.pxe and not any(part.get("@type") != "user" for part in guest.devices["interface"]):
            doubts.append("The guest's network configuration may not support PXE")
        if guest.system.is_generic and guest.is_hvm:
            doubts.append(
                "Using --osinfo generic, VM performance may suffer. Specify an accurate OS for optimal results."
            )
        mebibytes = int(guest.domain.get("currentMemory") or guest.domain.get("memory") or 0) // 1024
        system = self._database.system(guest.system.name) if mebibytes and not guest.system.is_generic else None
        least = oshardware.least_memory(self._database, system, guest.arch) if system is not None else 0
        if 0 < mebibytes < least:
            doubts.append(
                f"Requested memory {mebibytes} MiB is less than the recommended {least} MiB for OS {guest.system.name}"
            )
        elif 0 < mebibytes < _LOW_MEMORY and guest.domain.get("currentMemory") is not None:
            doubts.append(f"Requested memory {mebibytes} MiB is abnormally low. Were you trying to specify GiB?")
        return doubts

    def show(self, plan: Plan) -> int:
        """Print the XML, or that everything went well; returns the exit code.

        Raises:
            UsageError: there is no such step.
        """
        first, last = plan.documents()
        step = self.options.xmlonly
        if not step:
            plan.check()
            self.output.note("Dry run completed successfully")
            return 0
        if step not in ("1", "2", "all"):
            raise UsageError(f"Unknown XML step request '{step}', must be 1, 2, or all")
        if step == "2" and first is None:
            raise UsageError("Requested installation does not have XML step 2")
        texts = {"1": [first or last], "2": [last], "all": [first or "", last]}[step]
        self.output.line("".join(texts))
        return 0


def images(host: Host) -> str:
    """Where the volumes of the default pool are."""
    if host.is_qemu:
        return str(Directories.of_uri(host.connection.uri, os.environ).data / "images")
    return "/var/lib/libvirt/images"


def read_osinfo(text: str | None) -> tuple[str | None, bool, bool | None]:
    """Read ``--osinfo``: the name, whether the medium is asked, whether one is required (None: left open)."""
    if text is None or text == "auto":
        return None, True, None
    if "=" not in text:
        if text == "none":
            return osinfo.GENERIC, False, None
        return (_by_identifier(text) if "://" in text else text), False, None
    given = OSINFO.read(text)
    unknown = [name for name in given if OSINFO.find(name) is None]
    if unknown:
        raise Refusal(f"Unknown --os-variant options: {unknown}")
    name = given.get("name") or given.get("short-id")
    if identifier := given.get("id"):
        name = _by_identifier(identifier)
    detects = on_off("detect", given.get("detect") or "no")
    requires = on_off("require", given.get("require") or "no")
    return name, detects, requires


def _by_identifier(identifier: str) -> str:
    system = osinfo.find_identifier(identifier)
    if system is None:
        raise UsageError(f"Unknown libosinfo ID '{identifier}'")
    return system.name
