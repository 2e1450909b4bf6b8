"""Emulated TPMs: swtpm, and where it keeps what a TPM remembers.

The state is a machine's own, under its UUID, and outlives its runs. It is made once, whole, by ``swtpm_setup``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from hostel.drivers.fault import fault, system_fault
from hostel.drivers.qemu.confinement.selinux import kernel
from hostel.drivers.qemu.document import unsupported
from hostel.drivers.qemu.ownership.user import Owner, as_user
from hostel.drivers.qemu.process import Helper, ground
from hostel.drivers.store import sync_directory
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.authentication import SecretReference
from hostel.model.domain.devices.platform import Tpm, TpmBackend
from hostel.model.domain.domain import Domain

_AUTHORITY: Final = Path("/var/lib/swtpm-localca")  # signs the certificates of new TPMs
_DIRECTORIES: Final = {"1.2": "tpm1.2", "2.0": "tpm2"}
_SETUP_SECONDS: Final = 120.0
_LOGGED: Final = 5  # lines, of which the first tells most
_PASSPHRASE_LIMIT: Final = 4096  # bytes that a pipe takes before anybody reads (POSIX, PIPE_BUF)
_CIPHER: Final = "aes-256-cbc"
_BANKS: Final = ("sha1", "sha256", "sha384", "sha512")
Secrets = Callable[[SecretReference, str], bytes]


def emulated(domain: Domain) -> Tpm | None:
    """A document's emulated TPM; there is at most one."""
    return next((tpm for tpm in domain.devices.tpms if tpm.backend.type == "emulator"), None)


class EmulatedTpm:
    """The TPM of one machine that is about to start.

    Args:
        tpm: the device.
        domain: its machine.
        state: the directory of all that is kept under the machine's UUID.
        run: the directory of this run.
        log: where swtpm writes what it does.
        secrets: looks up secrets.
        owner: who swtpm is to be; None where it is as we are.
    """

    def __init__(
        self, tpm: Tpm, domain: Domain, state: Path, run: Path, log: Path, secrets: Secrets, owner: Owner | None = None
    ) -> None:
        self._backend = tpm.backend
        self._domain = domain
        self._state = state / _DIRECTORIES[tpm.backend.version or "2.0"]
        self._run = run
        self._log = log
        self._passphrase = _passphrase(tpm.backend, secrets)
        self._owner = owner

    def prepare(self, given: list[Path]) -> Helper:
        """Make what it remembers, where there is nothing yet; returns what runs it.

        Args:
            given: gets the file with the passphrase, which is to be removed once swtpm has read it.

        Raises:
            VirtError: swtpm is not there, or cannot set it up; nothing is left of it then.
        """
        swtpm, setup = _program("swtpm"), _program("swtpm_setup")
        if not self._state.exists():
            self._make(setup)
        socket = socket_of(self._run)
        try:
            socket.parent.mkdir(mode=0o700)
            for path in (self._state, *self._state.iterdir()):
                self._give(path)
            self._give(socket.parent)
            kernel.copy_label(ground(self._run), socket.parent)
            if self._owner is not None:
                self._run.chmod(0o711)
                socket.parent.chmod(0o711)  # through which QEMU comes
        except OSError as error:
            raise system_fault(error, "cannot give swtpm what it needs", ErrorDomain.QEMU) from error
        banks = self._backend.banks
        if banks is not None and (names := [name for name in _BANKS if getattr(banks, name)]):
            where = ["--tpm-state", str(self._state), "--logfile", str(self._log)]
            self._set_up(setup, [*where, "--pcr-banks", ",".join(names), "--reconfigure"])
        argv = [*self._as_owner(), swtpm, "socket", "--ctrl", f"type=unixio,path={socket},mode=0600"]
        argv += ["--tpmstate", f"dir={self._state},mode=0600", "--log", f"file={self._log}", "--terminate"]
        argv += ["--tpm2"] if self._backend.version == "2.0" else []
        if self._passphrase is not None:
            path = self._run / "swtpm.secret"
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(descriptor, "wb") as stream:
                given.append(path)
                stream.write(self._passphrase)
            self._give(path)
            kernel.copy_label(ground(self._run), path)
            key = f"pwdfile={path},mode={_CIPHER}"
            argv += ["--key", key, "--migration-key", key]
        return Helper("swtpm", argv, socket, is_kept=True)

    def _give(self, path: Path) -> None:
        if self._owner is not None:
            os.chown(path, *self._owner, follow_symlinks=False)

    def _as_owner(self) -> list[str]:
        return [] if self._owner is None else as_user(self._owner)

    def _make(self, setup: str) -> None:
        """Set up a new TPM beside its place, and put it there when it is whole."""
        made = self._state.with_name(f".{self._state.name}.new")
        try:
            self._state.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            shutil.rmtree(made, ignore_errors=True)
            made.mkdir(mode=0o700)
            self._give(made)
            words = ["--tpm-state", str(made), "--vmid", f"{self._domain.name}:{self._domain.uuid}"]
            words += ["--logfile", str(self._log), "--createek", "--create-ek-cert", "--create-platform-cert"]
            self._set_up(setup, [*words, "--lock-nvram", "--not-overwrite"])
            made.replace(self._state)
            sync_directory(self._state.parent)
        except OSError as error:
            shutil.rmtree(made, ignore_errors=True)
            raise system_fault(error, f"cannot make '{self._state}'", ErrorDomain.QEMU) from error
        except VirtError:
            shutil.rmtree(made, ignore_errors=True)
            raise

    def _set_up(self, setup: str, words: list[str]) -> None:
        """Run ``swtpm_setup``.

        Raises:
            VirtError: ``INTERNAL_ERROR``, with its last words.
        """
        if os.geteuid() != 0:
            _run([setup, "--create-config-files", "skip-if-exist"])
        argv = [setup, *(["--tpm2"] if self._backend.version == "2.0" else []), *words]
        if self._passphrase is None:
            self._run_setup(argv)
            return
        reader, writer = os.pipe()
        try:
            os.write(writer, self._passphrase)  # a passphrase fits a pipe
            os.close(writer)
            writer = -1
            self._run_setup([*argv, "--pwdfile-fd", str(reader), "--cipher", _CIPHER], pass_fds=(reader,))
        finally:
            for descriptor in (reader, writer):
                if descriptor >= 0:
                    os.close(descriptor)

    def _run_setup(self, argv: list[str], *, pass_fds: tuple[int, ...] = ()) -> None:
        try:
            _run(argv, pass_fds=pass_fds, log=self._log, prefix=self._as_owner())
        except VirtError as error:
            if self._owner is None or not (others := _not_of(self._owner)):
                raise
            fix = f"'{others}' is not its user's: chown -R {self._owner.uid}:{self._owner.gid} {_AUTHORITY}"
            raise VirtError(error.code, f"{error.message}; {fix}", domain=error.domain) from error


