"""Answers to installers: made from the templates of a database, and put where the installer looks."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pycdlib
import pytest

import hostel
from hostel.cli.output import Output
from hostel.cli.virt_install import location, media
from hostel.cli.virt_install.answers import ARGUMENTS, SCRIPT, Known, Script
from hostel.cli.virt_install.arguments import parser
from hostel.cli.virt_install.database import Database, Descriptor, TreeNote, name_of
from hostel.cli.virt_install.main import run
from hostel.cli.virt_install.seed import write_disc
from hostel.errors import HostelError, UsageError

BASE = ["--name", "box", "--memory", "64", "--disk", "none", "--graphics", "none", "--noautoconsole"]
SYSTEMS = """<libosinfo>
  <os id="http://x/fedora/36">
    <short-id>fedora36</short-id><name>Fedora</name><name xml:lang="de">F</name><version>36</version>
    <variant id="server"><name>Fedora Server 36</name></variant>
    <variant id="all"><name>Fedora Everything 36</name></variant>
    <media arch="x86_64"><variant id="server"/><iso><volume-id>F-36.*</volume-id></iso>
      <installer><script id="http://x/one"/></installer></media>
    <media arch="x86_64" installer-script="false"><iso><volume-id>Live</volume-id></iso></media>
    <tree arch="i686"><url>{url}/all</url><variant id="all"/></tree>
    <tree arch="i686"><url>{url}/server</url><variant id="server"/>
      <treeinfo><family>Fedora</family><version>36</version></treeinfo></tree>
    <resources arch="all"><minimum><ram>104857600</ram></minimum>
      <network-install><ram>209715200</ram></network-install></resources>
    <installer><script id="http://x/one"/><script id="http://x/two"/></installer>
  </os>
  <os id="http://x/win/10"><short-id>win10</short-id><installer><script id="http://x/win"/></installer></os>
  <os id="http://x/bad"><short-id>debian11</short-id><installer><script id="http://x/bad"/></installer></os>
</libosinfo>"""
DRIVERS = """<libosinfo><os id="http://x/win/10">
  <driver arch="i686" location="{url}/drivers" pre-installable="true">
    <file>viostor.sys</file><device id="http://pcisig.com/pci/1af4/1001"/>
  </driver>
</os></libosinfo>"""
SHEET = (
    '<xsl:stylesheet xmlns:xsl="http://www.w3.org/1999/XSL/Transform" version="1.0"><xsl:output method="text"/>'
    '<xsl:template match="/command-line">ks=<xsl:value-of select="script/expected-filename"/>,'
    '<xsl:value-of select="script/preferred-injection-method"/>,<xsl:value-of select="script/installation-source"/>,'
    '<xsl:value-of select="tree/url"/>'
    '</xsl:template><xsl:template match="/install-script-config">{body}</xsl:template></xsl:stylesheet>'
)
BODY = "".join(
    f'{name}=<xsl:value-of select="{path}"/>\n'
    for name, path in (
        ("system", "os/name"), ("keys", "config/l10n-keyboard"), ("user", "config/user-login"),
        ("secret", "config/user-password"), ("host", "config/hostname"), ("disk", "config/target-disk"),
        ("url", "config/installation-url"), ("key", "config/reg-product-key"), ("medium", "media/variant"),
        ("tree", "tree/url"),
    )
)  # fmt: skip
SCRIPTS = """<libosinfo>
  <install-script id="http://x/one"><profile>jeos</profile><expected-filename>a.ks</expected-filename>
    <config><param name="l10n-keyboard" policy="optional" value-map="http://x/keys"/>
    <param name="admin-password" policy="optional"/><param name="admin-password" policy="required"/></config>
    <injection-method>initrd</injection-method><template>{one}</template></install-script>
  <install-script id="http://x/two"><profile>desktop</profile><expected-filename>../../b.ks</expected-filename>
    <config><param name="user-login" policy="required"/></config>
    <injection-method>initrd</injection-method><template>{one}</template></install-script>
  <install-script id="http://x/win"><profile>desktop</profile><expected-filename>answers.xml</expected-filename>
    <injection-method>cdrom</injection-method><template>{one}</template></install-script>
  <install-script id="http://x/bad"><profile>desktop</profile><expected-filename>bad</expected-filename>
    <injection-method>initrd</injection-method><template>{bad}</template></install-script>
