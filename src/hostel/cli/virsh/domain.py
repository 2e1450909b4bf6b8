"""Domain management: define, start, stop, undefine."""

from __future__ import annotations

from collections.abc import Callable

from hostel.cli.options import Args, Command, data, flag
from hostel.cli.virsh.session import CommandError, Session, failing, read_document
from hostel.drivers.base import DestroyFlag, DomainRef, DomainXmlFlag, StartFlag, UndefineFlag

DOMAIN = data("domain", "domain name, id or uuid")
FILE = data("file", "file with the XML document")


def _define(session: Session, args: Args) -> None:
    xml = read_document(args["file"])
    with failing(f"Failed to define domain from {args['file']}"):
        domain = session.hypervisor.domain_define_xml(xml)
    session.output.note(f"Domain '{domain.name}' defined from {args['file']}")


def _create(session: Session, args: Args) -> None:
    xml = read_document(args["file"])
    with failing(f"Failed to create domain from {args['file']}"):
        domain = session.hypervisor.domain_create_xml(xml, _start_flags(args))
    session.output.note(f"Domain '{domain.name}' created from {args['file']}")


def _start_flags(args: Args) -> StartFlag:
    return StartFlag.PAUSED if args.has("paused") else StartFlag.NONE


def _start(session: Session, args: Args) -> None:
    domain = session.domain(args, by_id=False)
    if domain.id != -1:
        raise CommandError("Domain is already active")
    with failing(f"Failed to start domain '{domain.name}'"):
        session.hypervisor.domain_create(domain, _start_flags(args))
    session.output.note(f"Domain '{domain.name}' started")


def _acting(
    action: Callable[[Session, DomainRef, Args], None], done: str, failed: str
) -> Callable[[Session, Args], None]:
    """Build a command that does one thing to one domain and says so."""

    def run(session: Session, args: Args) -> None:
        domain = session.domain(args)
        with failing(f"Failed to {failed} domain '{domain.name}'"):
            action(session, domain, args)
        session.output.note(f"Domain '{domain.name}' {done}")

    return run


def _destroy(session: Session, domain: DomainRef, args: Args) -> None:
    flags = DestroyFlag.GRACEFUL if args.has("graceful") else DestroyFlag.DEFAULT
    session.hypervisor.domain_destroy(domain, flags)


def _undefine(session: Session, domain: DomainRef, args: Args) -> None:
    flags = UndefineFlag.NONE
    for name, bit in (
        ("managed-save", UndefineFlag.MANAGED_SAVE),
        ("snapshots-metadata", UndefineFlag.SNAPSHOTS_METADATA),
        ("nvram", UndefineFlag.NVRAM),
    ):
        if args.has(name):
            flags |= bit
    session.hypervisor.domain_undefine(domain, flags)


def _autostart(session: Session, args: Args) -> None:
    domain = session.domain(args)
    enable = not args.has("disable")
    with failing(f"Failed to {'' if enable else 'un'}mark domain '{domain.name}' as autostarted"):
        session.hypervisor.domain_set_autostart(domain, enable)
    session.output.note(f"Domain '{domain.name}' {'' if enable else 'un'}marked as autostarted")


def _dumpxml(session: Session, args: Args) -> None:
    flags = DomainXmlFlag.NONE
    if args.has("inactive"):
        flags |= DomainXmlFlag.INACTIVE
    if args.has("security-info"):
        flags |= DomainXmlFlag.SECURE
    session.output.text(session.hypervisor.domain_get_xml_desc(session.domain(args), flags))


COMMANDS = (
    Command("define", "define a domain, without starting it", (FILE,), _define),
    Command("create", "start a transient domain", (FILE, flag("paused", "leave it paused")), _create),
    Command("start", "start a defined domain", (DOMAIN, flag("paused", "leave it paused")), _start),
    Command(
        "shutdown",
        "ask a domain to shut down",
        (DOMAIN,),
        _acting(lambda s, d, _: s.hypervisor.domain_shutdown(d), "is being shutdown", "shutdown"),
    ),
    Command(
        "reboot",
        "ask a domain to reboot",
        (DOMAIN,),
        _acting(lambda s, d, _: s.hypervisor.domain_reboot(d), "is being rebooted", "reboot"),
    ),
    Command(
        "reset",
        "reset a domain as the button does",
        (DOMAIN,),
        _acting(lambda s, d, _: s.hypervisor.domain_reset(d), "was reset", "reset"),
    ),
    Command(
        "suspend",
        "stop the CPUs of a domain",
        (DOMAIN,),
        _acting(lambda s, d, _: s.hypervisor.domain_suspend(d), "suspended", "suspend"),
    ),
    Command(
        "resume",
        "let the CPUs of a domain run on",
        (DOMAIN,),
        _acting(lambda s, d, _: s.hypervisor.domain_resume(d), "resumed", "resume"),
    ),
    Command(
        "destroy",
        "end a domain now",
        (DOMAIN, flag("graceful", "only if it ends without force")),
        _acting(_destroy, "destroyed", "destroy"),
    ),
    Command(
        "undefine",
        "drop the definition of a domain",
        (
            DOMAIN,
            flag("managed-save", "and its saved state"),
            flag("snapshots-metadata", "and what is known of its snapshots"),
            flag("nvram", "and its NVRAM file"),
        ),
        _acting(_undefine, "has been undefined", "undefine"),
    ),
    Command("autostart", "start a domain with the driver", (DOMAIN, flag("disable", "do not")), _autostart),
    Command(
        "dumpxml",
        "the document of a domain",
        (DOMAIN, flag("inactive", "of the definition"), flag("security-info", "with passwords")),
        _dumpxml,
    ),
)
