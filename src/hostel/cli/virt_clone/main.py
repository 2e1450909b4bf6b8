"""Start of ``hostel virt-clone``: the new machine's document, its disks, and the machine itself."""

from __future__ import annotations

import os
import time
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import hostel
from hostel.cli.output import Output
from hostel.cli.virt_clone.arguments import parser
from hostel.cli.virt_clone.clone import Action, DiskCopy, free_name, free_path, make_own
from hostel.cli.virt_clone.copy import copy_file, fill_device
from hostel.cli.virt_install import network, storage
from hostel.cli.virt_install.console import warn
from hostel.cli.virt_install.disk import disks
from hostel.cli.virt_install.guest import Guest
from hostel.cli.virt_install.host import Host
from hostel.cli.virt_install.main import DEFAULT_URI, URI_VARIABLES, checks, images
from hostel.cli.virt_install.storage import Storage
from hostel.drivers.base import DomainState
from hostel.errors import ErrorCode, HostelError, UsageError, VirtError
from hostel.objects import Connection

_MINUTE: Final = 60


def main(words: list[str]) -> int:
    """Run virt-clone; returns its exit code."""
    try:
        options = parser().parse_args(words)
    except SystemExit as error:  # argparse has printed what is wrong, or the help
        return error.code if isinstance(error.code, int) else 1
    output = Output(quiet=options.quiet or options.print_xml)
    check(options)
    defaults = (os.environ.get(name) for name in URI_VARIABLES)
    uri = options.connect or next(filter(None, defaults), DEFAULT_URI)
    with hostel.open(uri) as connection:
        return run(connection, options, output)


def check(options: Namespace) -> None:
    """Refuse a command line that says too little.

    Raises:
        UsageError: it does.
    """
    if options.file is None and not options.auto_clone:
        raise UsageError("Either --auto-clone or --file is required, use '--auto-clone or --file' and try again.")
    if not options.original and not options.original_xml:
        raise UsageError("An original machine name is required, use '--original src_name' and try again.")


def run(connection: Connection, options: Namespace, output: Output) -> int:
    """Copy the machine that the options name, or print what its copy would be; returns the exit code.

    Raises:
        HostelError: it cannot be copied; then nothing is left of the copy.
    """
    check(options)
    return _Command(connection, options, output).run()


