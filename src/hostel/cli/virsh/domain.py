"""Domain management: define, start, stop, undefine."""

from __future__ import annotations

from collections.abc import Callable

from hostel.cli.options import Args, Command, data, flag, value
from hostel.cli.virsh import document
from hostel.cli.virsh.descriptors import descriptors
from hostel.cli.virsh.domain_monitor import is_saved
from hostel.cli.virsh.session import DOMAIN, VALIDATE, CommandError, Session, failing, read_document, validated
from hostel.drivers.base import DestroyFlag, DomainRef, DomainXmlFlag, ShutdownFlag, StartFlag
from hostel.drivers.base.files import AssociationDriver, FilesDriver
from hostel.drivers.base.offered import offered
from hostel.drivers.base.saving import SaveDriver
from hostel.errors import ErrorCode, UsageError, VirtError

FILE = data("file", "file with the XML document")
CONSOLE = flag("console", "connect to its console")
PAUSED = flag("paused", "leave it paused")
AUTODESTROY = flag("autodestroy", "end it when this virsh ends")
_MODES = {
    "acpi": ShutdownFlag.ACPI, "agent": ShutdownFlag.AGENT, "initctl": ShutdownFlag.INITCTL,
    "signal": ShutdownFlag.SIGNAL, "paravirt": ShutdownFlag.PARAVIRT,
}  # fmt: skip


def _define(session: Session, args: Args) -> None:
    xml = read_document(args["file"])
    with failing(f"Failed to define domain from {args['file']}"):
        domain = session.hypervisor.domain_define_xml(validated(args, xml, "domain"))
    session.output.note(f"Domain '{domain.name}' defined from {args['file']}")


def _create(session: Session, args: Args) -> None:
    xml, files = read_document(args["file"]), descriptors(args)
    with failing(f"Failed to create domain from {args['file']}"):
        xml = validated(args, xml, "domain")
        if files:
            driver = offered(session.hypervisor, FilesDriver, "virDomainCreateXMLWithFiles")
            domain = driver.domain_create_xml_with_files(xml, files, _start_flags(args))
        else:
            domain = session.hypervisor.domain_create_xml(xml, _start_flags(args))
    _look_after(session, domain, args)
    session.output.note(f"Domain '{domain.name}' created from {args['file']}")
    _attach(session, domain, args)


def _associate(session: Session, args: Args) -> None:
    domain = session.domain(args)
    files = descriptors(args)
    driver = offered(session.hypervisor, AssociationDriver, "virDomainFDAssociate")
    driver.domain_fd_associate(domain, args["name"], files)


def _start_flags(args: Args) -> StartFlag:
    bits = {
        "paused": StartFlag.PAUSED, "autodestroy": StartFlag.AUTODESTROY, "bypass-cache": StartFlag.BYPASS_CACHE,
        "force-boot": StartFlag.FORCE_BOOT, "reset-nvram": StartFlag.RESET_NVRAM,
    }  # fmt: skip
    return args.flags(StartFlag.NONE, bits)


def _start(session: Session, args: Args) -> None:
    domain = session.domain(args, by_id=False)
    if domain.id != -1:
        raise CommandError("Domain is already active")
    files = descriptors(args)
    with failing(f"Failed to start domain '{domain.name}'"):
        try:
            domain = _started(session, domain, files, _start_flags(args))
        except VirtError as error:
            if not args.has("force-boot") or error.code not in (ErrorCode.NO_SUPPORT, ErrorCode.INVALID_ARG):
                raise
            # A driver that does not know the flag: it is done by hand.
            if is_saved(session, domain):
                offered(session.hypervisor, SaveDriver, "virDomainManagedSaveRemove").domain_managed_save_remove(domain)
            domain = _started(session, domain, files, _start_flags(args) & ~StartFlag.FORCE_BOOT)
    _look_after(session, domain, args)
    session.output.note(f"Domain '{domain.name}' started")
    _attach(session, domain, args)


def _started(session: Session, domain: DomainRef, files: list[int], flags: StartFlag) -> DomainRef:
    if not files:
        return session.hypervisor.domain_create(domain, flags)
    driver = offered(session.hypervisor, FilesDriver, "virDomainCreateWithFiles")
    return driver.domain_create_with_files(domain, files, flags)


def _look_after(session: Session, domain: DomainRef, args: Args) -> None:
    if args.has("autodestroy"):
        session.autodestroys.append(domain)


def _attach(session: Session, domain: DomainRef, args: Args) -> None:
    if args.has("console"):
        from hostel.cli.virsh import console

        console.run(session, domain)


