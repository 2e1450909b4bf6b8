"""The suites: what their scripts are, and how one is run on ours and on libvirt's."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from client_suites.outcome import Outcome, of_tap, run
from support import hosteld, libvirtd, libvirtd_system, netns
from support.linux import Kernel, package

SYSTEM_PYTHON: Final = "/usr/bin/python3"  # which Debian's python3-libvirt is for
_SECONDS: Final = 120.0  # for one script
# The copy of libvirt-python's tests imports these in place of the modules of its name.
_STANDIN: Final = "from hostel.libvirt.replace import replace_libvirt\nreplace_libvirt()\n"
_LIBRARY: Final = "from libvirt import *\n"  # what is below libvirt-python's module is the module here

Runner = Callable[[str], tuple[Outcome, Outcome]]


class Suite(NamedTuple):
    """A suite.

    Attributes:
        scripts: gives the names of its scripts in a copy of its source.
        running: gives, while it is entered, what runs one script on both sides: ours first.
    """

    scripts: Callable[[Path], list[str]]
    running: Callable[[Path, Path], contextlib.AbstractContextManager[Runner]]


@contextlib.contextmanager
def _python(source: Path, work: Path) -> Iterator[Runner]:
    """libvirt-python's tests, in process: on hostel.libvirt, and on the installed libvirt-python."""
    shutil.copytree(source / "tests", work / "tests")
    standin = work / "standin"
    standin.mkdir()
    shutil.copy(source / "libvirtaio.py", standin)
    for name in ("libvirt", "libvirt_qemu", "libvirt_lxc"):
        (standin / f"{name}.py").write_text(_STANDIN)
    (standin / "libvirtmod.py").write_text(_LIBRARY)
    site = str(Path(pytest.__file__).parent.parent)

    def both(script: str) -> tuple[Outcome, Outcome]:
        return one(sys.executable, str(standin), script), one(SYSTEM_PYTHON, site, script)

    def one(python: str, path: str, script: str) -> Outcome:
        command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", script]
        status, text = run(command, work / "tests", {"PYTHONPATH": path}, _SECONDS)
        counts = {word: int(count) for count, word in re.findall(r"(\d+) (passed|failed|error)", text)}
        # 5: of a script's tests all are left out, or there are none.
        ended = 0 if status == 5 else status
        return Outcome(ended, counts.get("passed", 0), counts.get("failed", 0) + counts.get("error", 0), text)

    yield both


@contextlib.contextmanager
def _perl(source: Path, work: Path) -> Iterator[Runner]:
    """Sys::Virt's tests: on the test driver of our daemon, and of a libvirtd."""
    with hosteld.process() as ours, libvirtd.running() as theirs:
        uris = ours.uri("test:///default"), theirs.uri.replace("qemu+unix:///session", "test+unix:///default")

        def both(script: str) -> tuple[Outcome, Outcome]:
            return one(uris[0], script), one(uris[1], script)

        def one(uri: str, script: str) -> Outcome:
            copy = work / Path(script).name
            copy.write_text((source / script).read_text().replace("test:///default", uri))
            return of_tap(*run(["perl", str(copy)], source, {}, _SECONDS))

        yield both


@contextlib.contextmanager
def _tck(source: Path, work: Path) -> Iterator[Runner]:
    """The compatibility kit: on our daemon and on a libvirtd, both of root's, in a network of their own."""
    Kernel(package("cloud"), work / "kernel")
    kernel = next((work / "kernel/boot").glob("vmlinuz-*"))
    (work / "initrd").write_bytes(b"")
    drivers = ("network", "storage", "secret", "nwfilter", "nodedev", "interface", "qemu")
    with netns.alone(), hosteld.process() as ours, libvirtd_system.running(drivers=drivers) as theirs:
        uris = {"ours": ours.uri("qemu:///system"), "theirs": theirs}

        def both(script: str) -> tuple[Outcome, Outcome]:
            return one("ours", script), one("theirs", script)

        def one(who: str, script: str) -> Outcome:
            scratch, config = work / who, work / f"{who}.yml"
            scratch.mkdir(exist_ok=True)
            config.write_text(
                f'uri: "{uris[who]}"\nscratch_dir: "{scratch}"\nimages:\nkernels:\n  - arch: x86_64\n'
                f"    ostype: [hvm]\n    kernel: file://{kernel}\n    initrd: file://{work}/initrd\n"
                "host_usb_devices:\nhost_pci_devices:\nhost_block_devices:\nhost_network_devices:\n"
            )
            path = os.pathsep.join([str(source / "lib"), os.environ.get("PERL5LIB", "")])
            environment = {"PERL5LIB": path, "LIBVIRT_TCK_CONFIG": str(config), "LIBVIRT_TCK_AUTOCLEAN": "1"}
            head = (source / script).read_text().partition("\n")[0]
            shell = "perl" if "perl" in head else "bash"
            outcome = of_tap(*run([shell, str(source / script)], source, environment, _SECONDS))
            _forget_filters(uris[who])
            return outcome

        yield both


def _forget_filters(uri: str) -> None:
    """Undefine the filters of a script that gave up: the kit takes everything else of its own away when it begins."""
    listed = subprocess.run(
        ["virsh", "-c", uri, "nwfilter-list"], capture_output=True, text=True, timeout=60, check=False
    )
    for name in re.findall(r"\s(tck\S*)", listed.stdout):
        subprocess.run(["virsh", "-c", uri, "nwfilter-undefine", name], capture_output=True, timeout=60, check=False)


def _found(*patterns: str) -> Callable[[Path], list[str]]:
    def scripts(source: Path) -> list[str]:
        return sorted(str(path.relative_to(source)) for pattern in patterns for path in source.glob(pattern))

    return scripts


SUITES: Final = {
    "libvirt-python": Suite(lambda source: [path.name for path in sorted(source.glob("tests/test_*.py"))], _python),
    "sys-virt": Suite(_found("t/[1-9]*.t"), _perl),
    "libvirt-tck": Suite(
        _found(*(f"scripts/{group}/*.t" for group in ("domain", "networks", "nwfilter", "qemu", "storage"))), _tck
    ),
}