class _Command:
    """One command line on one connection."""

    def __init__(self, connection: Connection, options: Namespace, output: Output) -> None:
        self._connection = connection
        self._options = options
        self._output = output
        texts = options.check or (["all=off"] if options.force else [])
        self._checks = checks(texts)
        host = Host(connection)
        self._storage = Storage(connection, images(host))
        self._guest = Guest.parse(host, self._storage, self._original())
        self._original_name = self._guest.name
        self._files: list[str] = []  # that were copied so far, outside of any pool

    def run(self) -> int:
        """Settle everything, then copy; returns the exit code."""
        guest, options, output = self._guest, self._options, self._output
        for message in make_own(guest):
            warn(output, message)
        guest.domain.put("name", free_name(guest, self._original_name))
        if options.uuid:
            guest.domain.put("uuid", options.uuid)
        if options.name:
            guest.domain.put("name", options.name)
        elif not options.auto_clone:
            raise UsageError("A name is required for the new virtual machine, use '--name NEW_VM_NAME' to specify one.")
        copies = [DiskCopy(disk, self._storage) for disk in disks(guest)]
        self._choose(copies)
        self._address()
        self._settle(copies)
        self._check_name()
        self._check_disks(copies)
        for copy in copies:
            copy.put()
        variables = self._variables()
        xml = guest.xml()
        if options.print_xml:
            output.line(xml.rstrip("\n"))
            return 0
        self._make(xml, copies, variables)
        output.note("")
        output.note(f"Clone '{guest.name}' created successfully.")
        return 0

    def _original(self) -> str:
        if self._options.original_xml:
            try:
                return Path(self._options.original_xml).read_text()
            except (OSError, UnicodeDecodeError) as error:
                raise UsageError(f"{self._options.original_xml}: {getattr(error, 'strerror', None) or error}") from None
        name = self._options.original
        try:
            domain = self._connection.domain(name)
        except VirtError as error:
            if error.code is not ErrorCode.NO_DOMAIN:
                raise
            raise UsageError(f"Domain '{name}' was not found.") from None
        if domain.state is not DomainState.SHUTOFF:
            raise UsageError("Domain to clone must be shutoff.")
        return domain.xml(secure=True)

    def _choose(self, copies: list[DiskCopy]) -> None:
        """Say what becomes of each disk, where the user wants it otherwise."""
        for copy in copies:
            if copy.target in (self._options.force_copy or []):
                copy.action = Action.COPY
            if copy.target in (self._options.skip_copy or []):
                copy.action = Action.SHARE
            if self._options.preserve and copy.action is Action.COPY:
                copy.action = Action.PRESERVE

    def _address(self) -> None:
        given = list(self._options.mac or [])
        if not given or given[0] == "RANDOM":
            return
        used = network.used_addresses(self._guest)
        for address in given:
            network.check_address(address)
            if address.lower() in used:
                self._check("mac_in_use", f"The MAC address '{address}' is in use by another virtual machine.")
        for part, address in zip(self._guest.devices["interface"], given, strict=False):
            part.put("mac/@address", address)

    def _settle(self, copies: list[DiskCopy]) -> None:
        """Say where each copy will be: as the user says, in turn, and then beside the original."""
        paths = list(self._options.file or [])
        taken: set[str] = set()
        for copy in copies:
            if copy.action is Action.SHARE:
                continue
            copy.require_copyable()
            path = paths.pop(0) if paths else None
            if copy.path is None:
                path = None
            elif path is None and self._options.auto_clone:
                path = free_path(self._storage, self._original_name, self._guest.name, copy.path)
            elif path is None:
                raise UsageError(
                    f"no path is given for the copy of '{copy.path}': give one more --file, or --auto-clone"
                )
            copy.settle(path, sparse=self._options.sparse)
            if copy.action is Action.COPY and copy.medium is not None:
                if copy.medium.path in taken:
                    raise UsageError(f"two disks cannot both be copied to '{copy.medium.path}'")
                taken.add(copy.medium.path)

    def _check_name(self) -> None:
        name = self._guest.name
        if not self._options.replace and any(domain.name == name for domain in self._connection.domains()):
            raise UsageError(f"Invalid name for new guest: Guest name '{name}' is already in use.")

    def _check_disks(self, copies: list[DiskCopy]) -> None:
        for copy in copies:
            medium = copy.medium
            if copy.action is Action.SHARE or medium is None:
                continue
            if copy.onto_device:
                self._check("path_exists", f"This will overwrite the existing path '{medium.path}'")
            is_shared, is_read = copy.disk.get("shareable") is not None, copy.disk.get("readonly") is not None
            users = storage.users_of(self._connection, medium.path, shareable=is_shared, read_only=is_read)
            if users:
                self._check("path_in_use", f"Disk {medium.path} is already in use by other guests {users}.")
            problem = None if copy.new is None else self._storage.excess(copy.new)
            if problem is not None:
                self._check("disk_size", problem)
            doubt = copy.doubt()
            if doubt is not None:
                self._check("trust", f"Disk {copy.path} is not taken as it is: {doubt}.")

    def _check(self, name: str, problem: str) -> None:
        """Refuse, or only warn where the user said so."""
        if self._checks.get("all", self._checks.get(name, True)):
            raise UsageError(f"{problem} (Use --check {name}=off or --check all=off to override)")
        warn(self._output, problem)

    def _variables(self) -> tuple[str, str] | None:
        """Give the machine a file of its own for its firmware's variables; returns what is copied where."""
        place = "os/nvram/source/@file" if self._guest.domain.has("os/nvram/source") else "os/nvram"
        path = self._guest.domain.get(place)
        if not path:
            return None
        new = self._options.nvram or os.path.join(os.path.dirname(path), f"{self._guest.name}_VARS.fd")
        self._guest.domain.put(place, new)
        old, found = self._storage.locate(path), self._storage.locate(new)
        is_copied = old.exists and not found.exists and not self._options.preserve
        return (path, new) if is_copied else None

    def _make(self, xml: str, copies: list[DiskCopy], variables: tuple[str, str] | None) -> None:
        """Copy the disks, and define the machine once they are whole; what fails leaves nothing behind."""
        from hostel.model.domain.domain import Domain

        Domain.parse(xml)
        try:
            for copy in copies:
                if copy.action is Action.COPY and copy.medium is not None:
                    self._copy(copy)
            if variables is not None:
                self._copy_file(*variables)
            if self._options.replace:
                self._remove(self._guest.name)
            self._connection.define_domain(xml)
        except BaseException:
            for problem in [*self._storage.undo(), *self._undo_files()]:
                warn(self._output, problem)
            raise

    def _copy(self, copy: DiskCopy) -> None:
        assert copy.medium is not None and copy.path is not None
        volume = copy.volume
        if copy.new is not None and volume is not None:
            build = partial(self._storage.build, copy.new, source=volume, reflink=self._options.reflink)
            self._step(f"Allocating '{copy.new.name}'", build)
        elif copy.onto_device:
            name = os.path.basename(copy.path)
            fill = partial(fill_device, copy.path, copy.medium.path, format=copy.format)
            self._step(f"Cloning {name}", fill)
        else:
            self._copy_file(copy.path, copy.medium.path, copy.format)

    def _copy_file(self, source: str, target: str, format: str = "raw") -> None:
        name, options = os.path.basename(source), self._options
        copy = partial(copy_file, source, target, format=format, sparse=options.sparse, reflink=options.reflink)
        self._step(f"Cloning {name}", copy)
        self._files.append(target)

    def _undo_files(self) -> list[str]:
        left: list[str] = []
        while self._files:
            path = self._files.pop()
            try:
                os.unlink(path)
            except OSError as error:
                left.append(f"Failed to remove '{path}': {error.strerror}")
        return left

    def _remove(self, name: str) -> None:
        """Remove a machine of that name; its disks stay."""
        try:
            domain = self._connection.domain(name)
        except VirtError as error:
            if error.code is ErrorCode.NO_DOMAIN:
                return
            raise
        try:
            if domain.is_active:
                domain.destroy()
            domain.undefine()
        except HostelError as error:
            raise UsageError(f"Could not remove old vm '{name}': {error}") from error

    def _step(self, label: str, action: Callable[[], object]) -> None:
        began = time.monotonic()
        action()
        seconds = int(time.monotonic() - began)
        self._output.note(f"{label:<60.60}| {seconds // _MINUTE:02}:{seconds % _MINUTE:02}")
