"""Domain monitoring: list, state and facts; nothing here changes a domain."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from xml.etree.ElementTree import Element

from hostel.cli.options import Args, Command, flag
from hostel.cli.virsh import document
from hostel.cli.virsh.session import DOMAIN, Session, failing, yes_no
from hostel.drivers.base import DomainRef, DomainState, DomainXmlFlag
from hostel.drivers.base.backup import CheckpointDriver
from hostel.drivers.base.messages import MessagesDriver
from hostel.drivers.base.saving import SaveDriver
from hostel.drivers.base.snapshot import SnapshotDriver
from hostel.drivers.fault import printable
from hostel.errors import ErrorCode, VirtError

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
    DomainState.RUNNING: (
        "unknown",
        "booted",
        "migrated",
        "restored",
        "from snapshot",
        "unpaused",
        "migration canceled",
        "save canceled",
        "event wakeup",
        "crashed",
        "post-copy",
    ),
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
_OTHER_STATES = frozenset(DomainState) - {DomainState.RUNNING, DomainState.PAUSED, DomainState.SHUTOFF}


def has_snapshots(session: Session, domain: DomainRef) -> bool:
    """Whether there are snapshots of a domain."""
    driver = session.hypervisor
    return isinstance(driver, SnapshotDriver) and bool(driver.domain_list_all_snapshots(domain))


def has_checkpoints(session: Session, domain: DomainRef) -> bool:
    """Whether there are checkpoints of a domain."""
    driver = session.hypervisor
    return isinstance(driver, CheckpointDriver) and bool(driver.domain_list_all_checkpoints(domain))


def is_saved(session: Session, domain: DomainRef) -> bool:
    """Whether a domain's next start goes on from saved memory."""
    driver = session.hypervisor
    return isinstance(driver, SaveDriver) and driver.domain_has_managed_save_image(domain)


# Options that choose domains, in pairs of which both are as none.
_FILTERS: tuple[tuple[str, str, Callable[[Session, DomainRef], bool]], ...] = (
    ("persistent", "transient", lambda session, domain: session.hypervisor.domain_is_persistent(domain)),
    ("autostart", "no-autostart", lambda session, domain: session.hypervisor.domain_get_autostart(domain)),
    ("with-snapshot", "without-snapshot", has_snapshots),
    ("with-checkpoint", "without-checkpoint", has_checkpoints),
    ("with-managed-save", "without-managed-save", is_saved),
)
_STATE_FILTERS = {
    "state-running": {DomainState.RUNNING},
    "state-paused": {DomainState.PAUSED},
    "state-shutoff": {DomainState.SHUTOFF},
    "state-other": _OTHER_STATES,
}


def _selected(session: Session, args: Args) -> list[DomainRef]:
    """The domains that the filters let through: running ones by id, then the others by name."""
    domains = session.hypervisor.connect_list_all_domains()
    if not args.has("all"):
        inactive = args.has("inactive") or args.has("state-shutoff")
        domains = [domain for domain in domains if (domain.id == -1) == inactive]
    for one, other, test in _FILTERS:
        if args.has(one) != args.has(other):
            domains = [domain for domain in domains if test(session, domain) == args.has(one)]
    states = {state for name, found in _STATE_FILTERS.items() if args.has(name) for state in found}
    if states:
        domains = [domain for domain in domains if session.hypervisor.domain_get_state(domain).state in states]
    return sorted(domains, key=lambda domain: (domain.id == -1, domain.id, domain.name))


def _list(session: Session, args: Args) -> None:
    for other in ("name", "uuid", "id"):
        args.exclude("table", other)
    with failing("Failed to list domains"):
        domains = _selected(session, args)
    if args.has("name") or args.has("uuid") or args.has("id"):
        _list_plain(session, domains, args)
        return
    header = ["Id", "Name", "State", *(["Title"] if args.has("title") else [])]
    rows = []
    for domain in domains:
        try:
            state = STATES[session.hypervisor.domain_get_state(domain).state]
            if args.has("managed-save") and domain.id == -1 and is_saved(session, domain):
                state = "saved"
            row = [_id(domain), domain.name, state]
            if args.has("title"):
                row.append(_document(session, domain).findtext("title", ""))
        except VirtError as error:
            if error.code is not ErrorCode.NO_DOMAIN:
                raise
            continue  # it ended between the two looks
        rows.append(row)
    session.output.table(header, rows)


