"""virt-install's XML, messages and exit codes against the real virt-install 4.1.

On ``test:///default`` both talk to libvirt's invented host, ours to our copy of it. For QEMU the real tool is given a
stand-in connection that has our driver's capabilities, so that its defaults for QEMU can be compared without a daemon.
XML is compared to the byte, except for what is random.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

import pytest

import hostel
from hostel.cli.main import main
from hostel.cli.virt_install import arguments
from hostel.cli.virt_install.main import _LISTINGS
from hostel.drivers.base.capabilities import DomainCapabilitiesDriver
from support import virtinst

pytestmark = pytest.mark.requires_tool("virt-install")
TEST = "test:///default"
BASE = "--name x --memory 64 --import --osinfo generic"
DATA = Path(__file__).parents[1] / "data" / "virt_install"


class Difference(NamedTuple):
    """A command line on which the two differ on purpose."""

    command: str
    why: str
    real: str
    ours: str


XML_DIFFERENCES = [
    Difference(
        "* --disk source.protocol=nbd,source.name=e,source.host.name=h,source.host1.name=i,type=network",
        "the real one looks for the number after 'hosts', finds none, and puts every host into the first",
        '<host name="i"/>',
        '<host name="h"/>\n        <host name="i"/>',
    ),
    Difference(
        "* --disk none --graphics none --controller pci,model=pcie-root-port,address=1:2.3",
        "the real one drops the bus of an address without a domain",
        'domain="0" slot="2"',
        'domain="0" bus="1" slot="2"',
    ),
]

# Both refuse, or only ours does; what ours says, and why it says more.
OUR_ERRORS = [
    ("* --disk none --memory abc", "ERROR    Error: --memory abc: memory: 'abc' is not a whole number"),
    (
        "* --disk none --memory 0",
        "ERROR    Error: --memory 0: memory: 0 MiB is no amount; write a number of MiB above 0",
    ),
    ("* --disk none --vcpus abc", "ERROR    Error: --vcpus abc: vcpu: 'abc' is not a whole number"),
    ("* --disk none --vcpus 0", "ERROR    Error: --vcpus 0: vcpus=0: a machine has at least 1 processor"),
    (
        "* --disk size=abc",
        "ERROR    Improper value for 'size': 'abc' is not a number of GiB, such as 10 or 0.5",
    ),
    (
        "* --disk size=-1",
        "ERROR    Error: --disk size=-1: size=-1: a volume has more than 0 and less than 8589934591 GiB",
    ),
    (
        "* --disk {dir}/new.qcow2,size=1,backing_store={dir}/nosuch.img",
        "ERROR    Error: --disk {dir}/new.qcow2,size=1,backing_store={dir}/nosuch.img: "
        "backing_store={dir}/nosuch.img: there is no such file",
    ),
    (
        "--name x --memory 64 --osinfo generic --disk none --cdrom /nosuch.iso",
        "ERROR    Validating install media '/nosuch.iso' failed: there is no such file",
    ),
    (
        "* --disk none --graphics foo",
        "ERROR    Error: --graphics foo: unknown graphics type 'foo'; "
        "write vnc, or none for a machine without a display",
    ),
    (
        "* --disk none --network bridge=b,mac=zz",
        "ERROR    Error: --network bridge=b,mac=zz: unable to parse mac address 'zz'; write six bytes as MAC",
    ),
    (
        "* --disk none --virt-type kvm",
        "ERROR    Host does not support domain type kvm for virtualization type 'hvm' with architecture 'i686': "
        "use --virt-type test",
    ),
    (
        "* --disk none --arch ppc64",
        "ERROR    Host does not support any virtualization options for architecture 'ppc64'; "
        "it has hvm on i686, xen on i686",
    ),
    (
        "* --disk none --machine foo",
        "ERROR    Host does not support domain type test with machine 'foo' for virtualization type 'hvm' "
        "with architecture 'i686'",
    ),
    (
        "--name x --memory 64 --osinfo generic --disk none --install kernel=/nosuch/k",
        "ERROR    Couldn't acquire file /nosuch/k: there is no such file",
    ),
    (
        "* --disk none --xml xpath.value=3",
        "ERROR    xpath.value=3: xpath.set=XPATH says which element or attribute gets it",
    ),
    ("* --disk none --uuid zz", "ERROR    malformed uuid 'zz'; write it as 8-4-4-4-12 hexadecimal digits"),
    (
        "* --disk none --network foo",
        "ERROR    /domain/devices/interface/@type: Invalid value for attribute 'type' in element 'interface': 'foo'.",
    ),
]


def lines(*names: str) -> list[str]:
    """The command lines of files of the test data."""
    text = "".join((DATA / f"{name}.txt").read_text() for name in names)
    return [line for line in text.splitlines() if line and not line.startswith("#")]


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, size in (("disk.img", 10 << 20), ("cd.iso", 1 << 20)):
        with (tmp_path / name).open("wb") as stream:
            stream.truncate(size)
    monkeypatch.setenv("HOSTEL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def words_of(command: str, directory: Path) -> list[str]:
    return shlex.split(command.replace("* ", f"{BASE} ", 1).replace("{dir}", str(directory)))


def real(uri: str, words: list[str], directory: Path) -> tuple[int, str, str]:
    environment = {"HOME": str(directory), "XDG_CACHE_HOME": str(directory / ".cache"), "LC_ALL": "C"}
    argv = ["--connect", uri, *words]
    code, out, err = virtinst.run("virt-install", argv, cwd=str(directory), environment=environment)
    return code, plain(out), plain(err)


def ours(uri: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = main(["virt-install", "--connect", uri, *words])
    said = capsys.readouterr()
    return code, plain(said.out), plain(said.err)


def plain(text: str) -> str:
    """Without what is random, and without the clock of a progress line."""
    text = re.sub(r"<uuid>[0-9a-f-]{36}</uuid>", "<uuid>U</uuid>", text)
    text = re.sub(r"(00:16:3e|52:54:00)(:[0-9a-f]{2}){3}", "MAC", text)
    text = re.sub(r"> [0-9]+ M available", "> N M available", text)
    text = re.sub(r"(login is:) \S+", r"\1 P", text)
    return re.sub(r"^\r?((?:Allocating|Creating) [^|]*?) *\|.*$", r"\1", text, flags=re.MULTILINE).replace("\r", "")


@pytest.mark.parametrize("command", lines("commands", "commands-test"))
def test_xml_on_the_test_hypervisor_is_that_of_virt_install(
    command: str, directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*words_of(command, directory), "--print-xml"]
    assert ours(TEST, words, capsys) == real(TEST, words, directory)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One session for all, which asks only once whether KVM runs guests."""
    return tmp_path_factory.mktemp("home")


