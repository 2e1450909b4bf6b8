"""Domain management and monitoring: the inside of guests, by their agents."""

from __future__ import annotations

import datetime
import time
from typing import Final

from hostel.cli.options import Args, Command, data, flag, number, value
from hostel.cli.virsh.scaled import integer
from hostel.cli.virsh.session import DOMAIN, CommandError, Session, failing, read_document
from hostel.drivers.base.agent import AgentTimeout, GuestInfo, HostnameSource, InsideDriver, SshKeysFlag
from hostel.drivers.base.offered import offered
from hostel.drivers.fault import printable
from hostel.errors import UsageError

_SOURCES: Final = {"lease": HostnameSource.LEASE, "agent": HostnameSource.AGENT}
_TARGETS: Final = ("mem", "disk", "hybrid")
_INFO: Final = {
    "user": GuestInfo.USERS, "os": GuestInfo.OS, "timezone": GuestInfo.TIMEZONE, "hostname": GuestInfo.HOSTNAME,
    "filesystem": GuestInfo.FILESYSTEM, "disk": GuestInfo.DISKS, "interface": GuestInfo.INTERFACES,
}  # fmt: skip


def _inside(session: Session, api: str) -> InsideDriver:
    return offered(session.hypervisor, InsideDriver, api)


def _hostname(session: Session, args: Args) -> None:
    domain = session.domain(args)
    source = HostnameSource.NONE
    if (name := args.get("source")) is not None:
        if name not in _SOURCES:
            raise CommandError(f"Unknown data source '{name}'")
        source = _SOURCES[name]
    with failing("failed to get hostname"):
        found = _inside(session, "virDomainGetHostname").domain_get_hostname(domain, source)
    session.output.line(printable(found))


def _filesystems(session: Session, args: Args) -> None:
    domain = session.domain(args)
    with failing("Unable to get filesystem information"):
        found = _inside(session, "virDomainGetFSInfo").domain_get_fsinfo(domain)
    if not found:
        session.output.note("No filesystems are mounted in the domain")
        return
    rows = [(each.mountpoint, each.name, each.fstype, ",".join(each.targets)) for each in found]
    session.output.table(("Mountpoint", "Name", "Type", "Target"), rows)


def _info(session: Session, args: Args) -> None:
    types = args.flags(GuestInfo(0), _INFO)
    domain = session.domain(args)
    for name, found in _inside(session, "virDomainGetGuestInfo").domain_get_guest_info(domain, types).items():
        text = {True: "yes", False: "no"}[found] if isinstance(found, bool) else printable(str(found))
        session.output.line(f"{name:<20}: {text}")


def _vcpus(session: Session, args: Args) -> None:
    args.exclude("enable", "disable")
    for name in ("enable", "disable"):
        if args.has(name) and not args.has("cpulist"):
            raise UsageError(f"Option --cpulist is required by option --{name}")
    numbers = args.get("cpulist")
    if numbers is not None and not (args.has("enable") or args.has("disable")):
        raise CommandError("One of options --enable or --disable is required by option --cpulist")
    domain = session.domain(args)
    if numbers is not None:
        driver = _inside(session, "virDomainSetGuestVcpus")
        driver.domain_set_guest_vcpus(domain, numbers, int(args.has("enable")))
        return
    for name, text in _inside(session, "virDomainGetGuestVcpus").domain_get_guest_vcpus(domain).items():
        session.output.line(f"{name:<15}: {text}")


def _time(session: Session, args: Args) -> None:
    for one, other in (("time", "now"), ("time", "sync"), ("now", "sync")):
        args.exclude(one, other)
    domain = session.domain(args)
    seconds = integer(args, "time", most=2**63 - 1)
    if seconds is not None or args.has("now") or args.has("sync"):
        seconds = int(time.time()) if args.has("now") else seconds or 0
        driver = _inside(session, "virDomainSetTime")
        driver.domain_set_time(domain, seconds, 0, **({"sync": True} if args.has("sync") else {}))
        return
    seconds, _ = _inside(session, "virDomainGetTime").domain_get_time(domain)
    if args.has("pretty"):
        then = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
        session.output.text(f"Time: {then:%Y-%m-%d %H:%M:%S}")
    else:
        session.output.text(f"Time: {seconds}")


def _keys(session: Session, args: Args) -> None:
    domain = session.domain(args)
    driver = _inside(session, "virDomainAuthorizedSSHKeysGet")
    for key in driver.domain_authorized_ssh_keys_get(domain, args["user"]):
        session.output.text(printable(key) + "\n")


