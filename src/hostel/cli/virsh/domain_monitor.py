"""Domain monitoring: list, state and facts; nothing here changes a domain."""

from __future__ import annotations

from xml.etree import ElementTree

from hostel.cli.options import Args, Command, data, flag
from hostel.cli.virsh.session import CommandError, Session, failing, yes_no
from hostel.drivers.base import DomainRef, DomainState, DomainXmlFlag
from hostel.errors import UsageError

STATES = {
    DomainState.NOSTATE: "no state",
    DomainState.RUNNING: "running",
    DomainState.BLOCKED: "idle",
    DomainState.PAUSED: "paused",
    DomainState.SHUTDOWN: "in shutdown",
    DomainState.SHUTOFF: "shut off",
    DomainState.CRASHED: "crashed",
    DomainState.PMSUSPENDED: "pmsuspended",
}
REASONS = {
    DomainState.RUNNING: ("unknown", "booted", "migrated", "restored", "from snapshot", "unpaused"),
    DomainState.PAUSED: (
        "unknown",
        "user",
        "migrating",
        "saving",
        "dumping",
        "I/O error",
        "watchdog",
        "from snapshot",
        "shutting down",
    ),
    DomainState.SHUTDOWN: ("unknown", "user"),
    DomainState.SHUTOFF: (
        "unknown",
        "shutdown",
        "destroyed",
        "crashed",
        "migrated",
        "saved",
        "failed",
        "from snapshot",
        "daemon",
    ),
    DomainState.CRASHED: ("unknown", "panicked"),
}
DOMAIN = data("domain", "domain name, id or uuid")


def _selected(session: Session, args: Args) -> list[DomainRef]:
    """The domains that the filters let through: running ones by id, then the others by name."""
    domains = session.hypervisor.connect_list_all_domains()
    if not args.has("all"):
        domains = [domain for domain in domains if (domain.id == -1) == args.has("inactive")]
    if args.has("persistent") != args.has("transient"):
        wanted = args.has("persistent")
        domains = [domain for domain in domains if session.hypervisor.domain_is_persistent(domain) == wanted]
    if args.has("autostart") != args.has("no-autostart"):
        wanted = args.has("autostart")
        domains = [domain for domain in domains if session.hypervisor.domain_get_autostart(domain) == wanted]
    return sorted(domains, key=lambda domain: (domain.id == -1, domain.id, domain.name))


def _list(session: Session, args: Args) -> None:
    plain = args.has("name") or args.has("uuid") or args.has("id")
    for other in ("name", "uuid", "id", "title"):
        if args.has("table") and args.has(other):
            raise UsageError(f"Options --table and --{other} are mutually exclusive")
    with failing("Failed to list domains"):
        domains = _selected(session, args)
    if plain:
        for domain in domains:
            fields = []
            if args.has("id"):
                fields.append(str(domain.id) if domain.id != -1 else "-")
            if args.has("uuid"):
                fields.append(domain.uuid)
            if args.has("name"):
                fields.append(domain.name)
            session.output.line(" ".join(fields))
        return
    header = ["Id", "Name", "State", *(["Title"] if args.has("title") else [])]
    rows = []
    for domain in domains:
        state = STATES[session.hypervisor.domain_get_state(domain).state]
        row = [str(domain.id) if domain.id != -1 else "-", domain.name, state]
        if args.has("title"):
            row.append(_document(session, domain).findtext("title", ""))
        rows.append(row)
    session.output.table(header, rows)


def _document(session: Session, domain: DomainRef, *, inactive: bool = False) -> ElementTree.Element:
    """The domain's document, from our own drivers, as a tree."""
    flags = DomainXmlFlag.INACTIVE if inactive else DomainXmlFlag.NONE
    return ElementTree.fromstring(session.hypervisor.domain_get_xml_desc(domain, flags))


def _dominfo(session: Session, args: Args) -> None:
    domain = session.domain(args)
    info = session.hypervisor.domain_get_info(domain)
    persistent = session.hypervisor.domain_is_persistent(domain)
    rows = [
        ("Id:", str(domain.id) if domain.id != -1 else "-"),
        ("Name:", domain.name),
        ("UUID:", domain.uuid),
        ("OS Type:", _document(session, domain).findtext("os/type", "")),
        ("State:", STATES[info.state]),
        ("CPU(s):", str(info.vcpus)),
    ]
    if info.cpu_time:
        rows.append(("CPU time:", f"{info.cpu_time / 1e9:.1f}s"))
    rows += [
        ("Max memory:", f"{info.max_memory} KiB"),
        ("Used memory:", f"{info.memory} KiB"),
        ("Persistent:", yes_no(persistent)),
        ("Autostart:", "enable" if session.hypervisor.domain_get_autostart(domain) else "disable"),
        ("Managed save:", "no"),
        ("Security model:", "none"),
        ("Security DOI:", "0"),
    ]
    for name, text in rows:
        session.output.line(f"{name:<15} {text}")


