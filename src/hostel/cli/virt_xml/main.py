"""Start of ``hostel virt-xml``: what is asked for, and what becomes of the changed document."""

from __future__ import annotations

import difflib
import os
import sys
from argparse import Namespace
from typing import Final, TextIO

import hostel
from hostel.cli.output import Output
from hostel.cli.virt_install import existing, osinfo, registry
from hostel.cli.virt_install.console import warn
from hostel.cli.virt_install.guest import Guest
from hostel.cli.virt_install.host import Host
from hostel.cli.virt_install.main import DEFAULT_URI, OSINFO, URI_VARIABLES, explained, images, read_osinfo
from hostel.cli.virt_install.option import Option
from hostel.cli.virt_install.storage import Storage
from hostel.cli.virt_xml.arguments import NO_EDIT, parser
from hostel.cli.virt_xml.change import Change, built
from hostel.cli.virt_xml.live import Live
from hostel.drivers.base import DomainState
from hostel.errors import UsageError, VirtError
from hostel.objects import Connection

_ACTIONS: Final = ("edit", "add-device", "remove-device", "build-xml")


def main(words: list[str]) -> int:
    """Run virt-xml; returns its exit code."""
    try:
        options = parser().parse_args(words)
    except SystemExit as error:  # argparse has printed what is wrong, or the help
        return error.code if isinstance(error.code, int) else 1
    shows = options.confirm or options.print_xml or options.print_diff or options.build_xml
    output = Output(quiet=options.quiet and not shows)
    if explained(options, {**registry.tables(), "os-variant": OSINFO}, output):
        return 0
    given = None
    if not options.domain and not options.build_xml:
        given = document(options, sys.stdin)
    defaults = (os.environ.get(name) for name in URI_VARIABLES)
    uri = options.connect or next(filter(None, defaults), DEFAULT_URI)
    check(options)
    with hostel.open(uri) as connection:
        return run(connection, options, output, given, sys.stdin)


def document(options: Namespace, stream: TextIO | None) -> str:
    """The document that standard input brings where no machine is named.

    Raises:
        UsageError: it brings none, or what was asked for needs a machine.
    """
    if stream is None or stream.closed or stream.isatty():
        raise UsageError("A domain must be specified")
    for name in ("confirm", "update"):
        if getattr(options, name):
            raise UsageError(f"Can't use --{name} with stdin input.")
    return stream.read()


def check(options: Namespace) -> str:
    """Refuse what contradicts itself, before anything is opened; returns the name of the one option that is changed.

    Raises:
        UsageError: it does.
    """
    chosen = [name for name in _ACTIONS if getattr(options, name.replace("-", "_")) not in (False, NO_EDIT)]
    if not chosen:
        raise UsageError(f"One of {', '.join(f'--{name}' for name in _ACTIONS)} must be specified.")
    if len(chosen) > 1:
        raise UsageError(f"Conflicting options {', '.join(f'--{name}' for name in chosen)}")
    changed = [name for name in registry.tables() if getattr(options, name.replace("-", "_"))]
    if not changed:
        raise UsageError("No change specified.")
    if len(changed) > 1:
        flags = [f"--{name}" for name in changed]
        raise UsageError(f"Only one change operation may be specified (conflicting options {flags})")
    if options.update and not registry.tables()[changed[0]].owner:
        raise UsageError(f"Don't know how to --update for --{changed[0]}")
    if options.update and options.start:
        raise UsageError("Cannot use --update and --start at the same time")
    if options.os_variant is not None and not options.add_device:
        raise UsageError(f"--os-variant/--osinfo is not supported with --{chosen[0]}")
    if changed[0] == "xml" and options.edit == NO_EDIT:
        raise UsageError("--xml can only be used with --edit")
    return changed[0]


def run(connection: Connection, options: Namespace, output: Output, given: str | None, answers: TextIO) -> int:
    """Do what the options ask for; ``given`` is the document where no machine is named.

    Raises:
        HostelError: it cannot be done; then nothing that was made for it is left.
    """
    return _Command(connection, options, output, given, answers).run()