@pytest.mark.requires_tool("qemu-system-x86_64")
@pytest.mark.parametrize("command", lines("commands-qemu"))
def test_xml_for_qemu_is_that_of_virt_install(
    command: str, directory: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOSTEL_HOME", str(home))
    with hostel.open("qemu:///session") as connection:
        (directory / "caps.xml").write_text(connection.capabilities())
        driver = connection.hypervisor
        assert isinstance(driver, DomainCapabilitiesDriver)
        (directory / "domcaps.xml").write_text(driver.connect_get_domain_capabilities())
    stand_in = f"fakeuri=qemu:///session,caps={directory}/caps.xml,domcaps={directory}/domcaps.xml"
    words = [*words_of(command, directory), "--print-xml"]
    code, out, err = ours("qemu:///session", words, capsys)
    # The stand-in's pools cannot see files, so the real one cannot tell what format one has that exists.
    for name in ("disk.img", "cd.iso"):
        out = out.replace(
            f'type="raw"/>\n      <source file="{directory}/{name}"', f'/>\n      <source file="{directory}/{name}"'
        )
    out = out.replace('name="qemu" />', 'name="qemu"/>').replace(
        f"{home}/data/images", f"{directory}/.local/share/libvirt/images"
    )
    assert (code, out, err) == real(f"__virtinst_test__{TEST},{stand_in}", words, directory)


@pytest.mark.parametrize(
    "options",
    [
        "--location {dir}/tree --extra-args a=b --extra-args c",
        "--location {dir}/tree,kernel=other/k,initrd=other/i --initrd-inject cd.iso",
        "--location {dir}/tree --osinfo detect=on",
        "--location {dir}/tree,kernel=other/k,initrd=other/i --osinfo detect=on",
        "--install kernel={dir}/tree/other/k,initrd={dir}/tree/other/i,kernel_args='x y'",
        "--install bootdev=network",
        "--location {dir}/tree --install bootdev=network",
        "--location {dir}/tree --install no_install=yes",
        "--location /nosuch --install kernel={dir}/tree/other/k,initrd={dir}/tree/other/i",
        "--cdrom {dir}/cd.iso --install kernel={dir}/tree/other/k,initrd={dir}/tree/other/i",
        "--pxe --install kernel={dir}/tree/other/k,initrd={dir}/tree/other/i",
        "--pxe --install no_install=yes",
        "--install no_install=yes",
        "--disk {dir}/disk.img --cloud-init user-data={dir}/cd.iso",
        "--pxe --disk {dir}/disk.img --cloud-init user-data={dir}/cd.iso",
        "--disk {dir}/disk.img --cloud-init user-data={dir}/cd.iso --sysinfo system.serial=a",
    ],
)
def test_an_installation_starts_as_virt_installs_does(
    options: str, directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = directory / "tree"
    for name in ("images/pxeboot/vmlinuz", "images/pxeboot/initrd.img", "other/k", "other/i"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(b"")
    (tree / ".treeinfo").write_text(
        "[general]\nfamily = Fedora\nversion = 20\narch = x86_64\n[images-x86_64]\n"
        "kernel = images/pxeboot/vmlinuz\ninitrd = images/pxeboot/initrd.img\n"
    )
    (directory / ".cache").mkdir()
    words = ["--name", "x", "--memory", "64", "--osinfo", "generic", *words_of(options, directory), "--print-xml"]
    words += [] if "--disk" in words else ["--disk", "none"]
    expected, got = real(TEST, words, directory), ours(TEST, words, capsys)
    assert got[0] == 0, got
    assert (got[0], _without_scratch(got[1])) == (expected[0], _without_scratch(expected[1]))


def _without_scratch(text: str) -> str:
    """Without where the files were fetched to, and what was made of their names there."""
    return re.sub(r"/[^<>\"]*/boot/virtinst-(?:\w+/|\w+-)", "/", text)


@pytest.mark.parametrize("difference", XML_DIFFERENCES, ids=lambda difference: difference.why)
def test_xml_differs_on_purpose(difference: Difference, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*words_of(difference.command, directory), "--print-xml"]
    expected = real(TEST, words, directory)[1]
    assert difference.real in expected
    assert ours(TEST, words, capsys)[1] == expected.replace(difference.real, difference.ours)


@pytest.mark.parametrize("command", lines("errors"))
def test_errors_are_those_of_virt_install(command: str, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*words_of(command, directory), *([] if "--print-xml" in command else ["--dry-run"])]
    expected = real(TEST, words, directory)
    assert expected[0] != 0
    assert ours(TEST, words, capsys) == expected


@pytest.mark.parametrize(("command", "message"), OUR_ERRORS)
def test_where_virt_install_says_too_little_ours_says_what_to_do(
    command: str, message: str, directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*words_of(command, directory), "--dry-run"]
    code, out, err = ours(TEST, words, capsys)
    assert (code, out) == (1, "")
    assert err.splitlines()[-1].startswith(message.replace("{dir}", str(directory)))
    assert (code, err) != real(TEST, words, directory)[::2]


def test_a_volume_in_no_directory_is_refused_before_anything_is_made(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*words_of("* --disk /nosuch/dir/a.img,size=1", directory), "--dry-run"]
    code, _, err = ours("qemu:///session", words, capsys)
    assert code == 1
    assert err.endswith("'/nosuch/dir/a.img' cannot be made: '/nosuch/dir' is no directory; make it first\n")


@pytest.mark.parametrize("command", lines("installations"))
def test_an_installation_says_what_virt_install_says(
    command: str, directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--name", "x", "--memory", "64", "--osinfo", "generic", "--noautoconsole", *words_of(command, directory)]
    assert ours(TEST, words, capsys) == real(TEST, words, directory)


def test_the_systems_are_those_of_libosinfos_database(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ours(TEST, ["--osinfo", "list"], capsys) == real(TEST, ["--osinfo", "list"], directory)


def test_every_option_of_the_help_is_taken_or_refused_by_name(directory: Path) -> None:
    _, out, _ = real(TEST, ["--help"], directory)
    theirs = set(re.findall(r"(?<![\w-])(--[a-zA-Z][\w-]*)", out))
    parser = arguments.parser()
    known = {flag for action in parser._actions for flag in action.option_strings}
    assert theirs - known == {"--option"}  # the page's last line, no option


def test_the_sub_options_are_those_of_virt_install(directory: Path) -> None:
    flags = {table.flag: table for table in _LISTINGS.values()}
    _, out, _ = real(TEST, [word for flag in flags for word in (flag, "help")], directory)
    listed: dict[str, set[str]] = {}
    for line in out.splitlines():
        if line.endswith(" options:"):
            names = listed.setdefault(line.removesuffix(" options:"), set())
        elif line:
            names.add(line.strip())
    for flag, table in flags.items():
        # The one is taken and not listed by the real tool; the other is ours.
        extra = {"--disk": {"perms"}, "--check": {"trust"}}.get(flag, set())
        assert {sub.name for sub in table.rows()} == listed[flag] | extra
