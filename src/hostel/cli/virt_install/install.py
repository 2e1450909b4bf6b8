"""Doing it: the volumes are made, the machine is started, and it is waited for until the system is installed."""

from __future__ import annotations

import contextlib
import time
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

from hostel.cli.output import Output
from hostel.cli.virt_install import console, disk
from hostel.cli.virt_install.plan import Plan
from hostel.cli.virt_install.storage import Storage
from hostel.drivers.base import DomainState, ShutoffReason
from hostel.errors import ErrorCode, HostelError, UsageError, VirtError
from hostel.objects import Connection, Domain

_POLL: Final = 1.0  # seconds between looks at a machine that is waited for
_SETTLE: Final = 2.0  # seconds that a machine may take to be seen as ended after its console closed
_MINUTE: Final = 60
_Result = TypeVar("_Result")
_ENDED_BY_USER: Final = (ShutoffReason.DESTROYED, ShutoffReason.SAVED)


class Installation:
    """One installation on its way."""

    def __init__(
        self,
        connection: Connection,
        storage: Storage,
        plan: Plan,
        options: Namespace,
        output: Output,
        tell_password: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._storage = storage
        self._plan = plan
        self._options = options
        self._output = output
        self._tell_password = tell_password
        self._console = console.choose(options.autoconsole, plan.guest, output)
        self._wait: int | None = options.wait

    def run(self) -> int:
        """Make the machine, and wait for what was asked to be waited for.

        Returns:
            The exit code.
        """
        name = self._plan.guest.name
        if not self._plan.is_again:
            check_name(self._connection, name)
        self._plan.check()
        if self._plan.method.cdrom is not None and self._console.kind == "text":
            console.warn(
                self._output,
                "CDROM media does not print to the text console by default, so you likely will not see text install "
                "output. A serial console has to be set up by the medium itself.",
            )
        if self._wait is None and not self._console.connects and self._console.is_default:
            console.warn(self._output, "No console to launch for the guest, defaulting to --wait -1")
            self._wait = -1
        self._output.note("\nStarting install...")
        self._tell_password()
        began = time.monotonic()
        try:
            domain = self._create()
        except BaseException as error:
            for problem in self._storage.undo():
                self._error(problem)
            if not isinstance(error, HostelError | OSError):
                raise
            self._error(str(error))
            return self._failed(name)
        try:
            if self._options.autostart:
                self._autostart(domain)
            return self._follow(domain, began)
        except (HostelError, OSError) as error:
            self._error(str(error))
            return self._failed(name)

    def _create(self) -> Domain:
        for part in disk.disks(self._plan.guest):
            if part.new is not None:
                self._debug("volume", part.new.xml())
                self._step(f"Allocating '{part.new.name}'", partial(self._storage.build, part.new))
        first, last = self._plan.documents()
        for what, text in (("first boot", first), ("domain", last)):
            self._debug(what, text)
        return self._step("Creating domain...", partial(self._start, first, last))

    def _start(self, first: str | None, last: str) -> Domain:
        """Start with the first document, and keep the last; what cannot be kept does not run on."""
        boots = not self._options.noreboot or first is not None
        if self._options.transient:
            return self._connection.create_domain(first or last)
        if not boots:
            return self._connection.define_domain(last)
        domain = self._connection.create_domain(first or last)
        try:
            return self._connection.define_domain(last)
        except BaseException:
            with contextlib.suppress(VirtError):  # it may have ended on its own
                domain.destroy()
            raise

    def _autostart(self, domain: Domain) -> None:
        if self._options.transient:
            console.warn(self._output, "Could not set autostart flag: a transient domain has no definition to start.")
        else:
            domain.autostart = True

    def _step(self, label: str, action: Callable[[], _Result]) -> _Result:
        began = time.monotonic()
        result = action()
        seconds = int(time.monotonic() - began)
        self._output.note(f"{label:<60.60}| {seconds // _MINUTE:02}:{seconds % _MINUTE:02}")
        self._output.out.flush()
        return result

    def _follow(self, domain: Domain, began: float) -> int:
        """Connect the console, and wait for the end of the installation where that was asked for."""
        options, output = self._options, self._output
        try:
            console.connect(self._console, domain, output, wait=self._wait is None)
            self._close(domain)
            if not self._await(domain, began):
                return 1 if self._wait is not None else 0
        except KeyboardInterrupt:
            self._close(domain)
            output.err.write("Domain install interrupted.\n")
            raise
        output.note("Domain creation completed.")
        if options.transient or _is_active(domain):
            return 0
        if options.noreboot or not self._plan.method.installs:
            output.note(f"You can restart your domain by running:\n  {self._start_command(domain.name)}")
            return 0
        if _was_stopped(domain) and not options.destroy_on_exit:
            output.note("User stopped the VM. Not rebooting.")
            return 0
        output.note("Restarting guest.")
        domain.start()
        console.connect(self._console, domain, output, wait=True)
        self._close(domain)
        return 0

    def _close(self, domain: Domain) -> None:
        """With ``--destroy-on-exit`` a machine ends when its console does."""
        if self._options.destroy_on_exit and self._console.connects and self._wait is None and _is_active(domain):
            domain.destroy()

    def _await(self, domain: Domain, began: float) -> bool:
        """Wait as long as was asked for; returns whether the machine's creation is over."""
        if not _is_active(domain):
            return True
        if self._console.connects and self._wait is None:
            time.sleep(_SETTLE)
            if not _is_active(domain):
                return True
        if self._wait is None:
            if not self._plan.method.installs:
                return True
            self._output.note(
                "\nDomain is still running. Installation may be in progress.\n"
                "You can reconnect to the console to complete the installation process."
            )
            return False
        self._output.note(f"\nDomain is still running. Installation may be in progress.\n{self._waiting()}")
        self._output.out.flush()
        while _is_active(domain):
            time.sleep(_POLL)
            if self._wait >= 0 and time.monotonic() - began >= self._wait * _MINUTE:
                self._output.note("Installation has exceeded specified time limit. Exiting application.")
                return False
        self._output.note("Domain has shutdown. Continuing.")
        return True

    def _waiting(self) -> str:
        minutes = self._wait or 0
        if minutes < 0:
            return "Waiting for the installation to complete."
        return f"Waiting {minutes} minute{'' if minutes == 1 else 's'} for the installation to complete."

    def _start_command(self, name: str) -> str:
        return f"virsh --connect {self._connection.uri} start {name}"

    def _debug(self, what: str, text: str | None) -> None:
        if self._options.debug and text is not None:
            self._output.err.write(f"DEBUG    {what}:\n{text.rstrip()}\n")

    def _error(self, message: str) -> None:
        self._output.out.flush()
        self._output.err.write(f"ERROR    {message}\n")
        self._output.err.flush()

    def _failed(self, name: str) -> int:
        self._output.err.write(
            "Domain installation does not appear to have been successful.\n"
            "If it was, you can restart your domain by running:\n"
            f"  {self._start_command(name)}\n"
            "otherwise, please restart your installation.\n"
        )
        return 1


def check_name(connection: Connection, name: str) -> None:
    """Refuse a name that no guest can have, or that another has.

    Raises:
        UsageError: it is one.
    """
    if not name:
        raise UsageError("A name must be specified for the Guest")
    if " " in name:
        raise UsageError(f"Guest name '{name}' can not contain ' ' character.")
    if any(domain.name == name for domain in connection.domains()):
        raise UsageError(f"Guest name '{name}' is already in use.")


def _is_active(domain: Domain) -> bool:
    """Whether a machine runs; one that is gone does not.

    Raises:
        UsageError: it crashed.
    """
    try:
        if domain.state is DomainState.CRASHED:
            raise UsageError("Domain has crashed.")
        return domain.is_active
    except VirtError as error:
        if error.code is ErrorCode.NO_DOMAIN:
            return False
        raise


def _was_stopped(domain: Domain) -> bool:
    state = domain.state_info()
    return state.state is DomainState.SHUTOFF and state.reason in _ENDED_BY_USER
