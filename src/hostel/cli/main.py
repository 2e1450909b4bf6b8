"""The entry point: ``hostel TOOL …``, ``python -m hostel``, or a tool's own name by a link to ``hostel``.

Every error is turned into its tool's own form here, once; a traceback is shown only with ``HOSTEL_DEBUG=1``.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, NoReturn, cast

from hostel.errors import HostelError

INTERRUPTED: Final = 130  # 128 + SIGINT, as a shell reports it
BROKEN_PIPE: Final = 141  # 128 + SIGPIPE


class Tool(NamedTuple):
    """One tool: where its function is, what it is for, how its errors begin."""

    module: str
    summary: str
    error: str
    takes_prog: bool = False


TOOLS: Final = {
    "qemu-img": Tool("hostel.cli.img.main", "create, inspect, convert and check disk images", "qemu-img: ", True),
    "qemu-io": Tool("hostel.cli.qemu_io.main", "read, write and look at an image by hand", "qemu-io: ", True),
    "qemu-nbd": Tool("hostel.cli.qemu_nbd.main", "serve a disk image over NBD", "qemu-nbd: ", True),
    "qemu-storage-daemon": Tool(
        "hostel.cli.storage_daemon.main", "export disk images under a QMP monitor", "qemu-storage-daemon: ", True
    ),
    "virsh": Tool("hostel.cli.virsh.main", "manage machines, storage pools, volumes and networks", "error: "),
    "virt-install": Tool("hostel.cli.virt_install.main", "make a machine and install or import a system", "ERROR    "),
    "virt-xml": Tool(
        "hostel.cli.virt_xml.main", "change a machine's XML with the options of virt-install", "ERROR    "
    ),
    "virt-clone": Tool("hostel.cli.virt_clone.main", "copy a machine and its disks", "ERROR    "),
    "daemon": Tool("hostel.cli.daemon", "serve machines, pools and networks to libvirt's clients", "hosteld: error: "),
    "virt-ssh-helper": Tool("hostel.cli.ssh_helper", "connect a client that came by ssh with the daemon", "error: "),
    "inspect": Tool("hostel.cli.inspect", "say whether a disk image is safe to accept", "error: "),
    "guest": Tool("hostel.cli.guest", "put a tiny bootable guest on an image, and read what it reports", "error: "),
    "link-tools": Tool("hostel.cli.link_tools", "put the tools under their own names into a directory", "error: "),
    "quickstart": Tool(
        "hostel.cli.quickstart.main", "see an image, a pool and a machine work, step by step", "error: "
    ),
}
DROP_IN: Final = (
    "qemu-img",
    "qemu-io",
    "qemu-nbd",
    "qemu-storage-daemon",
    "virsh",
    "virt-install",
    "virt-xml",
    "virt-clone",
    "virt-ssh-helper",
)


def run() -> NoReturn:
    """What the ``hostel`` command and ``python -m hostel`` do: run the command line of this process, and end it.

    A tool's life is short: most of what is imported stays to the end, so the collector is called less often, and the
    end skips taking the interpreter apart, which takes as long as ``qemu-img info`` does.
    """
    import gc

    gc.set_threshold(20_000, 20, 20)
    code = main(["hostel", *sys.argv[1:]] if os.path.basename(sys.argv[0]) == "__main__.py" else None)
    if _others_run():
        sys.exit(code)
    import atexit

    atexit._run_exitfuncs()
    _flush_quietly()
    os._exit(code)


def _others_run() -> bool:
    """Whether a thread is left that the interpreter would wait for."""
    threading = sys.modules.get("threading")
    return threading is not None and threading.active_count() > 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; ``argv[0]`` is the name we were called by.

    Returns:
        The exit code.
    """
    words = list(sys.argv if argv is None else argv)
    _open_missing_streams()
    _pass_bytes_through()
    called = os.path.basename(words[0]) if words else "hostel"
    if called in DROP_IN:
        return run_tool(called, words[1:])
    if called in ("hosteld", "libvirtd"):  # the latter is what libvirt's clients start for a user who has none
        return run_tool("daemon", words[1:])
    return guarded("hostel: ", lambda: _dispatch(words[1:]))


