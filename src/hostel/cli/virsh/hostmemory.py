"""The host: pages that are kept for guests, how memory is merged, and whether it sleeps; what it says of itself."""

from __future__ import annotations

from typing import Any, Final
from xml.etree.ElementTree import Element

from hostel.cli.options import Args, Command, Option, data, flag, number, value
from hostel.cli.virsh import document
from hostel.cli.virsh.scaled import integer, scaled
from hostel.cli.virsh.session import DOMAIN, CommandError, Session, failing, read_document
from hostel.drivers.base.hostmemory import ANY_CELL, HostMemoryDriver
from hostel.drivers.base.offered import offered
from hostel.drivers.fault import fault, printable
from hostel.errors import ErrorCode

_TARGETS: Final = ("mem", "disk", "hybrid")
_CELL: Final = number("cellno", "NUMA cell number")
_LARGEST: Final = 2**32 - 1


def _memory(session: Session, api: str) -> HostMemoryDriver:
    return offered(session.host, HostMemoryDriver, api)


def _page_size(args: Args) -> int:
    return min(-(-(scaled(args, "pagesize", 1024) or 0) // 1024), _LARGEST)


def _free(session: Session, args: Args) -> None:
    args.exclude("all", "cellno")
    size = _page_size(args)
    driver = _memory(session, "virNodeGetFreePages")
    if not args.has("all"):
        if not args.has("cellno"):
            raise CommandError("missing cellno argument")
        cell = integer(args, "cellno") or 0
        if cell < ANY_CELL:
            raise CommandError("cell number must be non-negative integer or -1")
        if not args.has("pagesize"):
            raise CommandError("missing pagesize argument")
        session.output.text(f"{size}KiB: {driver.node_get_free_pages([size], cell, 1)[0]}\n")
        return
    root = document.tree(session.hypervisor.connect_get_capabilities())
    sizes = [size] if args.has("pagesize") else _sizes(root)
    if not sizes:
        raise CommandError("could not get information about supported page sizes")
    for cell in _cells(root):
        counts = driver.node_get_free_pages(sizes, cell, 1)
        lines = "".join(f"{each}KiB: {count}\n" for each, count in zip(sizes, counts, strict=True))
        session.output.text(f"Node {cell}:\n{lines}\n")


def _sizes(root: Element) -> list[int]:
    found = root.findall("host/cpu/pages") or root.findall("host/topology/cells/cell/pages")
    return sorted({int(each.attrib["size"]) for each in found})


def _cells(root: Element) -> list[int]:
    return [int(cell.attrib["id"]) for cell in root.findall("host/topology/cells/cell")]


def _allocate(session: Session, args: Args) -> None:
    args.exclude("all", "cellno")
    cell = integer(args, "cellno") if args.has("cellno") else None
    size, count = _page_size(args), args.number("pagecount") or 0
    cells = [ANY_CELL if cell is None else cell]
    if args.has("all"):
        cells = _cells(document.tree(session.hypervisor.connect_get_capabilities()))
    driver = _memory(session, "virNodeAllocPages")
    options = {} if args.has("add") else {"exactly": True}
    for each in cells:
        driver.node_alloc_pages([size], [count], each, 1, **options)


def _tune(session: Session, args: Args) -> None:
    given = {name.replace("-", "_"): args.number(name, most=_LARGEST) for name in _TUNABLE if args.has(name)}
    if given:
        with failing("Unable to change memory parameters"):
            driver = _memory(session, "virNodeSetMemoryParameters")
            driver.node_set_memory_parameters({name: value or 0 for name, value in given.items()})
        return
    with failing("Unable to get number of memory parameters"):
        found = _memory(session, "virNodeGetMemoryParameters").node_get_memory_parameters()
    session.output.text("Shared memory:\n" + "".join(f"\t{name:<15} {value}\n" for name, value in found.items()))


_TUNABLE: Final = {
    "shm-pages-to-scan": "pages to scan before the kernel sleeps",
    "shm-sleep-millisecs": "how long it sleeps then",
    "shm-merge-across-nodes": "whether pages of different NUMA cells are merged",
}


def _suspend(session: Session, args: Args) -> None:
    if args["target"] not in _TARGETS:
        raise CommandError("Invalid target")
    duration = integer(args, "duration") or 0
    if duration < 0:
        raise CommandError("Invalid duration")
    with failing("The host was not suspended"):
        driver = _memory(session, "virNodeSuspendForDuration")
        driver.node_suspend_for_duration(_TARGETS.index(args["target"]), duration)


def _asked(session: Session, method: str, api: str, *arguments: Any) -> Any:
    """What a call answers that not every hypervisor has.

    Raises:
        VirtError: ``NO_SUPPORT``, or as the call does.
    """
    call = getattr(session.hypervisor, method, None)
    if call is None:
        raise fault(ErrorCode.NO_SUPPORT, api)
    return call(*arguments)


def _sev(session: Session, _args: Args) -> None:
    with failing("Unable to get host SEV information"):
        found = _asked(session, "node_get_sev_info", "virNodeGetSEVInfo")
    for name, text in found.items():
        session.output.line(f"{name:<18}: {printable(str(text))}")


def _launch(session: Session, args: Args) -> None:
    domain = session.domain(args)
    with failing("Unable to get launch security parameters"):
        found = _asked(session, "domain_get_launch_security_info", "virDomainGetLaunchSecurityInfo", domain)
    for name, text in found.items():
        session.output.line(f"{name:<15}: {printable(str(text))}")


def _give_secret(session: Session, args: Args) -> None:
    domain = session.domain(args)
    params: dict[str, int | str] = {}
    if not (args.has("secrethdr") and args.has("secret")):
        raise CommandError("Both secret and the secret header are required")
    for option, name in (("secrethdr", "sev-secret-header"), ("secret", "sev-secret")):
        params[name] = read_document(args[option])
    address = args.number("set-address")
    params |= {} if address is None else {"sev-secret-set-address": address}
    with failing("Unable to set launch security state"):
        _asked(session, "domain_set_launch_security_state", "virDomainSetLaunchSecurityState", domain, params)


def _sysinfo(session: Session, _args: Args) -> None:
    with failing("failed to get sysinfo"):
        session.output.text(_asked(session, "connect_get_sysinfo", "virConnectGetSysinfo"))


def _needed(option: Option) -> Option:
    return option._replace(required=True)


COMMANDS: Final = (
    Command(
        "freepages",
        "free pages",
        (_CELL, number("pagesize", "page size (in kibibytes)"), flag("all", "of each NUMA cell")),
        _free,
    ),
    Command(
        "allocpages",
        "keep pages for guests",
        (
            _needed(number("pagesize", "page size (in kibibytes)")),
            _needed(number("pagecount", "page count")),
            _CELL,
            flag("add", "so many more"),
            flag("all", "in each NUMA cell"),
        ),
        _allocate,
    ),
    Command(
        "node-memory-tune",
        "how the host merges memory of guests that is the same",
        tuple(number(name, text) for name, text in _TUNABLE.items()),
        _tune,
    ),
    Command(
        "nodesuspend",
        "have the host sleep",
        (data("target", "mem, disk or hybrid"), _needed(number("duration", "seconds, at least 60"))),
        _suspend,
    ),
    Command("nodesevinfo", "what AMD's SEV can do on the host", (), _sev),
    Command("domlaunchsecinfo", "how a domain's launch is secured", (DOMAIN,), _launch),
    Command(
        "domsetlaunchsecstate",
        "give a domain whose launch is secured a secret",
        (
            DOMAIN,
            value("secrethdr", "path to file containing the secret header", positional=False),
            value("secret", "path to file containing the secret", positional=False),
            number("set-address", "where in the guest's memory it goes"),
        ),
        _give_secret,
    ),
    Command("sysinfo", "the host's SMBIOS", (), _sysinfo),
)
