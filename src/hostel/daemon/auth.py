"""Being let in by a password: SASL with SCRAM-SHA-256, where a socket asks for it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hostel.cause import sentence
from hostel.errors import ErrorCode, ErrorDomain, RemoteProtocolError, UsageError, VirtError
from hostel.wire.rpc.connection import Call
from hostel.wire.rpc.scram import MECHANISM, ScramServer, Verifier

if TYPE_CHECKING:
    from hostel.daemon.client import Client

NONE, SASL = 0, 1  # remote_auth_type
_SEED: Final = secrets.token_bytes(32)


def read_passwords(path: Path) -> dict[str, Verifier]:
    """The verifiers in a file, by user: a ``user:verifier`` a line, ``#`` before what is no such line.

    Raises:
        UsageError: it cannot be read, or has another line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"cannot read '{path}': {sentence(error) if isinstance(error, OSError) else 'it is no text'}"
        ) from None
    found = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        user, _, verifier = line.partition(":")
        try:
            found[user] = Verifier.parse(verifier.strip())
        except ValueError:
            raise UsageError(f"{path}:{number}: this is not USER:VERIFIER; hosteld --verifier USER makes one") from None
    return found


def _list(client: Client, call: Call) -> Sequence[Any]:
    return ([SASL if client.needs_password else NONE],)


def _init(client: Client, call: Call) -> Sequence[Any]:
    if not client.needs_password:
        raise _refused("client tried invalid SASL init request")
    passwords = client.daemon.config.passwords
    try:
        verifiers = read_passwords(passwords) if passwords is not None else {}
    except UsageError as error:
        client.daemon.log("nobody can be let in", reason=str(error))
        verifiers = {}
    client.scram = ScramServer(verifiers, _SEED)
    return (MECHANISM,)


def _start(client: Client, call: Call) -> Sequence[Any]:
    mechanism, nothing, data = call.arguments
    if client.scram is None or mechanism != MECHANISM or nothing:
        raise _refused("client tried invalid SASL start request")
    try:
        answer = client.scram.start(_without_end(data))
    except RemoteProtocolError as error:
        raise _refused(str(error)) from None
    return 0, 0, answer + b"\0"


def _step(client: Client, call: Call) -> Sequence[Any]:
    nothing, data = call.arguments
    scram = client.scram
    if scram is None or nothing:
        raise _refused("client tried invalid SASL step request")
    client.scram = None  # one attempt
    try:
        answer = scram.finish(_without_end(data))
    except RemoteProtocolError as error:
        raise _refused(str(error)) from None
    if answer is None:
        client.daemon.log("wrong user or password", client=client.number)
        raise _refused("authentication failed")
    client.let_in(scram.user)
    return 1, 0, answer + b"\0"


def _without_end(data: bytes) -> bytes:
    """The bytes without the NUL that C appends."""
    return data[:-1] if data.endswith(b"\0") else data


def _refused(reason: str) -> VirtError:
    return VirtError(ErrorCode.AUTH_FAILED, f"authentication failed: {reason}", domain=ErrorDomain.RPC)


ANSWERS: Final[dict[str, Callable[[Client, Call], Sequence[Any]]]] = {
    "auth_list": _list,
    "auth_sasl_init": _init,
    "auth_sasl_start": _start,
    "auth_sasl_step": _step,
}
