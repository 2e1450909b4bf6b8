"""Secrets: what is kept where, and who is shown what."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hostel.drivers.base.secret import SecretRef, SecretUsageType
from hostel.drivers.events import Event, EventBus
from hostel.drivers.readonly import read_only
from hostel.drivers.secret.driver import MAX_VALUE, VaultSecretDriver
from hostel.drivers.secret.vault import DiskVault, MemoryVault
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode, ErrorDomain, VirtError

UUID = "0a81f5b2-8403-7b23-c8d6-21ccc2f80d6f"
OTHER = "1a81f5b2-8403-7b23-c8d6-21ccc2f80d6f"


def document(uuid: str = UUID, volume: str = "/a.img", attributes: str = "") -> str:
    return f"<secret {attributes}><uuid>{uuid}</uuid><usage type='volume'><volume>{volume}</volume></usage></secret>"


@pytest.fixture
def directories(tmp_path: Path) -> Directories:
    return Directories.under(tmp_path)


@pytest.fixture(params=["disk", "memory"])
def driver(request: pytest.FixtureRequest, directories: Directories) -> VaultSecretDriver:
    return VaultSecretDriver(DiskVault(directories) if request.param == "disk" else MemoryVault(), EventBus(None))


def on_disk(directories: Directories) -> VaultSecretDriver:
    return VaultSecretDriver(DiskVault(directories), EventBus(None))


def code(error: pytest.ExceptionInfo[VirtError]) -> ErrorCode:
    return error.value.code


def test_a_secret_is_found_by_its_uuid_and_its_use(driver: VaultSecretDriver) -> None:
    ref = driver.secret_define_xml(document())
    assert ref == SecretRef(UUID, SecretUsageType.VOLUME, "/a.img")
    assert driver.secret_lookup_by_uuid(UUID.upper().replace("-", "")) == ref
    assert driver.secret_lookup_by_usage(1, "/a.img") == ref
    assert driver.connect_list_all_secrets() == [ref]
    driver.secret_undefine(ref)
    assert driver.connect_list_all_secrets() == []
    looks: tuple[Callable[[], object], ...] = (
        lambda: driver.secret_lookup_by_uuid(UUID),
        lambda: driver.secret_lookup_by_usage(1, "/a.img"),
    )
    for look in looks:
        with pytest.raises(VirtError) as error:
            look()
        assert code(error) is ErrorCode.NO_SECRET


def test_a_value_is_kept_when_the_document_is_replaced(driver: VaultSecretDriver) -> None:
    ref = driver.secret_define_xml(document())
    with pytest.raises(VirtError) as error:
        driver.secret_get_value(ref)
    assert code(error) is ErrorCode.NO_SECRET
    driver.secret_set_value(ref, b"\0\xff pass")
    driver.secret_define_xml(document(attributes="ephemeral='yes'"))
    assert driver.secret_get_value(ref) == b"\0\xff pass"
    driver.secret_define_xml(document(attributes="ephemeral='no'"))
    assert driver.secret_get_value(ref) == b"\0\xff pass"
    driver.secret_undefine(ref)
    driver.secret_define_xml(document())
    with pytest.raises(VirtError):
        driver.secret_get_value(ref)


def test_a_private_value_is_for_drivers_only(driver: VaultSecretDriver) -> None:
    ref = driver.secret_define_xml(document(attributes="private='yes'"))
    driver.secret_set_value(ref, b"p")
    with pytest.raises(VirtError) as error:
        driver.secret_get_value(ref)
    assert code(error) is ErrorCode.INVALID_SECRET
    assert driver.value_for_use(ref) == b"p"
    with pytest.raises(VirtError, match="private flag"):
        driver.secret_define_xml(document())


def test_a_use_has_one_secret(driver: VaultSecretDriver) -> None:
    driver.secret_define_xml(document())
    with pytest.raises(VirtError, match=f"UUID {UUID} already defined"):
        driver.secret_define_xml(document(OTHER))
    with pytest.raises(VirtError, match=rf"UUID {UUID} is already defined for use with /a\.img"):
        driver.secret_define_xml(document(volume="/b.img"))
    driver.secret_define_xml(document(OTHER, "/b.img"))
    assert len(driver.connect_list_all_secrets()) == 2


def test_a_use_of_the_same_name_may_become_of_another_kind(driver: VaultSecretDriver) -> None:
    driver.secret_define_xml(document())
    tls = document().replace("'volume'><volume>/a.img</volume>", "'tls'><name>/a.img</name>")
    assert driver.secret_define_xml(tls).usage_type == 4
    driver.secret_define_xml(document(OTHER))
    with pytest.raises(VirtError, match=f"UUID {OTHER} already defined for use with /a.img"):
        driver.secret_define_xml(document())


@pytest.mark.parametrize(
    ("xml", "domain", "words"),
    [
        ("<usage/>", ErrorDomain.XML, "XML error: expecting root element of 'secret', not 'usage'"),
        ("<secret><usage/></secret>", ErrorDomain.SECRET, "XML error: unknown secret usage type"),
        ("<secret private='frob'/>", ErrorDomain.SECRET, "XML error: invalid value of 'private'. Write yes or no"),
        (
            "<secret><uuid>x</uuid></secret>",
            ErrorDomain.SECRET,
            "internal error: malformed uuid element. Expected UUID",
        ),
    ],
)
def test_what_is_wrong_with_a_document_is_told_as_by_libvirt(
    driver: VaultSecretDriver, xml: str, domain: ErrorDomain, words: str
) -> None:
    with pytest.raises(VirtError) as caught:
        driver.secret_define_xml(xml)
    assert (caught.value.domain, str(caught.value)) == (domain, words)


def test_a_value_has_a_bound(driver: VaultSecretDriver) -> None:
    ref = driver.secret_define_xml(document())
    driver.secret_set_value(ref, b"x" * MAX_VALUE)
    with pytest.raises(VirtError, match="at most"):
        driver.secret_set_value(ref, b"x" * (MAX_VALUE + 1))
    assert len(driver.secret_get_value(ref)) == MAX_VALUE


def test_who_may_only_look_sees_no_value(driver: VaultSecretDriver) -> None:
    ref = driver.secret_define_xml(document())
    driver.secret_set_value(ref, b"p")
    looking = read_only(driver)
    assert looking.connect_list_all_secrets() == [ref]
    assert UUID in looking.secret_get_xml_desc(ref)
    for call in (
        lambda: looking.secret_get_value(ref),
        lambda: looking.secret_set_value(ref, b"q"),
        lambda: looking.secret_undefine(ref),
        lambda: looking.secret_define_xml(document(OTHER, "/b.img")),
    ):
        with pytest.raises(VirtError) as error:
            call()
        assert code(error) is ErrorCode.OPERATION_DENIED


def files(directories: Directories) -> Iterator[Path]:
    for root in directories:
        yield from (path for path in root.rglob("*") if path.is_file())


def test_no_file_has_a_value_to_read(directories: Directories) -> None:
    value = b"a passphrase that nobody else has"
    ref = on_disk(directories).secret_define_xml(document())
    on_disk(directories).secret_set_value(ref, value)
    assert on_disk(directories).secret_get_value(ref) == value
    found = list(files(directories))
    assert found
    import base64

    for path in found:
        content = path.read_bytes()
        assert value not in content
        assert base64.b64encode(value)[:-4] not in content
        assert path.stat().st_mode & 0o077 == 0


def test_a_value_belongs_to_its_secret_and_its_key(directories: Directories) -> None:
    driver = on_disk(directories)
    ref = driver.secret_define_xml(document())
    other = driver.secret_define_xml(document(OTHER, "/b.img"))
    driver.secret_set_value(ref, b"one")
    driver.secret_set_value(other, b"two")
    folder = directories.config / "secrets"
    (folder / f"{OTHER}.value").write_bytes((folder / f"{UUID}.value").read_bytes())
    with pytest.raises(VirtError, match="cannot be decrypted"):
        driver.secret_get_value(other)
    assert driver.secret_get_value(ref) == b"one"
    (directories.data / "secrets" / "key").unlink()
    with pytest.raises(VirtError, match="is gone"):
        driver.secret_get_value(ref)


def test_ephemeral_secrets_are_gone_with_the_host(directories: Directories) -> None:
    driver = on_disk(directories)
    kept = driver.secret_define_xml(document())
    gone = driver.secret_define_xml(document(OTHER, "/b.img", "ephemeral='yes'"))
    driver.secret_set_value(gone, b"e")
    assert not any(OTHER in path.name for path in (directories.config / "secrets").iterdir())
    DiskVault(directories).forget_running()
    assert driver.connect_list_all_secrets() == [kept]
    assert not any(OTHER in path.name for path in files(directories))


def test_a_broken_file_hides_no_other_secret(directories: Directories) -> None:
    driver = on_disk(directories)
    ref = driver.secret_define_xml(document())
    (directories.config / "secrets" / f"{OTHER}.xml").write_text("<secret")
    assert driver.connect_list_all_secrets() == [ref]
    with pytest.raises(VirtError, match="is broken"):
        driver.secret_lookup_by_uuid(OTHER)


def test_what_happens_is_told() -> None:
    bus = EventBus(None)
    driver = VaultSecretDriver(MemoryVault(), bus)
    with bus.listen() as listener:
        ref = driver.secret_define_xml(document())
        driver.secret_set_value(ref, b"p")
        driver.secret_undefine(ref)
        told = [listener.get(1) for _ in range(3)]
    assert [(each.kind, dict(each.detail)) for each in told if isinstance(each, Event)] == [
        ("lifecycle", {"event": 0, "detail": 0}),
        ("value-changed", {}),
        ("lifecycle", {"event": 1, "detail": 0}),
    ]
