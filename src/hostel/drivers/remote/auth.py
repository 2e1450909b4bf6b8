"""Showing a daemon who we are, where it asks for more than who we are on this host."""

from __future__ import annotations

from typing import Final

from hostel.drivers.asking import AUTHNAME, PASSPHRASE, Asking, Credentials, Question, find_credentials
from hostel.drivers.remote.client import RpcClient
from hostel.drivers.remote.uri import RemoteUri
from hostel.errors import ErrorCode, ErrorDomain, RemoteProtocolError, VirtError
from hostel.wire.rpc.scram import MECHANISM, ScramClient

_NONE: Final = 0
_SASL: Final = 1
_POLKIT: Final = 2


def authenticate(client: RpcClient, uri: RemoteUri, asking: Asking | None = None) -> None:
    """Do what the daemon asks for.

    Raises:
        VirtError: ``AUTH_FAILED``: it asks for what we do not have or know.
    """
    (kinds,) = client.call("auth_list")
    if not kinds or _NONE in kinds:
        return
    if _POLKIT in kinds:
        client.call("auth_polkit")
    elif _SASL in kinds:
        _scram(client, _credentials(uri, asking))
    else:
        raise _failed(f"unsupported authentication type {kinds[0]}")


def _scram(client: RpcClient, credentials: Credentials | None) -> None:
    (mechanisms,) = client.call("auth_sasl_init")
    if MECHANISM not in mechanisms.replace(",", " ").split():
        raise _failed(f"the daemon has {mechanisms}, and we {MECHANISM}")
    if credentials is None:
        raise _failed(
            "the daemon asks for a password: put it into an auth.conf "
            "(https://libvirt.org/auth.html), or name one with ?authfile=PATH"
        )
    scram = ScramClient(credentials.user or "", credentials.password or "")
    try:
        complete, _, answer = client.call("auth_sasl_start", MECHANISM, 0, scram.start() + b"\0")
        if not complete:
            complete, _, answer = client.call("auth_sasl_step", 0, scram.prove(answer.rstrip(b"\0")) + b"\0")
    except RemoteProtocolError as error:
        raise _failed(str(error)) from None
    if not scram.verify(answer.rstrip(b"\0")):
        raise _failed("the daemon does not know the password")
    if not complete:
        client.call("auth_sasl_step", 0, b"\0")


def _credentials(uri: RemoteUri, asking: Asking | None) -> Credentials | None:
    """The user and the password that a file has, or the program says; None where neither does."""
    found = find_credentials("libvirt", uri.host or "localhost", uri.settings) or Credentials(None, None)
    missing = [
        Question(kind, f"Please enter your {what}")
        for kind, what, known in (
            (AUTHNAME, "authentication name", found.user),
            (PASSPHRASE, "password", found.password),
        )
        if known is None
    ]
    if missing:
        if asking is None or not {question.kind for question in missing} <= set(asking.kinds):
            return None
        answers = asking.ask(missing)
        if answers is None:
            raise _failed("Failed to collect auth credentials")
        given = {question.kind: answer for question, answer in zip(missing, answers, strict=True)}
        found = Credentials(found.user or given.get(AUTHNAME), found.password or given.get(PASSPHRASE))
    return found


def _failed(reason: str) -> VirtError:
    return VirtError(ErrorCode.AUTH_FAILED, f"authentication failed: {reason}", domain=ErrorDomain.REMOTE)
