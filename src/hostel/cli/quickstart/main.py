"""Start of ``hostel quickstart``: what is asked for, what is here, how it ends."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import signal
import sys
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Final, NoReturn, Self

from hostel.cli.main import describe
from hostel.cli.quickstart import tour
from hostel.cli.quickstart.machine import DISK, NAME, InventedMachine, RealMachine
from hostel.cli.quickstart.narrator import Narrator
from hostel.cli.quickstart.place import Place
from hostel.drivers.fault import printable
from hostel.errors import HostelError, UsageError

if TYPE_CHECKING:
    import argparse

EMULATOR: Final = "qemu-system-x86_64"
NO_GUEST: Final = 3
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_INSTALL: Final = """\
  apt-get install qemu-system-x86         # Debian, Ubuntu
  dnf install qemu-system-x86-core        # Fedora
  pacman -S qemu-base                     # Arch"""
_DESCRIPTION: Final = """\
From an empty directory to a guest that boots from our disk, step by step: a storage pool, a disk image with the
built-in guest, an overlay, a machine under QEMU, a snapshot. Each step is a command that you could type. No daemon, no
root and no network are needed. Afterwards everything is removed."""
_EPILOG: Final = f"""\
exit status:
  0    the guest reported what was expected
  1    something failed
  {NO_GUEST}    no guest could prove anything: {EMULATOR} is not here, or --no-qemu was given; all else was done
  128+n  ended by signal n, such as 130 for Ctrl-C"""


def main(words: list[str]) -> int:
    """Run a command line; returns the exit code."""
    arguments = _parser().parse_args(words)
    for stream in (sys.stdout, sys.stderr):
        # A directory's name may hold any bytes.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="surrogateescape")
    with Interruption() as interruption:
        try:
            return _run(arguments, interruption)
        except KeyboardInterrupt:
            return 128 + (interruption.caught or signal.SIGINT)


def _parser() -> argparse.ArgumentParser:
    import argparse

    class Parser(argparse.ArgumentParser):
        """Raises what it finds wrong, for the entry point to print."""

        def error(self, message: str) -> NoReturn:
            raise UsageError(f"{message}\nTry '{self.prog} --help' for more information.")

    shape = argparse.RawDescriptionHelpFormatter
    parser = Parser(prog="hostel quickstart", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=shape)
    parser.add_argument("--keep", action="store_true", help="leave what was made, and say what to do with it")
    parser.add_argument("--dir", metavar="DIR", help="work here; a directory that is new or empty (default: a new one)")
    parser.add_argument("--no-qemu", action="store_true", help="run no guest, even where QEMU is there")
    return parser


class Interruption:
    """Makes every signal that asks us to end do it in the same way: what runs is unwound, and cleaned up.

    Attributes:
        caught: the first such signal.
    """

    def __init__(self) -> None:
        self.caught: int | None = None
        self._is_deaf = False
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            # One that is ignored from the start (nohup, a shell's background job) stays ignored.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._interrupt)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def deafen(self) -> None:
        """Note signals from now on, and do nothing else: cleaning up must come to its end, and soon does."""
        self._is_deaf = True

    def _interrupt(self, number: int, _frame: FrameType | None) -> None:
        if self.caught is None:
            self.caught = number
        if not self._is_deaf:
            self._is_deaf = True
            raise KeyboardInterrupt


def _run(arguments: argparse.Namespace, interruption: Interruption) -> int:
    is_real = not arguments.no_qemu and shutil.which(EMULATOR) is not None
    say = Narrator(tour.STEPS)
    place = Place(arguments.dir)
    failure: BaseException | None = None
    proof = ""
    try:
        with place.entered():
            proof = _take(say, place, is_real=is_real, asked=arguments.no_qemu)
    except BaseException as error:
        failure = error
    interruption.deafen()
    if failure is None and interruption.caught is not None:
        failure = KeyboardInterrupt()  # it came with the last step, or where nothing can be raised
    explanation = _explanation(place, failure)
    trouble = _leave(place, keep=arguments.keep)
    if failure is not None or trouble is not None:
        if not isinstance(failure, BrokenPipeError):
            _complain([*explanation, *_rest(place, trouble, keep=arguments.keep)])
        if failure is None or (isinstance(failure, HostelError | OSError) and not isinstance(failure, BrokenPipeError)):
            return 1
        raise failure
    missing = not is_real and not arguments.no_qemu
    for line in _conclusion(say, place, proof, is_real=is_real, missing=missing, keep=arguments.keep):
        say.line(line)
    if interruption.caught is not None:
        raise KeyboardInterrupt
    return 0 if is_real else NO_GUEST