def _list_plain(session: Session, domains: list[DomainRef], args: Args) -> None:
    for domain in domains:
        fields = []
        if args.has("uuid"):
            fields.append(domain.uuid)
        if args.has("id"):
            # As in virsh: ids alone are listed of running domains only.
            if domain.id == -1 and not args.has("uuid") and not args.has("name"):
                continue
            fields.append(_id(domain))
        if args.has("name"):
            fields.append(domain.name)
        session.output.line(" ".join(fields))


def _id(domain: DomainRef) -> str:
    return str(domain.id) if domain.id != -1 else "-"


def _document(session: Session, domain: DomainRef, *, inactive: bool = False) -> Element:
    """The domain's document, from our own drivers, as a tree."""
    flags = DomainXmlFlag.INACTIVE if inactive else DomainXmlFlag.NONE
    return document.tree(session.hypervisor.domain_get_xml_desc(domain, flags))


def _dominfo(session: Session, args: Args) -> None:
    domain = session.domain(args)
    hypervisor = session.hypervisor
    info = hypervisor.domain_get_info(domain)
    rows = [
        ("Id:", _id(domain)),
        ("Name:", domain.name),
        ("UUID:", domain.uuid),
        ("OS Type:", hypervisor.domain_get_os_type(domain)),
        ("State:", STATES[info.state]),
        ("CPU(s):", str(info.vcpus)),
    ]
    if info.cpu_time:
        rows.append(("CPU time:", f"{info.cpu_time / 1e9:.1f}s"))
    rows += [
        ("Max memory:", f"{info.max_memory} KiB"),
        ("Used memory:", f"{info.memory} KiB"),
        ("Persistent:", yes_no(hypervisor.domain_is_persistent(domain))),
        ("Autostart:", "enable" if hypervisor.domain_get_autostart(domain) else "disable"),
        ("Managed save:", yes_no(is_saved(session, domain))),
    ]
    security = hypervisor.node_get_security_model()
    if security.model:
        rows += [("Security model:", security.model), ("Security DOI:", security.doi)]
        label = hypervisor.domain_get_security_label(domain)
        if label.label:
            rows.append(("Security label:", f"{label.label} ({'enforcing' if label.enforcing else 'permissive'})"))
    if isinstance(hypervisor, MessagesDriver):
        with contextlib.suppress(VirtError):  # another daemon may not know them
            said = hypervisor.domain_get_messages(domain)
            rows += [("" if index else "Messages:", printable(text)) for index, text in enumerate(said)]
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


COMMANDS = (
    Command(
        "domblklist",
        "the disks of a domain",
        (DOMAIN, flag("inactive", "of the definition"), flag("details", "also show type and device")),
        _domblklist,
    ),
    Command("dominfo", "facts about a domain", (DOMAIN,), _dominfo),
    Command("domstate", "the state of a domain", (DOMAIN, flag("reason", "also say why")), _domstate),
    Command(
        "list",
        "list domains",
        (
            flag("inactive", "only domains that are not running"),
            flag("all", "running domains and the others"),
            flag("transient", "only domains without a definition"),
            flag("persistent", "only domains with a definition"),
            flag("with-snapshot", "only domains with snapshots"),
            flag("without-snapshot", "only domains without snapshots"),
            flag("with-checkpoint", "only domains with checkpoints"),
            flag("without-checkpoint", "only domains without checkpoints"),
            flag("state-running", "only domains whose CPUs run"),
            flag("state-paused", "only domains whose CPUs are stopped"),
            flag("state-shutoff", "only domains that are shut off"),
            flag("state-other", "only domains in any other state"),
            flag("autostart", "only domains that start with the driver"),
            flag("no-autostart", "only domains that do not"),
            flag("with-managed-save", "only domains with a saved state"),
            flag("without-managed-save", "only domains without a saved state"),
            flag("uuid", "print UUIDs only"),
            flag("name", "print names only"),
            flag("id", "print ids only"),
            flag("table", "print a table (the default)"),
            flag("managed-save", "show domains with a saved state as saved"),
            flag("title", "show titles in the table"),
        ),
        _list,
        "Show domains: the running ones unless told otherwise.",
    ),
)
