"""The connection and its host."""

from __future__ import annotations

import time
from typing import Final

from hostel.cli.options import Args, Command, flag, number, value
from hostel.cli.virsh.session import Session, failing
from hostel.drivers.base.capabilities import DomainCapabilitiesDriver
from hostel.drivers.base.host import ALL
from hostel.errors import ModelError, VirtError
from hostel.model.domain_capabilities import DomainCapabilities
from hostel.model.numberset import format_numbers

_MOST_CELLS: Final = 1024
_CPU_STATS: Final = (("user:", "user"), ("system:", "kernel"), ("idle:", "idle"), ("iowait:", "iowait"))
LIBRARY: Final = "libvirt 9.0.0"  # the one whose behaviour this is


def _version(session: Session, args: Args) -> None:
    with failing("failed to get the hypervisor version"):
        kind = session.hypervisor.connect_get_type()
        number = session.hypervisor.connect_get_version()
    session.output.line(f"Compiled against library: {LIBRARY}")
    session.output.line(f"Using library: {LIBRARY}")
    session.output.line(f"Using API: {kind} {LIBRARY.split()[1]}")
    session.output.line(f"Running hypervisor: {kind} {_dotted(number)}")
    if args.has("daemon"):
        with failing("failed to get the daemon version"):
            found = session.host.connect_get_lib_version()
        session.output.line(f"Running against daemon: {_dotted(found)}")


def _dotted(number: int) -> str:
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"


def _nodeinfo(session: Session, _args: Args) -> None:
    with failing("failed to get node information"):
        info = session.host.node_get_info()
    for name, shown in (
        ("CPU model:", info.model),
        ("CPU(s):", info.cpus),
        ("CPU frequency:", f"{info.mhz} MHz"),
        ("CPU socket(s):", info.sockets),
        ("Core(s) per socket:", info.cores),
        ("Thread(s) per core:", info.threads),
        ("NUMA cell(s):", info.nodes),
        ("Memory size:", f"{info.memory} KiB"),
    ):
        session.output.line(f"{name:<20} {shown}")


def _nodecpumap(session: Session, args: Args) -> None:
    with failing("Unable to get cpu map"):
        cpus = session.host.node_get_cpu_map()
    online = [cpu for cpu, is_online in enumerate(cpus) if is_online]
    shown = format_numbers(frozenset(online)) if args.has("pretty") else "".join("y" if each else "-" for each in cpus)
    for name, text in (("CPUs present:", len(cpus)), ("CPUs online:", len(online)), ("CPU map:", shown)):
        session.output.line(f"{name:<15} {text}")


def _nodecpustats(session: Session, args: Args) -> None:
    cpu = args.number("cpu")
    with failing("Unable to get node cpu stats"):
        stats = session.host.node_get_cpu_stats(ALL if cpu is None else cpu)
        if args.has("percent"):
            time.sleep(1)
            later_stats = session.host.node_get_cpu_stats(ALL if cpu is None else cpu)
    names = [(name, key) for name, key in _CPU_STATS if key in stats]
    if not args.has("percent"):
        for name, key in names:
            session.output.line(f"{name:<15} {stats[key]:>20}")
        return
    spent = {key: later_stats[key] - stats[key] for _, key in names}
    total = sum(spent.values()) or 1
    session.output.line(f"{'usage:':<15} {(spent['user'] + spent['kernel']) / total * 100:>5.1f}%")
    for name, key in names:
        session.output.line(f"{name:<15} {spent[key] / total * 100:>5.1f}%")


def _max_vcpus(session: Session, args: Args) -> None:
    """Of the type's usual machine, where its capabilities tell it, and else the hypervisor's general answer."""
    kind = args.get("type")
    found: int | None = None
    if isinstance(session.hypervisor, DomainCapabilitiesDriver):
        try:
            text = session.hypervisor.connect_get_domain_capabilities(None, None, None, kind)
            found = DomainCapabilities.parse(text).max_vcpus
        except (VirtError, ModelError):
            found = None  # as virsh has it, which asks the other way then
    session.output.line(str(session.host.connect_get_max_vcpus(kind) if found is None else found))


def _nodememstats(session: Session, args: Args) -> None:
    cell = args.number("cell")
    with failing("Unable to get number of memory stats"):
        stats = session.host.node_get_memory_stats(ALL if cell is None else cell)
    for name, amount in stats.items():
        session.output.line(f"{name:<7}: {amount:>20} KiB")


def _freecell(session: Session, args: Args) -> None:
    args.exclude("all", "cellno")
    cell = args.number("cellno")
    if cell is not None:
        session.output.line(f"{cell}: {session.host.node_get_cells_free_memory(cell, 1)[0] // 1024} KiB")
    elif not args.has("all"):
        session.output.line(f"Total: {session.host.node_get_free_memory() // 1024} KiB")
    else:
        free = session.host.node_get_cells_free_memory(0, _MOST_CELLS)
        for number, amount in enumerate(free):
            session.output.line(f"{number:>5}: {amount // 1024:>10} KiB")
        session.output.note("--------------------")
        session.output.note(f"{'Total':>5}: {sum(free) // 1024:>10} KiB")


COMMANDS = (
    Command(
        "capabilities",
        "what the host can run",
        (),
        lambda s, _: s.output.line(s.hypervisor.connect_get_capabilities()),
    ),
    Command(
        "freecell",
        "free memory",
        (number("cellno", "of a NUMA cell"), flag("all", "of each NUMA cell")),
        _freecell,
    ),
    Command("hostname", "the host's name", (), lambda s, _: s.output.line(s.hypervisor.connect_get_hostname())),
    Command(
        "maxvcpus",
        "how many CPUs a machine may have",
        (value("type", "the domain's type"),),
        _max_vcpus,
    ),
    Command("nodecpumap", "the host's CPUs", (flag("pretty", "as numbers"),), _nodecpumap),
    Command(
        "nodecpustats",
        "what the CPUs' time went to, in nanoseconds",
        (number("cpu", "one CPU's"), flag("percent", "in parts of a second from now on")),
        _nodecpustats,
    ),
    Command("nodeinfo", "the host's processors and memory", (), _nodeinfo),
    Command("nodememstats", "memory", (number("cell", "of a NUMA cell"),), _nodememstats),
    Command(
        "uri",
        "the connection's URI",
        (),
        lambda s, _: s.output.line(s.connection.uri),
    ),
    Command(
        "version",
        "whose behaviour this is, and what runs the machines",
        (flag("daemon", "and of the daemon that is asked"),),
        _version,
    ),
)