def _take(say: Narrator, place: Place, *, is_real: bool, asked: bool) -> str:
    """Take the tour; returns what it has proven."""
    say.line("From an empty directory to a guest that boots from our disk. What follows $ can be typed as it is:")
    for line in place.preparation():
        say.line(f"  $ {line}")
    if not is_real:
        say.line()
        say.line("--no-qemu was given:" if asked else f"{EMULATOR} is not here:")
        say.line("steps 3 to 5 use the test hypervisor, which runs nothing and is gone with this process.")
        say.line("What is not real is marked NOT REAL.")
    machine = RealMachine(say, place) if is_real else InventedMachine(say)
    try:
        tour.run(say, place, machine)
        return machine.proof
    finally:
        machine.close()


def _explanation(place: Place, failure: BaseException | None) -> list[str]:
    """What went wrong, with the last that was heard of the guest."""
    if failure is None:
        return []
    if isinstance(failure, KeyboardInterrupt):
        return ["", "Interrupted"]
    # What nobody expected is reported by the entry point.
    lines = [f"error: {describe(failure)}"] if isinstance(failure, HostelError | OSError) else []
    try:
        heard = place.log.read_bytes().decode("utf-8", "replace").split("\n")
    except OSError:
        return lines
    words = [printable(line.strip()) for line in heard if line.strip()]
    if words:
        lines += ["The last words on the serial port:", *(f"  {line}" for line in words[-5:])]
    return lines


def _leave(place: Place, *, keep: bool) -> Exception | None:
    """End the machine, and unless asked to keep it remove everything; returns what could not be done."""
    try:
        if keep:
            place.end_machines()
        else:
            place.remove()
    except Exception as error:
        return error
    return None


def _rest(place: Place, trouble: Exception | None, *, keep: bool) -> list[str]:
    """What is left after a failure."""
    if trouble is not None:
        return [f"error: not everything could be cleaned up: {describe(trouble)}", f"What is left is in {place.root}"]
    return [f"Everything is left in {place.root}" if keep else f"Removed {place.root}; --keep leaves it for a look"]


def _complain(lines: list[str]) -> None:
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    sys.stderr.write("".join(f"{line}\n" for line in lines))
    sys.stderr.flush()


def _conclusion(say: Narrator, place: Place, proof: str, *, is_real: bool, missing: bool, keep: bool) -> list[str]:
    """What was proven, what is left, and what to try next."""
    lines = ["", f"{proof} ({say.seconds:.1f} s in all)"]
    if missing:
        lines += ["To see a real machine, install QEMU and run this again:", _INSTALL]
    if not keep:
        return [*lines, "", f"Removed {place.root}. To keep it and play with it: hostel quickstart --keep"]
    lines += ["", f"All of it is left in {place.root}. To go on, in a shell:"]
    lines += [f"  {line}" for line in place.preparation()]
    lines += [
        f"  hostel qemu-img map {DISK}",
        f"  hostel virsh vol-dumpxml disk.qcow2 {tour.POOL}",
        f"  {sys.executable} -c 'import hostel; print(hostel.open().pools())'",
    ]
    if is_real:
        lines += [
            f"  hostel virsh start {NAME} --console    # Ctrl+] leaves",
            f"  hostel virsh vncdisplay {NAME}",
        ]
    return [*lines, f"To remove it: {_removal(place, is_real=is_real)}"]


def _removal(place: Place, *, is_real: bool) -> str:
    ending = f"hostel virsh destroy {NAME}; " if is_real else ""
    return f"{ending}rm -r {shlex.quote(str(place.root))}"