def _set_keys(session: Session, args: Args) -> None:
    if args.has("remove") and not args.has("file"):
        raise UsageError("Option --file is required by option --remove")
    args.exclude("reset", "remove")
    domain = session.domain(args)
    flags = SshKeysFlag.REMOVE if args.has("remove") else SshKeysFlag.NONE
    if not args.has("remove") and not args.has("reset"):
        flags = SshKeysFlag.APPEND
        if not args.has("file"):
            raise CommandError("Option --file is required")
    keys = read_document(args["file"]).split("\n") if args.has("file") else []
    keys = [key for key in keys if key.strip()]
    driver = _inside(session, "virDomainAuthorizedSSHKeysSet")
    driver.domain_authorized_ssh_keys_set(domain, args["user"], keys, flags)


def _password(session: Session, args: Args) -> None:
    domain = session.domain(args)
    driver = _inside(session, "virDomainSetUserPassword")
    options = {"encrypted": True} if args.has("encrypted") else {}
    driver.domain_set_user_password(domain, args["user"], args["password"], **options)
    session.output.note(f"Password set successfully for {args['user']} in {args['domain']}", end="")


def _timeout(session: Session, args: Args) -> None:
    domain = session.domain(args)
    text = args.get("timeout")
    try:
        timeout = int(AgentTimeout.BLOCK) if text is None else int(text)
    except ValueError:
        raise UsageError(f"Numeric value '{text}' for <timeout> option is malformed or out of range") from None
    driver = _inside(session, "virDomainAgentSetResponseTimeout")
    driver.domain_agent_set_response_timeout(domain, timeout)


def _suspend(session: Session, args: Args) -> None:
    domain = session.domain(args)
    duration = args.number("duration") or 0
    if args["target"] not in _TARGETS:
        raise CommandError("Invalid target")
    with failing(f"Domain '{domain.name}' could not be suspended"):
        driver = _inside(session, "virDomainPMSuspendForDuration")
        driver.domain_pm_suspend_for_duration(domain, _TARGETS.index(args["target"]), duration)
    session.output.note(f"Domain '{domain.name}' successfully suspended")


def _wake(session: Session, args: Args) -> None:
    domain = session.domain(args)
    with failing(f"Domain '{domain.name}' could not be woken up"):
        _inside(session, "virDomainPMWakeup").domain_pm_wakeup(domain)
    session.output.note(f"Domain '{domain.name}' successfully woken up")


COMMANDS: Final = (
    Command(
        "domhostname",
        "the guest's name for itself",
        (DOMAIN, value("source", "address source: 'lease' or 'agent'")),
        _hostname,
    ),
    Command("domfsinfo", "the file systems that are mounted in a guest", (DOMAIN,), _filesystems),
    Command(
        "guestinfo",
        "what a guest tells of itself",
        (DOMAIN, *(flag(name, f"of {name}") for name in _INFO)),
        _info,
    ),
    Command(
        "guestvcpus",
        "the guest's processors, or which of them it uses",
        (
            DOMAIN,
            value("cpulist", "which processors"),
            flag("enable", "have the guest use them"),
            flag("disable", "have the guest leave them alone"),
        ),
        _vcpus,
    ),
    Command(
        "domtime",
        "the guest's clock",
        (
            DOMAIN,
            flag("now", "set it to the time of this host"),
            flag("pretty", "print it as people write it"),
            flag("sync", "set it to the time of the guest's hardware"),
            number("time", "set it, in seconds since 1970"),
        ),
        _time,
    ),
    Command("get-user-sshkeys", "keys by which a user is let in", (DOMAIN, data("user", "whose")), _keys),
    Command(
        "set-user-sshkeys",
        "change the keys by which a user is let in",
        (
            DOMAIN,
            data("user", "whose"),
            value("file", "keys, one a line"),
            flag("reset", "remove all others"),
            flag("remove", "remove these"),
        ),
        _set_keys,
    ),
    Command(
        "set-user-password",
        "give a user of a guest's another password",
        (
            DOMAIN,
            data("user", "whose"),
            data("password", "the new one"),
            flag("encrypted", "it is as the guest keeps it"),
        ),
        _password,
    ),
    Command(
        "guest-agent-timeout",
        "how long the agent in a guest is waited for",
        (DOMAIN, number("timeout", "seconds; -2: as long as it takes, -1: as usual, 0: not", positional=False)),
        _timeout,
    ),
    Command(
        "dompmsuspend",
        "have a guest suspend itself",
        (
            DOMAIN,
            data("target", "mem, disk or hybrid"),
            number("duration", "for how many seconds")._replace(positional=False),
        ),
        _suspend,
    ),
    Command("dompmwakeup", "wake a guest that has suspended itself", (DOMAIN,), _wake),
)