def socket_of(run: Path) -> Path:
    """Where swtpm is reached, in a directory of its own of a run's."""
    return run / "tpm/swtpm.sock"


def _not_of(owner: Owner) -> Path | None:
    """A file of those who sign certificates of TPMs that a user cannot use."""
    try:
        return next((path for path in _AUTHORITY.iterdir() if path.stat().st_uid != owner.uid), None)
    except OSError:
        return None


def _passphrase(backend: TpmBackend, secrets: Secrets) -> bytes | None:
    if backend.encryption is None:
        return None
    found = secrets(SecretReference(uuid=backend.encryption), "vtpm")
    if len(found) > _PASSPHRASE_LIMIT:
        raise unsupported(f"the secret of the TPM has more than {_PASSPHRASE_LIMIT} bytes")
    return found


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise unsupported(f"<tpm> needs {name}, which is not there; install swtpm and swtpm-tools")
    return found


def _run(
    argv: list[str], *, pass_fds: tuple[int, ...] = (), log: Path | None = None, prefix: Sequence[str] = ()
) -> None:
    """Run a program, which may say what went wrong in a log alone."""
    before = log.stat().st_size if log is not None and log.exists() else 0
    try:
        done = subprocess.run(
            [*prefix, *argv], capture_output=True, text=True, timeout=_SETUP_SECONDS, check=False, cwd="/", umask=0o077,
            stdin=subprocess.DEVNULL, pass_fds=pass_fds,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        what = f"'{argv[0]}' has not ended after {_SETUP_SECONDS:.0f} seconds"
        raise fault(ErrorCode.OPERATION_TIMEOUT, what, ErrorDomain.QEMU) from error
    if done.returncode:
        said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()][-1:]
        where = ""
        if log is not None and log.exists():
            logged = log.read_text(errors="replace")[before:].splitlines()
            said, where = said or logged[-_LOGGED:], f" ({log})"
        what = (
            f"Could not run '{argv[0]}'. exitstatus: {done.returncode}; it said{where}: {'; '.join(said) or 'nothing'}"
        )
        raise fault(ErrorCode.INTERNAL_ERROR, what, ErrorDomain.QEMU)


def drop(domain: Domain, state: Path, *, remove: bool = False, keep: bool = False) -> None:
    """Remove what a TPM remembers when its machine is given up, unless it is to stay.

    Args:
        domain: the machine's document.
        state: the directory under its UUID.
        remove: also where the document says that it stays.
        keep: never.

    Raises:
        VirtError: ``SYSTEM_ERROR``: the host refuses.
    """
    tpm = emulated(domain)
    if tpm is None or keep or (tpm.backend.persistent_state and not remove):
        return
    try:
        shutil.rmtree(state)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise system_fault(error, f"cannot remove '{state}'", ErrorDomain.QEMU) from error