def _domstate(session: Session, args: Args) -> None:
    info = session.hypervisor.domain_get_state(session.domain(args))
    text = STATES[info.state]
    if args.has("reason"):
        reasons = REASONS.get(info.state, ())
        reason = reasons[info.reason] if 0 <= info.reason < len(reasons) else "unknown"
        text += f" ({reason})"
    session.output.line(text)


def _domid(session: Session, args: Args) -> None:
    domain = session.domain(args, by_id=False)
    session.output.line(str(domain.id) if domain.id != -1 else "-")


def _domname(session: Session, args: Args) -> None:
    session.output.line(session.domain(args).name)


def _domuuid(session: Session, args: Args) -> None:
    session.output.line(session.domain(args).uuid)


def _domblklist(session: Session, args: Args) -> None:
    domain = session.domain(args)
    rows = []
    for disk in _document(session, domain, inactive=args.has("inactive")).iterfind("devices/disk"):
        target = disk.find("target")
        source = disk.find("source")
        place = "-"
        if source is not None:
            names = ("file", "dev", "dir", "name", "volume")
            place = next((source.attrib[name] for name in names if name in source.attrib), "-")
        row = [target.get("dev", "-") if target is not None else "-", place]
        if args.has("details"):
            row = [disk.get("type", "file"), disk.get("device", "disk"), *row]
        rows.append(row)
    header = ["Target", "Source"]
    session.output.table(["Type", "Device", *header] if args.has("details") else header, rows)


def _vncdisplay(session: Session, args: Args) -> None:
    domain = session.domain(args)
    if domain.id == -1:
        raise CommandError("Domain is not running")
    graphics = _document(session, domain).find("devices/graphics[@type='vnc']")
    port = int(graphics.get("port", "-1")) if graphics is not None else -1
    if graphics is None or port < 0:
        raise CommandError("Failed to get VNC port. Is this domain using VNC?")
    listen = graphics.get("listen", "")
    session.output.line(f"{'' if listen in ('', '0.0.0.0', '::') else listen}:{port - 5900}")


def _ttyconsole(session: Session, args: Args) -> None:
    domain = session.domain(args)
    console = _document(session, domain).find("devices/console")
    if console is None or not console.get("tty"):
        raise CommandError(f"domain '{domain.name}' has no console with a terminal")
    session.output.line(console.attrib["tty"])


COMMANDS = (
    Command(
        "list",
        "list domains",
        (
            flag("inactive", "only domains that are not running"),
            flag("all", "running domains and the others"),
            flag("transient", "only domains without a definition"),
            flag("persistent", "only domains with a definition"),
            flag("autostart", "only domains that start with the driver"),
            flag("no-autostart", "only domains that do not"),
            flag("uuid", "print UUIDs only"),
            flag("name", "print names only"),
            flag("id", "print ids only"),
            flag("table", "print a table (the default)"),
            flag("title", "show titles in the table"),
        ),
        _list,
        "Show domains: the running ones unless told otherwise.",
    ),
    Command("dominfo", "facts about a domain", (DOMAIN,), _dominfo),
    Command("domstate", "the state of a domain", (DOMAIN, flag("reason", "also say why")), _domstate),
    Command("domid", "the id of a domain", (data("domain", "domain name or uuid"),), _domid),
    Command("domname", "the name of a domain", (DOMAIN,), _domname),
    Command("domuuid", "the UUID of a domain", (DOMAIN,), _domuuid),
    Command(
        "domblklist",
        "the disks of a domain",
        (DOMAIN, flag("inactive", "of the definition"), flag("details", "also show type and device")),
        _domblklist,
    ),
    Command("vncdisplay", "the VNC display of a domain", (DOMAIN,), _vncdisplay),
    Command("ttyconsole", "the terminal of a domain's console", (DOMAIN,), _ttyconsole),
)
