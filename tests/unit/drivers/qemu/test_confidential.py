"""Guests whose memory is kept from the host: what is told of the host, and what QEMU is started with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hostel.drivers.qemu import confidential, document
from hostel.drivers.qemu.alias import assign_aliases
from hostel.drivers.qemu.command import security
from hostel.drivers.qemu.command.machine import build
from hostel.errors import ErrorCode, VirtError
from hostel.model.domain.domain import Domain
from hostel.model.domain.platform import Platform, Sev
from support.arguments import CONTEXT, spec, text
from support.domain import QEMU

SEV = Sev("key", "chain", "cpu", 51, 1, 410, 99)
SECURE = QEMU._replace(
    sev=SEV, features=QEMU.features | {"sev-guest", "sev-guest-kernel-hashes", "confidential-guest-support"}
)
TOLD = {"pdh": "key", "cert-chain": "chain", "cpu0-id": "cpu", "cbitpos": 51, "reduced-phys-bits": 1}
# A QEMU that has SEV, where there is a /dev/sev.
SCRIPT = """#!/bin/sh
cat > /dev/null
echo '{{"return": {{}}}}'
echo '{answer}'
"""


def launched(inside: str = "", attributes: str = "type='sev'", platform: Platform = SECURE) -> Domain:
    head = f"<launchSecurity {attributes}>{inside}</launchSecurity>"
    domain = document.parse(text("", head=head), platform)
    security.settle(domain, platform.sev)
    assign_aliases(domain)
    return domain


def test_what_is_not_said_of_the_processor_is_the_hosts() -> None:
    argv = build(launched("<policy>0x0007</policy>"), CONTEXT)
    assert spec(argv, "-object", id="lsec0") == {
        "qom-type": "sev-guest", "id": "lsec0", "cbitpos": 51, "reduced-phys-bits": 1, "policy": 7,
    }  # fmt: skip
    assert "confidential-guest-support=lsec0" in argv[argv.index("-machine") + 1].split(",")
    old = CONTEXT._replace(platform=SECURE._replace(features=SECURE.features - {"confidential-guest-support"}))
    assert "memory-encryption=lsec0" in ",".join(build(launched("<policy>3</policy>"), old))


def test_certificate_and_session_are_files_of_the_run() -> None:
    inside = "<cbitpos>47</cbitpos><policy>0x1</policy><dhCert>AQAA</dhCert><session>IHAV</session>"
    domain = launched(inside, "type='sev' kernelHashes='no'")
    found = spec(build(domain, CONTEXT), "-object", id="lsec0")
    assert (found["cbitpos"], found["kernel-hashes"]) == (47, False)
    assert dict(security.files(domain, CONTEXT)) == {
        Path(found["dh-cert-file"]): "AQAA",
        Path(found["session-file"]): "IHAV",
    }
    assert found["session-file"] == "/run/session.base64"


@pytest.mark.parametrize(
    ("inside", "attributes", "platform", "words"),
    [
        ("<policy>1</policy>", "type='sev'", QEMU, "SEV launch security is not supported with this QEMU binary"),
        ("<policy>1</policy>", "type='sev' kernelHashes='yes'",
         SECURE._replace(features=SECURE.features - {"sev-guest-kernel-hashes"}),
         "SEV measured direct kernel boot is not supported with this QEMU binary"),
        ("", "type='s390-pv'", SECURE, "S390 PV launch security is not supported with this QEMU binary"),
        ("", "type='sev'", SECURE, "XML error: failed to get launch security policy"),
    ],
)  # fmt: skip
def test_what_cannot_be_kept_from_the_host_is_refused(
    inside: str, attributes: str, platform: Platform, words: str
) -> None:
    with pytest.raises(VirtError, match=words):
        launched(inside, attributes, platform)


def emulator(directory: Path, answer: str) -> str:
    path = directory / "qemu"
    path.write_text(SCRIPT.format(answer=answer))
    path.chmod(0o755)
    return str(path)


def test_qemu_is_asked_where_the_firmware_has_a_device(tmp_path: Path) -> None:
    program = emulator(
        tmp_path, '{"id": "", "return": {"pdh": "p", "cert-chain": "c", "cbitpos": 47, "reduced-phys-bits": 1}}'
    )
    assert confidential.sev(program, tmp_path / "cache", tmp_path / "none") is None
    found = confidential.sev(program, tmp_path / "cache", tmp_path)
    assert found is not None and found[:5] == ("p", "c", None, 47, 1)


def test_a_qemu_that_refuses_has_no_sev(tmp_path: Path) -> None:
    program = emulator(tmp_path, '{"id": "", "error": {"class": "GenericError", "desc": "SEV is not enabled in KVM"}}')
    assert confidential.sev(program, tmp_path / "cache", tmp_path) is None


@pytest.mark.parametrize(
    ("registers", "guests"), [((0, 0, 509, 100), (410, 99)), ((0, 0, 0, 0), (0, 0)), (None, (0, 0))]
)
def test_how_many_guests_there_may_be(registers: tuple[int, int, int, int] | None, guests: tuple[int, int]) -> None:
    found = confidential.described(TOLD, registers)
    assert (found.max_guests, found.max_es_guests) == guests
    assert list(confidential.host_parameters(found)) == [
        "pdh", "cert-chain", "cpu0-id", "cbitpos", "reduced-phys-bits", "max-guests", "max-es-guests",
    ]  # fmt: skip


def test_a_launch_is_told_by_its_measurement() -> None:
    answers: dict[str, Any] = {
        "query-sev-launch-measure": {"data": "4l8L"},
        "query-sev": {"enabled": True, "api-major": 0, "api-minor": 24, "build-id": 15, "policy": 3, "handle": 1},
    }
    assert confidential.launch_parameters(answers.__getitem__) == {
        "sev-measurement": "4l8L", "sev-api-major": 0, "sev-api-minor": 24, "sev-build-id": 15, "sev-policy": 3,
    }  # fmt: skip


def test_a_secret_is_given_with_its_header() -> None:
    both: dict[str, int | str] = {"sev-secret": "s", "sev-secret-header": "h"}
    assert confidential.secret_arguments(both) == {"packet-header": "h", "secret": "s"}
    assert confidential.secret_arguments({**both, "sev-secret-set-address": 4096})["gpa"] == 4096
    with pytest.raises(VirtError, match="Both secret and the secret header are required") as caught:
        confidential.secret_arguments({"sev-secret": "s"})
    assert caught.value.code == ErrorCode.INTERNAL_ERROR