def _console(session: Session, args: Args) -> None:
    from hostel.cli.virsh import console

    console.run(session, session.domain(args), args.get("devname"), force=args.has("force"))


def _acting(
    action: Callable[[Session, DomainRef, Args], None], done: str, failed: str
) -> Callable[[Session, Args], None]:
    """Build a command that does one thing to one domain and says so, by the name it was given."""

    def run(session: Session, args: Args) -> None:
        domain = session.domain(args)
        with failing(f"Failed to {failed} domain '{args['domain']}'"):
            action(session, domain, args)
        session.output.note(f"Domain '{args['domain']}' {done}")

    return run


def _shutdown(session: Session, args: Args) -> None:
    flags = _how(args, "'acpi', 'agent', 'initctl', 'signal', or 'paravirt'")
    _acting(lambda s, d, _: s.hypervisor.domain_shutdown(d, *flags), "is being shutdown", "shutdown")(session, args)


def _reboot(session: Session, args: Args) -> None:
    flags = _how(args, "'acpi', 'agent', 'initctl', 'signal' or 'paravirt'")
    _acting(lambda s, d, _: s.hypervisor.domain_reboot(d, *flags), "is being rebooted", "reboot")(session, args)


def _how(args: Args, known: str) -> tuple[ShutdownFlag, ...]:
    """The flags of the modes, as the last argument; nothing where none was named."""
    modes = args.get("mode")
    if modes is None:
        return ()
    flags = ShutdownFlag.NONE
    for mode in modes.split(","):
        if mode not in _MODES:
            raise UsageError(f"Unknown mode {mode} value, expecting {known}")
        flags |= _MODES[mode]
    return (flags,)


def _destroy(session: Session, domain: DomainRef, args: Args) -> None:
    bits = {"graceful": DestroyFlag.GRACEFUL, "remove-logs": DestroyFlag.REMOVE_LOGS}
    flags = args.flags(DestroyFlag.DEFAULT, bits)
    session.hypervisor.domain_destroy(domain, flags)


def _autostart(session: Session, args: Args) -> None:
    domain = session.domain(args)
    enable = not args.has("disable")
    with failing(f"Failed to {'' if enable else 'un'}mark domain '{args['domain']}' as autostarted"):
        session.hypervisor.domain_set_autostart(domain, enable)
    session.output.note(f"Domain '{args['domain']}' {'' if enable else 'un'}marked as autostarted")


def _dumpxml(session: Session, args: Args) -> None:
    bits = {
        "inactive": DomainXmlFlag.INACTIVE, "security-info": DomainXmlFlag.SECURE,
        "update-cpu": DomainXmlFlag.UPDATE_CPU, "migratable": DomainXmlFlag.MIGRATABLE,
    }  # fmt: skip
    flags = args.flags(DomainXmlFlag.NONE, bits)
    document.show(session, session.hypervisor.domain_get_xml_desc(session.domain(args), flags), args)


def _domid(session: Session, args: Args) -> None:
    domain = session.domain(args, by_id=False)
    session.output.line(str(domain.id) if domain.id != -1 else "-")


def _domname(session: Session, args: Args) -> None:
    session.output.line(session.domain(args, by_name=False).name)


def _domuuid(session: Session, args: Args) -> None:
    session.output.line(session.domain(args, by_uuid=False).uuid)


def _undefine(session: Session, args: Args) -> None:
    from hostel.cli.virsh.undefine import undefine

    undefine(session, args)


def _vncdisplay(session: Session, args: Args) -> None:
    domain = session.domain(args)
    if domain.id == -1:
        raise CommandError("Domain is not running")
    graphics = document.tree(session.hypervisor.domain_get_xml_desc(domain)).find("devices/graphics[@type='vnc']")
    port = int(graphics.get("port", "-1")) if graphics is not None else -1
    if graphics is None or port < 0:
        raise CommandError("Failed to get VNC port. Is this domain using VNC?")
    listen = graphics.get("listen", "")
    session.output.line(f"{'' if listen in ('', '0.0.0.0', '::') else listen}:{port - 5900}")


def _ttyconsole(session: Session, args: Args) -> None:
    domain = session.domain(args)
    console = document.tree(session.hypervisor.domain_get_xml_desc(domain)).find("devices/console")
    if console is None or not console.get("tty"):
        raise CommandError(f"domain '{domain.name}' has no console with a terminal")
    session.output.line(console.attrib["tty"])


