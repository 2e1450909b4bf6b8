"""What an installation starts from, fetched and made ready in a directory of its own that is gone when it is over."""

from __future__ import annotations

import os
import shutil
import tempfile
from argparse import Namespace
from pathlib import Path
from typing import Final, NamedTuple

from hostel.cli.virt_install import location
from hostel.cli.virt_install.seed import Seed
from hostel.cli.virt_install.storage import Medium, Storage, is_url
from hostel.cli.virt_install.suboption import Given, Refusal, Sub, SubOptions, on_off
from hostel.errors import UsageError

INSTALL: Final = SubOptions(
    "--install",
    (
        *(Sub(name, comma=True) for name in ("bootdev", "kernel", "initrd", "kernel_args")),
        Sub("kernel_args_overwrite"),
        Sub("os"),
        Sub("no_install"),
    ),
    ("os",),
    clears=False,
)
_PREFIX: Final = "virtinst-"


class Start(NamedTuple):
    """A kernel that is booted for the installation, and what it is told."""

    kernel: str
    initrd: str | None
    arguments: str
    system: str | None = None
    medium: Medium | None = None  # the CD-ROM that it came from, which it goes on reading


class Media:
    """The files of one installation; :meth:`close` removes them."""

    def __init__(self, scratch: Path, storage: Storage, options: Namespace, *, is_remote: bool) -> None:
        self._parent = scratch
        self._storage = storage
        self._options = options
        self._is_remote = is_remote
        self._directory: Path | None = None

    def __enter__(self) -> Media:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove what was fetched and made."""
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def _place(self, name: str) -> Path:
        if self._directory is None:
            self._parent.mkdir(parents=True, exist_ok=True)
            self._directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=self._parent))
        return self._directory / name

    def install(self) -> Given:
        """What ``--install`` says."""
        given = INSTALL.read(self._options.install or "")
        unknown = [name for name in given if INSTALL.find(name) is None]
        if unknown:
            raise Refusal(f"Unknown --install options: {unknown}")
        if (system := given.get("os")) is not None:
            raise UsageError(f"OS '{system}' does not have a URL location: name its tree with --location URL")
        return given

    def start(self, arch: str) -> Start | None:
        """The kernel of ``--location`` or ``--install``; None where there is none.

        Raises:
            UsageError: there is no tree, or it cannot be fetched.
        """
        given, extra = self.install(), list(self._options.extra_args or [])
        arguments = given.get("kernel_args")
        overwrites = on_off("kernel_args_overwrite", given.get("kernel_args_overwrite") or "no")
        if arguments and not overwrites:
            extra = [arguments]
        if self._options.location:
            start = self._from_tree(arch, extra)
        elif given.get("kernel"):
            start = self._from_files(given, extra)
        else:
            self._refuse_needless(extra)
            return None
        return start._replace(arguments=arguments) if arguments and overwrites else start

    def _refuse_needless(self, extra: list[str]) -> None:
        if extra:
            raise UsageError("Kernel arguments are only supported with location or kernel installs.")
        if self._options.initrd_inject:
            raise UsageError("Install method does not support initrd injection.")

    def _from_tree(self, arch: str, extra: list[str]) -> Start:
        given = location.LOCATION.read(self._options.location)
        unknown = [name for name in given if location.LOCATION.find(name) is None]
        if unknown:
            raise Refusal(f"Unknown --location options: {unknown}")
        place, kernel, initrd = (given.get(name) for name in ("location", "kernel", "initrd"))
        if not place:
            raise UsageError("location kernel/initrd may only be specified with a location URL/path")
        if bool(kernel) != bool(initrd):
            raise UsageError("location kernel/initrd must be be specified as a pair")
        if self._is_remote and not is_url(place):
            raise UsageError(f"Cannot access install tree on remote connection: {place}")
        place = place if is_url(place) else os.path.abspath(place)
        try:
            tree = location.open_tree(place)
        except UsageError as error:
            raise UsageError(f"Error validating install location: {error}") from error
        try:
            found = location.Kernel(kernel, initrd) if kernel and initrd else location.detect(tree, place, arch)
            paths = [self._fetch(tree, path) for path in (found.kernel, found.initrd)]
        finally:
            if isinstance(tree, location.IsoTree):
                tree.close()
        if self._options.initrd_inject:
            location.inject(paths[1], self._options.initrd_inject)
        if found.repository and is_url(place):
            extra.append(f"{found.repository}{place}")
        medium = self._storage.locate(place) if isinstance(tree, location.IsoTree) else None
        return Start(str(paths[0]), str(paths[1]), " ".join(extra), found.system, medium)

    def _fetch(self, tree: location.Tree, path: str) -> Path:
        target = self._place(os.path.basename(path))
        tree.fetch(path, target)
        return target

    def _from_files(self, given: Given, extra: list[str]) -> Start:
        paths: list[str | None] = []
        for name in ("kernel", "initrd"):
            path = given.get(name)
            if not path:
                paths.append(None)
                continue
            directory, base = os.path.split(path if is_url(path) else os.path.abspath(path))
            tree = location.UrlTree(directory) if is_url(path) else location.DirectoryTree(directory)
            paths.append(str(self._fetch(tree, base)))
        kernel, initrd = paths
        assert kernel is not None
        if self._options.initrd_inject:
            if initrd is None:
                raise UsageError("Install method does not support initrd injection.")
            location.inject(Path(initrd), self._options.initrd_inject)
        return Start(kernel, initrd, " ".join(extra))

    def seed(self) -> tuple[Seed, str] | None:
        """What ``--cloud-init`` says, and the CD-ROM with it; None where it is not given.

        Raises:
            UsageError: a file that it names cannot be read.
        """
        if self._options.cloud_init is None or self._options.cloud_init == "none":
            return None
        seed = Seed(self._options.cloud_init or None)
        path = self._place("cloudinit.iso")
        seed.write(path)
        return seed, str(path)