class _Command:
    """One command line on one connection."""

    def __init__(
        self, connection: Connection, options: Namespace, output: Output, given: str | None, answers: TextIO
    ) -> None:
        self.options = options
        self.output = output
        self._name = check(options)
        self._connection = connection
        self._answers = answers
        self._host = Host(connection)
        self._storage = Storage(connection, images(self._host))
        self._domain = existing.find(connection, options.domain) if options.domain else None
        self._given = given
        prints = options.print_xml or options.print_diff
        self._defines = options.define if options.define is not None else given is None and not prints
        self._prints_xml = options.print_xml or (given is not None and not self._defines and not options.print_diff)
        self._prints_diff = options.print_diff or (options.confirm and not self._prints_xml)

    def run(self) -> int:
        """Change, print, define and start as was asked for."""
        domain, options = self._domain, self.options
        if options.build_xml:
            guest = self._parse(domain.xml(secure=True)) if domain is not None else self._blank()
            for text in built(guest, self._option(guest), self._texts()):
                self.output.line(text)
            return 0
        runs = domain is not None and domain.state is not DomainState.SHUTOFF
        live: Live | None = None
        if options.update:
            if runs and domain is not None:
                change = self._change(domain.xml(secure=True))
                live = Live(domain, change, self._storage, self.output, self._ask if options.confirm else None)
                live.apply()
            else:
                warn(self.output, "The VM is not running, --update is inapplicable.")
            if not self._defines:
                return 0
        xml = self._given if domain is None else domain.xml(inactive=runs, secure=True)
        change = self._change(xml or "", live.change if live is not None else None)
        try:
            return self._keep(change, was_updated=live is not None, runs=runs)
        except BaseException:
            for problem in self._storage.undo():
                warn(self.output, problem)
            raise

    def _change(self, xml: str, done: Change | None = None) -> Change:
        """Change a document, and print what was asked for; what is new in one that runs is new in this one too."""
        guest = self._parse(xml)
        change = Change(guest, self._option(guest), self.options, done)
        before = guest.xml()
        self._choose_system(guest)
        change.make(self._texts())
        for message in guest.warnings:
            warn(self.output, message)
        after = guest.xml()
        diff = "".join(
            difflib.unified_diff(
                before.splitlines(keepends=True), after.splitlines(keepends=True), "Original XML", "Altered XML"
            )
        )
        if not diff:
            warn(self.output, "No XML diff was generated. The requested changes will have no effect.")
        if self._prints_diff:
            if diff:
                self.output.note(diff)
        elif self._prints_xml:
            self.output.note(after)
        return change

    def _keep(self, change: Change, *, was_updated: bool, runs: bool) -> int:
        """Define the changed machine, and start it, as was asked for; returns the exit code."""
        guest, options, output = change.guest, self.options, self.output
        if not self._defines:
            if options.start and self._ask_if_told(f"Start '{guest.name}' with the changed XML?"):
                change.build(self._storage)
                self._start(lambda: self._connection.create_domain(guest.xml()), guest.name)
            return 0
        if not self._ask_if_told(f"Define '{guest.name}' with the changed XML?"):
            return 0
        before = None if self._domain is None else self._domain.xml(inactive=True, secure=True)
        if not was_updated:
            change.build(self._storage)
        domain = self._connection.define_domain(guest.xml())
        output.note(f"Domain '{guest.name}' defined successfully.")
        if options.start:
            self._start(domain.start, guest.name)
        elif runs and not was_updated:
            output.note("Changes will take effect after the domain is fully powered off.")
        elif before is not None and domain.xml(inactive=True, secure=True) == before:
            warn(
                output,
                "XML did not change after domain define. You may have changed a value that libvirt is setting by "
                "default.",
            )
        return 0

    def _start(self, start: object, name: str) -> None:
        assert callable(start)
        try:
            start()
        except VirtError as error:
            raise UsageError(f"Failed starting domain '{name}': {error}") from error
        self.output.note(f"Domain '{name}' started successfully.")

    def _parse(self, xml: str) -> Guest:
        return Guest.parse(self._host, self._storage, xml)

    def _blank(self) -> Guest:
        """The machine that a part is built for where none is named: what virt-install would make."""
        return Guest(self._host, self._storage)

    def _option(self, guest: Guest) -> Option | None:
        return None if self._name == "xml" else registry.options(guest)[self._name]

    def _texts(self) -> list[str]:
        return list(getattr(self.options, self._name.replace("-", "_")))

    def _choose_system(self, guest: Guest) -> None:
        if self.options.os_variant is None:
            return
        name, _, _ = read_osinfo(self.options.os_variant)
        if name is not None:
            guest.set_system(osinfo.find(name))

    def _ask_if_told(self, question: str) -> bool:
        return not self.options.confirm or self._ask(question)

    def _ask(self, question: str) -> bool:
        """Ask until the answer is yes or no; the end of the answers is no."""
        while True:
            self.output.out.write(f"{question} (y/n): ")
            self.output.out.flush()
            line = self._answers.readline()
            answer = line.strip().lower()
            if answer in ("y", "yes"):
                return True
            if answer in ("n", "no") or not line:
                return False
            self.output.line("Please enter 'yes' or 'no'.")