COMMANDS = (
    Command("autostart", "start a domain with the driver", (DOMAIN, flag("disable", "do not")), _autostart),
    Command(
        "console",
        "connect to the console of a domain",
        (
            DOMAIN,
            value("devname", "the alias of the serial port or console, such as serial1"),
            flag("force", "take it from whoever is connected"),
            flag("safe", "only where nobody else can be connected at the same time, which is always so here"),
        ),
        _console,
    ),
    Command(
        "create",
        "start a transient domain",
        (
            FILE,
            CONSOLE,
            PAUSED,
            AUTODESTROY,
            value("pass-fds", "descriptors N,M,... that the domain gets"),
            VALIDATE,
            flag("reset-nvram", "and make UEFI's variables anew"),
        ),
        _create,
    ),
    Command("define", "define a domain, without starting it", (FILE, VALIDATE), _define),
    Command(
        "destroy",
        "end a domain now",
        (
            DOMAIN,
            flag("graceful", "only if it ends without force"),
            flag("remove-logs", "and remove its logs"),
        ),
        _acting(_destroy, "destroyed", "destroy"),
    ),
    Command("domid", "the id of a domain", (data("domain", "domain name or uuid"),), _domid),
    Command("domname", "the name of a domain", (data("domain", "domain id or uuid"),), _domname),
    Command("domuuid", "the UUID of a domain", (data("domain", "domain name or id"),), _domuuid),
    Command(
        "dumpxml",
        "the document of a domain",
        (
            DOMAIN,
            flag("inactive", "of the definition"),
            flag("security-info", "with passwords"),
            flag("update-cpu", "with the processor that the host would give it"),
            flag("migratable", "as another host's migrate --xml takes it"),
            *document.PARTS,
        ),
        _dumpxml,
    ),
    Command(
        "reboot",
        "ask a domain to reboot",
        (DOMAIN, value("mode", "how to ask: acpi, agent, or both with a comma between")),
        _reboot,
    ),
    Command(
        "reset",
        "reset a domain as the button does",
        (DOMAIN,),
        _acting(lambda s, d, _: s.hypervisor.domain_reset(d), "was reset", "reset"),
    ),
    Command(
        "resume",
        "let the CPUs of a domain run on",
        (DOMAIN,),
        _acting(lambda s, d, _: s.hypervisor.domain_resume(d), "resumed", "resume"),
    ),
    Command(
        "shutdown",
        "ask a domain to shut down",
        (DOMAIN, value("mode", "how to ask: acpi, agent, or both with a comma between")),
        _shutdown,
    ),
    Command(
        "dom-fd-associate",
        "let open files stand for a disk's",
        (
            DOMAIN,
            data("name", "the group's name, as <source fdgroup='…'/> has it"),
            data("pass-fds", "descriptors N,M,..."),
            flag("seclabel-writable", "give them labels for writing"),
            flag("seclabel-restore", "give them their labels back afterwards"),
        ),
        _associate,
    ),
    Command(
        "start",
        "start a defined domain",
        (
            DOMAIN,
            CONSOLE,
            PAUSED,
            AUTODESTROY,
            flag("bypass-cache", "go on from kept memory past the host's cache"),
            flag("force-boot", "boot it, and drop memory that was kept"),
            value("pass-fds", "descriptors N,M,... that the domain gets"),
            flag("reset-nvram", "and make UEFI's variables anew"),
        ),
        _start,
    ),
    Command(
        "suspend",
        "stop the CPUs of a domain",
        (DOMAIN,),
        _acting(lambda s, d, _: s.hypervisor.domain_suspend(d), "suspended", "suspend"),
    ),
    Command("ttyconsole", "the terminal of a domain's console", (DOMAIN,), _ttyconsole),
    Command(
        "undefine",
        "drop the definition of a domain",
        (
            DOMAIN,
            flag("managed-save", "and its saved state"),
            value("storage", "remove these volumes too: targets or paths, with commas"),
            flag("remove-all-storage", "remove all volumes of its disks too"),
            flag("delete-storage-volume-snapshots", "and the snapshots of the volumes that are removed"),
            flag("wipe-storage", "overwrite the volumes before they are removed"),
            flag("snapshots-metadata", "and what is known of its snapshots"),
            flag("checkpoints-metadata", "and what is known of its checkpoints"),
            flag("nvram", "and its NVRAM file"),
            flag("keep-nvram", "but not its NVRAM file"),
            flag("tpm", "and what its TPM remembers"),
            flag("keep-tpm", "but not what its TPM remembers"),
        ),
        _undefine,
    ),
    Command("vncdisplay", "the VNC display of a domain", (DOMAIN,), _vncdisplay),
)