</libosinfo>"""
KEYS = '<libosinfo><datamap id="http://x/keys"><entry inval="de_DE" outval="de"/></datamap></libosinfo>'


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *values: object) -> None:
        """Say nothing."""


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Silent, directory=str(tmp_path / "web")))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def database(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> Database:
    root = tmp_path / "osinfo"
    for name in ("all", "server", "drivers"):
        (tmp_path / "web" / name).mkdir(parents=True)
        (tmp_path / "web" / name / ".treeinfo").write_text(
            "[general]\nfamily = Fedora\nversion = 36\narch = i386\n[images-i386]\nkernel = vmlinuz\ninitrd = initrd\n"
        )
        for file in ("vmlinuz", "initrd", "viostor.sys"):
            (tmp_path / "web" / name / file).write_bytes(file.encode())
    secret = tmp_path / "secret"
    secret.write_text("<s>hidden</s>")
    bad = SHEET.format(body=f"<xsl:value-of select=\"document('{secret}')\"/>")
    texts = {
        "os/x/systems.xml": SYSTEMS.format(url=url),
        "os/x/win.d/drivers.xml": DRIVERS.format(url=url),
        "os/x/broken.xml": "<libosinfo><os",
        "install-script/x.xml": SCRIPTS.format(one=SHEET.format(body=BODY), bad=bad),
        "datamap/x.xml": KEYS,
    }
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    monkeypatch.setenv("OSINFO_SYSTEM_DIR", str(root))
    monkeypatch.setenv("OSINFO_LOCAL_DIR", str(tmp_path / "nosuch"))
    monkeypatch.setenv("OSINFO_USER_DIR", str(tmp_path / "own"))
    monkeypatch.setenv("HOSTEL_HOME", str(tmp_path / "home"))
    (tmp_path / "admin").write_text("geheim\nsecond line\n")
    return Database([root, tmp_path / "own"])


def install(*words: str) -> tuple[str, str]:
    """Run virt-install on the test hypervisor up to the XML; what it prints, and what it warns of."""
    import io

    out, err = io.BytesIO(), io.BytesIO()
    output = Output(out=io.TextIOWrapper(out, write_through=True), err=io.TextIOWrapper(err, write_through=True))
    options = parser().parse_args([*BASE, *words, "--print-xml"])
    with hostel.open("test:///default") as connection:
        assert run(connection, options, output) == 0
    return out.getvalue().decode(), err.getvalue().decode()


@pytest.fixture
def injected(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """What gets into the initial RAM disk, which is gone when the command ends."""
    found: dict[str, bytes] = {}
    real = location.inject

    def note(initrd: Path, files: Mapping[str, bytes]) -> None:
        real(initrd, files)
        content = initrd.read_bytes()
        archive = gzip.decompress(content[content.index(b"\x1f\x8b") :])
        assert all(name.encode() + b"\0" in archive and data in archive for name, data in files.items())
        found.update(files)

    monkeypatch.setattr(location, "inject", note)
    return found


def test_a_tree_by_the_name_of_its_system_is_installed_without_a_question(
    url: str, injected: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("locale.getlocale", lambda: ("de_DE", "UTF-8"))
    words = f"profile=jeos,user-login=Anna,admin-password-file={tmp_path}/admin,product-key=K"
    out, err = install("--install", "fedora36", "--unattended", words)
    assert list(injected) == ["a.ks"]
    lines = injected["a.ks"].decode().split()
    assert lines == [
        "system=Fedora", "keys=de", "user=anna", "secret=", "host=box", "disk=/dev/vda", f"url={url}/server", "key=K",
        "medium=", "tree=",
    ]  # fmt: skip
    assert f"<cmdline>ks=a.ks,initrd,network,{url}/server</cmdline>" in out
    assert "<currentMemory>204800</currentMemory>" in out
    assert "Overriding memory to 200 MiB needed for fedora36 network install." in err


def test_what_the_user_tells_the_kernel_comes_first_and_may_be_all(injected: dict[str, bytes], url: str) -> None:
    words = ("--location", f"{url}/server", "--osinfo", "fedora36", "--unattended", "user-login=anna")
    out, err = install(*words, "--extra-args", "console=ttyS0")
    assert f"<cmdline>console=ttyS0 ks=../../b.ks,initrd,network,{url}/server</cmdline>" in out
    assert list(injected) == ["b.ks"]  # in the root, whatever its path says
    assert "Using unattended profile 'desktop'" in err
    out, _ = install(*words, "--install", "kernel_args=quiet,kernel_args_overwrite=yes")
    assert "<cmdline>quiet</cmdline>" in out


def test_windows_gets_a_cdrom_with_answers_and_drivers_and_the_devices_of_those(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: dict[str, bytes] = {}
    real = write_disc

    def note(path: Path, label: str, files: Mapping[str, bytes], option: str) -> None:
        real(path, label, files, option)
        iso = pycdlib.PyCdlib()
        iso.open(str(path))
        for name in files:
            with iso.open_file_from_iso(joliet_path=f"/{name}") as file:
                written[name] = file.read()
        iso.close()

    monkeypatch.setattr(media, "write_disc", note)
    (tmp_path / "cd.iso").write_bytes(bytes(1 << 16))
    words = ("--cdrom", f"{tmp_path}/cd.iso", "--osinfo", "win10", "--unattended", "product-key=K")
    out, _ = install(*words)
    assert sorted(written) == ["answers.xml", "viostor.sys"]
    assert b"disk=C\n" in written["answers.xml"]
    assert b"key=K\n" in written["answers.xml"]
    first, last = out.split("<domain ")[1:]
    assert first.count('device="cdrom"') == last.count('device="cdrom"') == 2
    assert "unattended.iso" in first
    assert "unattended.iso" not in last


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--install", "fedora36", "--unattended", "profile=jeos"], "fedora36 requires the admin-password to be set"),
        (["--install", "fedora36", "--unattended", "profile=x"], "'x' profile. Available profiles: desktop, jeos$"),
        (["--install", "fedora36", "--unattended", "user-login=ROOT"], "fedora36 cannot use 'root' as user-login"),
        (["--install", "win10"], "OS 'win10' does not have a URL location"),
        (["--install", "fedora36", "--arch", "i686", "--boot", "arch=xx"], "architecture"),
        (["--pxe", "--osinfo", "fedora36", "--unattended"], "not support required injection method 'cdrom'"),
        (["--pxe", "--osinfo", "win7", "--unattended"], "OS 'win7' does not support unattended .*--initrd-inject"),
        (["--location", "{url}/all", "--osinfo", "debian11", "--unattended"], "installation script http://x/bad"),
    ],
)
def test_what_cannot_be_answered_is_refused(words: list[str], message: str, url: str) -> None:
    with pytest.raises(HostelError, match=message):
        install(*(word.format(url=url) for word in words))


def test_a_host_without_the_database_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OSINFO_SYSTEM_DIR", str(tmp_path / "nosuch"))
    with pytest.raises(UsageError, match="come with osinfo-db, which is not installed"):
        install("--pxe", "--osinfo", "fedora36", "--unattended")


def test_a_template_reads_no_files(database: Database) -> None:
    element, system = database.script("http://x/bad"), database.system("debian11")
    assert element is not None
    assert system is not None
    with pytest.raises(UsageError, match="installation script http://x/bad"):
        Script(database, element).render(SCRIPT, Known(system, None, "initrd", {}))
    assert Script(database, element).render(ARGUMENTS, Known(system, None, "initrd", {})) == "ks=bad,initrd,network,"


@pytest.mark.parametrize(
    ("volume", "name"), [("F-36-x", "fedora36"), ("Live", "fedora36"), ("other", None), ("", None)]
)
def test_a_medium_is_known_by_its_descriptor(database: Database, volume: str, name: str | None) -> None:
    found = database.identify(Descriptor(volume, "", "", "", 0))
    assert (None if found is None else name_of(found)) == name


def test_a_tree_is_known_by_its_note(database: Database) -> None:
    found = database.identify_tree(TreeNote("Fedora", "", "36", "i386"))
    assert found is not None
    assert (found.findtext("url") or "").endswith("/server")
    assert database.identify_tree(TreeNote("Fedora", "", "35", "i386")) is None


def test_a_file_of_the_users_stands_for_the_hosts(database: Database, tmp_path: Path) -> None:
    own = tmp_path / "own" / "os" / "x" / "systems.xml"
    own.parent.mkdir(parents=True)
    own.write_text('<libosinfo><os id="http://x/mine"><short-id>mine</short-id></os></libosinfo>')
    assert database.system("fedora36") is None
    found = database.system("mine")
    assert found is not None
    assert found.identifier == "http://x/mine"