def _open_missing_streams() -> None:
    """Who closed standard output or error gets none; the descriptor is taken, or an image would get it and our text."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # for as long as the process lives
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115


def _pass_bytes_through() -> None:
    """File names that are no UTF-8 are printed as the bytes they are, as the other tools of this field do."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="surrogateescape")


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if words else 1
    if words[0] in ("-V", "-v", "--version", "version"):
        from hostel import __version__

        print(f"hostel {__version__}")
        return 0
    if words[0] in TOOLS:
        return run_tool(words[0], words[1:])
    return _unknown(words[0])


def usage() -> str:
    """The page of ``hostel --help``."""
    width = max(map(len, TOOLS))
    lines = ["Usage: hostel TOOL [ARGUMENT]...", "", "Tools:"]
    lines += [f"  {name:<{width}}  {tool.summary}" for name, tool in TOOLS.items()]
    lines += [
        "",
        "  hostel TOOL --help   what a tool takes",
        "  hostel --version     the version",
        "",
        f"A link to hostel named {', '.join(DROP_IN[:-1])} or {DROP_IN[-1]} acts as that tool:",
        "'hostel link-tools DIR' makes them.",
    ]
    return "\n".join(lines)


def _unknown(word: str) -> int:
    import difflib

    if word.startswith("-"):
        message = f"unknown option '{word}'"
    else:
        close = difflib.get_close_matches(word, TOOLS, 1, 0.5)
        message = f"unknown command '{word}'" + (f"; did you mean '{close[0]}'?" if close else "")
    print(f"hostel: {message}\nTry 'hostel --help' for more information.", file=sys.stderr)
    return 1


def run_tool(name: str, words: list[str]) -> int:
    """Import a tool and run it, its errors in its own form.

    Returns:
        The exit code.
    """
    tool = TOOLS[name]
    return guarded(tool.error, lambda: _call(name, tool, words))


def _call(name: str, tool: Tool, words: list[str]) -> int:
    try:
        module = importlib.import_module(tool.module)
    except ModuleNotFoundError as error:
        if error.name is None or not tool.module.startswith(error.name):
            raise
        print(f"{tool.error}'{name}' is not part of this installation", file=sys.stderr)
        return 1
    if tool.takes_prog:
        return cast("Callable[[list[str], str], int]", module.main)(words, name)
    return cast("Callable[[list[str]], int]", module.main)(words)


def guarded(prefix: str, call: Callable[[], int]) -> int:
    """Call, flush what was printed, and turn every exception into one line and an exit code."""
    try:
        code = call()
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
        return BROKEN_PIPE
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        return INTERRUPTED
    except Exception as error:
        if os.environ.get("HOSTEL_DEBUG") == "1":
            raise
        _flush_quietly()
        sys.stderr.write(f"{prefix}{describe(error)}\n")
        return 1
    return code


def describe(error: Exception) -> str:
    """An exception as one line that says what to do."""
    if isinstance(error, OSError) and (error.strerror or isinstance(error, HostelError)):
        from hostel.cause import name_of, sentence

        is_named = error.filename is not None and not isinstance(error, HostelError)
        return f"{name_of(error)}: {sentence(error)}" if is_named else sentence(error)
    if isinstance(error, HostelError):
        return str(error)
    if isinstance(error, MemoryError):
        return "out of memory"
    return f"internal error: {type(error).__name__}: {error} (HOSTEL_DEBUG=1 shows where)"


def _flush_quietly() -> None:
    try:
        sys.stdout.flush()
    except OSError:
        _discard_output()


def _discard_output() -> None:
    from hostel.cli.streams import discard

    discard(sys.stdout)
