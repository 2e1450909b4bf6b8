"""One command line run in this process: what it prints, and how it ends."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import re
import signal
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

from hostel.cli.output import Output
from hostel.cli.virt_clone import arguments as virt_clone_arguments
from hostel.cli.virt_clone import main as virt_clone
from hostel.cli.virt_install import arguments, legacy, registry
from hostel.cli.virt_install import main as virt_install
from hostel.cli.virt_install.guest import Guest
from hostel.cli.virt_install.host import Host
from hostel.cli.virt_install.location import DirectoryTree
from hostel.cli.virt_install.seed import Seed
from hostel.cli.virt_xml import arguments as virt_xml_arguments
from hostel.cli.virt_xml import main as virt_xml
from hostel.errors import HostelError
from virt_install_data.commands import Command
from virt_install_data.standin import Hypervisors

_UUID = "00000000-1111-2222-3333-444444444444"
_MAC = "00:11:22:33:44:55"
_LIMIT = 10.0  # seconds for a command line


class Endless(BaseException):
    """A command line does not end."""


def _give_up(number: int, frame: object) -> None:
    raise Endless


def run(command: Command, hypervisors: Hypervisors, home: Path) -> tuple[int, str]:
    """Run a command line; returns its exit code and everything it printed."""
    printed = io.StringIO()
    signal.signal(signal.SIGALRM, _give_up)
    signal.setitimer(signal.ITIMER_REAL, _LIMIT)
    with _surroundings(command, printed):
        try:
            code = _RUN[command.tool](command, hypervisors, home, Output(printed, printed))
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        except (HostelError, OSError) as error:
            printed.write(f"ERROR    {error}\n")
            code = 1
        except Endless:
            printed.write("it does not end\n")
            code = 1
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    return code, printed.getvalue()


@contextlib.contextmanager
def _surroundings(command: Command, printed: io.StringIO) -> Iterator[None]:
    """What is random is the same each time, and what is printed past the streams is caught, too."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch("uuid.uuid4", lambda: _UUID))
        stack.enter_context(mock.patch("hostel.cli.virt_install.network.free_address", _free_address()))
        stack.enter_context(mock.patch("hostel.cli.virt_install.network.default_bridge", lambda: "testsuitebr0"))
        # The tests' pools know nothing of the files of this machine, and the user's images are where libvirt has them.
        stack.enter_context(
            mock.patch("hostel.cli.virt_install.storage.Storage._format_of", lambda storage, path: None)
        )
        for module in ("virt_install", "virt_xml", "virt_clone"):
            stack.enter_context(mock.patch(f"hostel.cli.{module}.main.images", _images))
        stack.enter_context(mock.patch("hostel.cli.virt_install.network.check", lambda guest: None))
        stack.enter_context(mock.patch("hostel.cli.virt_install.location.UrlTree", _FakeTree))
        if "VIRTINST_TEST_SUITE_PRINT_CLOUDINIT" in command.environment:
            stack.enter_context(mock.patch("hostel.cli.virt_install.seed.Seed.user_data", _printed(Seed.user_data)))
        # Who waits for a machine waits for nothing here, and the minutes pass at once.
        stack.enter_context(mock.patch("hostel.cli.virt_install.install.time", _Hasty()))
        stack.enter_context(mock.patch("hostel.cli.virt_install.console._text", lambda domain, output: None))
        stack.enter_context(mock.patch.dict(os.environ, command.environment))
        stack.enter_context(contextlib.redirect_stdout(printed))
        stack.enter_context(contextlib.redirect_stderr(printed))
        yield


def _images(host: Host) -> str:
    return "/var/lib/libvirt/images" if host.is_privileged or host.is_test else "/tmp/.local/share/libvirt/images"


class _FakeTree(DirectoryTree):
    """Every server has the one tree that the tests have, but for one that has none."""

    def __init__(self, url: str) -> None:
        root = "/nosuch" if "testsuitefail" in url else "tests/data/fakemedia/fakerhel6tree"
        super().__init__(root)

    def fetch(self, path: str, target: Path) -> None:
        """A file that no tree has is there, too."""
        if self.has(path):
            super().fetch(path, target)
        else:
            target.touch()


def _printed(user_data: Callable[[Seed], str]) -> Callable[[Seed], str]:
    """What cloud-init is told is printed first, without the password."""

    def told(seed: Seed) -> str:
        text = user_data(seed)
        if "user-data" not in seed._values:
            print(re.sub(r"root:(.*)", "root:[SCRUBBLED]", text))
        return text

    return told


class _Hasty:
    """Time that passes an hour at a look."""

    def __init__(self) -> None:
        self._hours = itertools.count()

    def monotonic(self) -> float:
        """The time, in seconds."""
        return next(self._hours) * 3600.0

    def sleep(self, seconds: float) -> None:
        """No time is lost."""


def _free_address() -> Callable[[Guest], str]:
    """The same address for every interface, or one after the other where the tests want that."""
    number = itertools.count()

    def address(guest: Guest) -> str:
        return (
            f"{_MAC[:-1]}{int(_MAC[-1]) + next(number)}"
            if "VIRTINST_TEST_SUITE_INCREMENT_MACADDR" in os.environ
            else _MAC
        )

    return address


def _uri(options: Namespace) -> str:
    return options.connect or "test:///default"


def _virt_install(command: Command, hypervisors: Hypervisors, home: Path, output: Output) -> int:
    options = arguments.parser().parse_args(command.words)
    if options.xmlstep:
        options.xmlonly = options.xmlstep
    output.quiet = bool(options.xmlonly) or options.quiet
    if virt_install.explained(options, virt_install._LISTINGS, output):
        return 0
    for message in legacy.convert(options):
        output.err.write(f"WARNING  {message}\n")
    with hypervisors.connection(_uri(options), home) as opened:
        return virt_install.run(opened, options, output)


def _virt_xml(command: Command, hypervisors: Hypervisors, home: Path, output: Output) -> int:
    options = virt_xml_arguments.parser().parse_args(command.words)
    shows = options.confirm or options.print_xml or options.print_diff or options.build_xml
    output.quiet = options.quiet and not shows
    if virt_install.explained(options, {**registry.tables(), "os-variant": virt_install.OSINFO}, output):
        return 0
    given = None
    if not options.domain and not options.build_xml:
        given = virt_xml.document(options, command.given.open() if command.given else None)
    virt_xml.check(options)
    with hypervisors.connection(_uri(options), home) as opened:
        return virt_xml.run(opened, options, output, given, io.StringIO(command.answers or ""))


def _virt_clone(command: Command, hypervisors: Hypervisors, home: Path, output: Output) -> int:
    words = [word for word in command.words if word != "--__test-nodry"]
    options = virt_clone_arguments.parser().parse_args(words)
    output.quiet = options.quiet or options.print_xml
    virt_clone.check(options)
    with hypervisors.connection(_uri(options), home) as opened:
        return virt_clone.run(opened, options, output)


_RUN: dict[str, Callable[[Command, Hypervisors, Path, Output], int]] = {
    "virt-install": _virt_install,
    "virt-xml": _virt_xml,
    "virt-clone": _virt_clone,
}
