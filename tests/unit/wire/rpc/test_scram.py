"""SCRAM-SHA-256: the example of its RFC, and who gets in."""

from __future__ import annotations

import pytest

from hostel.errors import RemoteProtocolError
from hostel.wire.rpc.scram import ScramClient, ScramServer, Verifier

VERIFIERS = {"ann": Verifier.of("pencil", iterations=100), "b,o=b": Verifier.of("x", iterations=100)}


def attempt(user: str, password: str) -> str:
    """Who the server takes the client for; empty for nobody."""
    client, server = ScramClient(user, password), ScramServer(VERIFIERS, b"seed")
    final = server.finish(client.prove(server.start(client.start())))
    if final is None:
        assert server.user == ""
        return ""
    assert client.verify(final)
    return server.user


def test_exchange_of_the_rfc(monkeypatch: pytest.MonkeyPatch) -> None:
    client = ScramClient("user", "pencil")
    client._nonce = "rOprNGfwEbeRWgbNEkqO"
    client._bare = "n=user,r=rOprNGfwEbeRWgbNEkqO"
    proof = client.prove(b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096")
    assert proof == (
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    )
    assert client.verify(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")
    assert not client.verify(b"v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")


@pytest.mark.parametrize(
    ("user", "password", "taken_for"),
    [("ann", "pencil", "ann"), ("b,o=b", "x", "b,o=b"), ("ann", "pen", ""), ("nobody", "pencil", ""), ("ann", "", "")],
)
def test_who_knows_the_password_gets_in(user: str, password: str, taken_for: str) -> None:
    assert attempt(user, password) == taken_for


def test_unknown_user_is_answered_as_a_known_one_each_time_the_same() -> None:
    salts = [ScramServer({}, b"seed").start(b"n,,n=x,r=1").split(b",s=")[1] for _ in range(2)]
    assert salts[0] == salts[1]


@pytest.mark.parametrize("message", [b"", b"p=tls-unique,,n=a,r=1", b"n,,n=a", b"n,,r=1", b"n,,n=a,r=", b"\xff", b"n,"])
def test_first_message_that_is_none_is_refused(message: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="SCRAM"):
        ScramServer(VERIFIERS, b"seed").start(message)


@pytest.mark.parametrize("message", [b"", b"c=biws,r=other,p=AA==", b"\xff", b"p=AA=="])
def test_proof_that_is_none_is_refused(message: bytes) -> None:
    server = ScramServer(VERIFIERS, b"seed")
    server.start(b"n,,n=ann,r=1")
    with pytest.raises(RemoteProtocolError, match="SCRAM"):
        server.finish(message)


def test_short_proof_proves_nothing() -> None:
    server = ScramServer(VERIFIERS, b"seed")
    nonce = server.start(b"n,,n=ann,r=1").split(b",")[0]
    assert server.finish(b"c=biws," + nonce + b",p=AA==") is None


@pytest.mark.parametrize("message", [b"", b"r=x,s=AA==,i=1", b"r=,s=AA==,i=x", b"\xff"])
def test_answer_that_is_none_is_refused(message: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="SCRAM"):
        ScramClient("a", "b").prove(message)


def test_verifier_is_written_and_read() -> None:
    text = str(VERIFIERS["ann"])
    assert text.startswith("SCRAM-SHA-256$100:")
    assert Verifier.parse(text) == VERIFIERS["ann"]
    for broken in ("", "SCRAM-SHA-1$1:AA==$AA==:AA==", text[:-4], "SCRAM-SHA-256$x:AA==$AA==:AA=="):
        with pytest.raises(ValueError):
            Verifier.parse(broken)
