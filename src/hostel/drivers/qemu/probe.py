"""What QEMU says of itself, and which accelerator really runs a guest: a ``/dev/kvm`` may open and run nothing."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from hostel.cause import sentence
from hostel.drivers.store import write_atomically
from hostel.errors import ErrorCode, ErrorDomain, VirtError

_ANSWER: Final = 85  # isa-debug-exit: 2 * 2Ah + 1, see hostel.guest's probe
# TCG needs 0.1 s for this sector; a KVM slower than this is emulated itself, and a real guest would seem to hang.
_SECONDS: Final = 1.5
# It becomes a program that ends when we do, whatever ends us, and does not where we have ended already.
_ENDING_WITH_US: Final = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, ctypes.c_ulong(9))  # PR_SET_PDEATHSIG, SIGKILL
if os.getppid() == int(sys.argv[1]):
    os.execvp(sys.argv[2], sys.argv[2:])
"""
_ALIAS: Final = re.compile(r"^(\S+) .*\(alias of (\S+)\)", re.MULTILINE)
_KEPT: Final = 256  # answers in memory: one program has about ten
_answered: Final[dict[tuple[str, str], str]] = {}  # by question and circumstances, whatever the directory


def version(emulator: str) -> int:
    """QEMU's version as libvirt numbers it: 1,000,000 * major + 1,000 * minor + release.

    Raises:
        VirtError: the program does not run or does not say.
    """
    try:
        answer = subprocess.run([emulator, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise VirtError(
            ErrorCode.INTERNAL_ERROR, f"internal error: cannot run '{emulator}': {error}", domain=ErrorDomain.QEMU
        ) from error
    match = re.search(r"version (\d+)\.(\d+)(?:\.(\d+))?", answer.stdout)
    if match is None:
        raise VirtError(
            ErrorCode.INTERNAL_ERROR, f"internal error: '{emulator}' names no version", domain=ErrorDomain.QEMU
        )
    major, minor, release = (int(part or 0) for part in match.groups())
    return 1_000_000 * major + 1_000 * minor + release


def kvm_opens() -> bool:
    """Whether this user may use KVM, which is all that libvirt asks for; a guest may still not run under it."""
    return os.access("/dev/kvm", os.R_OK | os.W_OK)


def kvm_runs(emulator: str, cache: Path) -> bool:
    """Whether KVM runs a guest here; asked once per boot, kernel and QEMU, and remembered in ``cache``."""
    if not kvm_opens():
        return False

    def ask() -> str:
        return "yes\n" if (_try_kvm(emulator) if is_x86 else _begins_kvm(emulator)) else "no\n"

    here = os.uname().machine
    is_x86 = here in ("x86_64", "i686")
    targets = ("x86_64", "i386") if is_x86 else (here, "arm") if here == "aarch64" else (here,)
    if target(emulator, cache) not in targets:
        return False
    return _remembered(cache, "kvm", emulator, _host_facts("kvm"), ask) == "yes\n"


def why_no_kvm() -> str:
    """What keeps KVM from running guests here, for the end of a message about that."""
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return "there is no /dev/kvm: turn on the processor's virtualisation, and load kvm_intel or kvm_amd"
    except OSError as error:
        return f"/dev/kvm: {sentence(error)}"
    return "a guest that was tried does not get on with /dev/kvm, as where the host is itself a guest"


def machine_aliases(emulator: str, cache: Path) -> dict[str, str]:
    """Which machine types stand for others, such as ``pc`` for the newest; asked once per QEMU, then remembered."""
    text = _remembered(cache, "machines", emulator, [], lambda: _help(emulator, "-machine"))
    return {found[1]: found[2] for found in _ALIAS.finditer(text)}


def machine_types(emulator: str, cache: Path) -> str:
    """Its answer to ``query-machines``, JSON; empty where it gives none. Asked once per QEMU, then remembered."""
    return _remembered(cache, "query-machines", emulator, [], lambda: _query(emulator, "query-machines"))


def target(emulator: str, cache: Path) -> str | None:
    """The architecture of its guests, by QEMU's name; None where it does not run. Asked once, then remembered."""
    answer = _remembered(cache, "target", emulator, [], lambda: _query(emulator, "query-target"))
    return str(json.loads(answer)["arch"]) if answer else None


def complaint(emulator: str) -> str:
    """Why a program that has no :func:`target` cannot be asked anything: its own words, where it has some."""
    try:
        said = _converse(emulator, [{"execute": "qmp_capabilities"}, {"execute": "quit"}], "").stderr.strip()
    except subprocess.TimeoutExpired:
        return "it does not end"
    except OSError as error:
        return sentence(error)
    return said or "it does not speak as QEMU does"


def cpu_definitions(emulator: str, cache: Path, accelerator: str) -> str:
    """Its answer to ``query-cpu-definitions``, JSON; empty where it gives none. Asked once, then remembered."""
    return _remembered(
        cache, f"cpus-{accelerator}", emulator, _host_facts(accelerator),
        lambda: _query(emulator, "query-cpu-definitions", accelerator),
    )  # fmt: skip


def cpu_models(emulator: str, cache: Path, accelerator: str, models: Mapping[str, Mapping[str, Any]]) -> str:
    """The properties of models, by the keys of ``models``, JSON: what it cannot expand is left out. Remembered too."""

    def ask() -> str:
        arguments = {key: {"type": "full", "model": model} for key, model in models.items()}
        answers = _answers(emulator, "query-cpu-model-expansion", arguments, accelerator)
        return json.dumps({key: answer["model"].get("props", {}) for key, answer in answers.items()}) if answers else ""

    return _remembered(cache, f"cpu-models-{accelerator}", emulator, _host_facts(accelerator), ask)


def known_version(emulator: str, cache: Path) -> int:
    """Its version, as :func:`version` tells it; asked once per QEMU, then remembered.

    Raises:
        VirtError: the program does not run or does not say.
    """
    return int(_remembered(cache, "version", emulator, [], lambda: f"{version(emulator)}\n"))


def devices(emulator: str, cache: Path) -> str:
    """Its devices, as it lists them; asked once per QEMU, then remembered."""
    return _remembered(cache, "devices", emulator, [], lambda: _help(emulator, "-device"))


def sev_capabilities(emulator: str, cache: Path) -> str:
    """Its answer to ``query-sev-capabilities``, JSON; empty where the host has none. Remembered for this boot."""
    return _remembered(
        cache, "sev", emulator, _host_facts("kvm"), lambda: _query(emulator, "query-sev-capabilities", "kvm")
    )


def object_types(emulator: str, cache: Path) -> str:
    """Its answer to ``qom-list-types``, JSON: also what no user makes. Asked once per QEMU, then remembered."""
    return _remembered(cache, "types", emulator, [], lambda: _query(emulator, "qom-list-types"))


def gic_capabilities(emulator: str, cache: Path) -> str:
    """Its answer to ``query-gic-capabilities``, JSON; empty where its guests have no such controller. Remembered."""
    return _remembered(cache, "gic", emulator, _host_facts("kvm"), lambda: _query(emulator, "query-gic-capabilities"))


def displays(emulator: str, cache: Path) -> frozenset[str]:
    """What it draws with, of what is installed; remembered once it has more than nothing."""
    return frozenset(_remembered(cache, "displays", emulator, [], lambda: _help(emulator, "-display")).split())


def has_spice(emulator: str, cache: Path) -> bool:
    """Whether it has SPICE; remembered once it has, since the module may be installed later."""
    return bool(_remembered(cache, "spice", emulator, [], lambda: _help(emulator, "-spice")))


def sandboxes(emulator: str, cache: Path) -> bool:
    """Whether it can have the kernel refuse it what it does not need; asked once per QEMU, then remembered."""

    def ask() -> str:
        argv = [emulator, "-sandbox", "on", "-version"]
        try:
            answer = subprocess.run(argv, capture_output=True, timeout=10, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return ""
        return "no\n" if answer.returncode else "yes\n"

    return _remembered(cache, "sandbox", emulator, [], ask) == "yes\n"


def _remembered(cache: Path, what: str, emulator: str, facts: list[str], ask: Callable[[], str]) -> str:
    """What was answered before by the same QEMU under the same circumstances, or is now."""
    with contextlib.suppress(OSError):
        binary = os.stat(emulator)
        facts = [*facts, f"{binary.st_mtime_ns} {binary.st_size}"]
    fingerprint = hashlib.sha256("\n".join([emulator, *facts]).encode()).hexdigest()[:20]
    if answer := _answered.get((what, fingerprint)):
        return answer
    remembered = cache / f"{what}-{fingerprint}"
    with contextlib.suppress(OSError):
        answer = remembered.read_text()
    if not answer:
        answer = ask()
        if not answer:
            return ""  # it could not be asked this time
        with contextlib.suppress(OSError):
            cache.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomically(remembered, answer)
    if len(_answered) >= _KEPT:
        _answered.clear()
    _answered[what, fingerprint] = answer
    return answer


def _help(emulator: str, option: str) -> str:
    try:
        answer = subprocess.run(
            [emulator, option, "help"], capture_output=True, text=True, timeout=10, check=False, errors="replace"
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout


def _host_facts(accelerator: str) -> list[str]:
    """What of the host an answer depends on besides QEMU: for KVM on the kernel, as it was booted."""
    facts: list[str] = []
    if accelerator == "kvm":
        facts.append(os.uname().release)
        with contextlib.suppress(OSError):
            facts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
    return facts


def _query(emulator: str, command: str, accelerator: str = "") -> str:
    """Ask a QEMU that runs no machine; its answer as JSON, empty where there is none."""
    answers = _answers(emulator, command, {"": {}}, accelerator)
    return json.dumps(answers[""]) if answers else ""


def _answers(
    emulator: str, command: str, arguments: Mapping[str, Mapping[str, Any]], accelerator: str
) -> dict[str, Any]:
    """Ask a QEMU that runs no machine the same thing about several; what it answers, without what it refuses."""
    words: list[dict[str, Any]] = [{"execute": "qmp_capabilities"}]
    words += [
        {"execute": command, "id": key, **({"arguments": given} if given else {})} for key, given in arguments.items()
    ]
    words.append({"execute": "quit"})
    try:
        said = _converse(emulator, words, accelerator)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    answers: dict[str, Any] = {}
    for line in said.stdout.splitlines():
        with contextlib.suppress(ValueError):
            answer = json.loads(line)
            if "return" in answer and "id" in answer:
                answers[answer["id"]] = answer["return"]
    return answers


def _converse(emulator: str, words: list[dict[str, Any]], accelerator: str) -> subprocess.CompletedProcess[str]:
    machine = f"none,accel={accelerator}" if accelerator else "none"
    argv = [emulator, "-S", "-nodefaults", "-no-user-config", "-display", "none", "-machine", machine, "-qmp", "stdio"]
    # It does not end with its input. That has all words from the start, "quit" too: it ends whether we do or not.
    with open(os.memfd_create("hostel-words"), "w+", encoding="ascii") as said:
        said.writelines(f"{json.dumps(word)}\n" for word in words)
        said.seek(0)
        return subprocess.run(
            argv, stdin=said, capture_output=True, text=True, timeout=20, check=False, errors="replace"
        )


def _begins_kvm(emulator: str) -> bool:
    """Whether KVM makes a machine; there is no guest of ours for other architectures, which would say more."""
    return bool(_answers(emulator, "query-kvm", {"": {}}, "kvm"))


def _try_kvm(emulator: str) -> bool:
    from hostel.guest.image import probe_sector

    with open(os.memfd_create("hostel-probe"), "wb") as disk:
        disk.write(probe_sector().ljust(1 << 20, b"\0"))
        disk.flush()
        file = disk.fileno()
        argv = [emulator, "-accel", "kvm", "-nodefaults", "-no-user-config", "-display", "none", "-m", "16"]
        argv += ["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]
        argv += ["-drive", f"file=/proc/self/fd/{file},format=raw,if=ide"]
        try:
            ended = subprocess.run(
                [sys.executable, "-I", "-S", "-c", _ENDING_WITH_US, str(os.getpid()), *argv],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=_SECONDS,
                check=False,
                pass_fds=[file],
            )
        except (OSError, subprocess.TimeoutExpired):
            return False
    return ended.returncode == _ANSWER
