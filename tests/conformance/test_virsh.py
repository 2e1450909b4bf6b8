"""Our virsh against the real one on ``test:///default``: both on an invented hypervisor, ours on our own.

Every line runs in both, and exit code, output and error text are compared.
"""

from __future__ import annotations

import io
import re
import subprocess
from pathlib import Path

import pytest

from hostel.cli.virsh.main import main, open_uri
from hostel.cli.virsh.registry import COMMANDS as OURS
from hostel.cli.virsh.registry import find
from support.virsh import run_lines

pytestmark = pytest.mark.requires_tool("virsh")
URI = "test:///default"

GUEST = "\"<host mac='52:54:00:00:00:01' name='a' ip='192.168.122.45'/>\""

COMMANDS = [
    # wrong
    "start",
    "start --foo",
    "vcpupin test 0 ''",
    "emulatorpin test ''",
    "schedinfo test x",
    "domhostname test a b",
    "domsetlaunchsecstate test a b",
    "start test test2 test3",
    "start --domain",
    "start --domain test --domain test",
    "list --all=1",
    "list --all x",
    "list --al",
    "list --all --all",
    "list --table --name",
    "nosuch",
    "vol-resize",
    "vol-resize a",
    "vol-resize a 1G",
    "vol-info a",
    "vol-info a --pool default-pool",
    "vol-info a --pool nosuch",
    "dominfo nosuch",
    "domid nosuch",
    "domid 1",
    "domname 99",
    "domname test",
    "domuuid 6695eb01-f6a4-8304-79aa-97f2502e193f",
    "pool-info nosuch",
    "pool-info ''",
    "vol-list nosuch",
    "net-uuid nosuch",
    "net-name default",
    "net-info nosuch",
    "define /nosuch",
    "define /",
    "define ''",
    "pool-define /nosuch",
    "net-define /nosuch",
    "help nosuch",
    'echo "open',
    "echo trailing\\",
    "domstate -- --reason",
    "start test",
    "resume test",
    "vncdisplay test",
    "cd /",
    "console test",
    "destroy test; console test",
    "shutdown test --mode",
    "shutdown test --mode button",
    "shutdown test --mode acpi,button",
    "reboot test --mode button",
    "echo --xml --shell a",
    "pool-list --all --inactive",
    "pool-list --details --uuid",
    "pool-list --type dir,foo",
    "pool-uuid dfe224cb-28fb-8dd0-c4b2-64eb3f0f4566",
    "pool-name default-pool",
    "pool-define-as a",
    "pool-define-as p dir",
    "pool-define-as p dir --secret-usage a --secret-uuid b",
    "vol-upload a b --offset 0x10",
    "vol-upload a b --offset -1",
    "vol-download a b --length 18446744073709551616",
    "vol-pool nosuch",
    "vol-wipe nosuch --pool default-pool",
    "vol-create-as default-pool v 1Q",
    "vol-create-as default-pool v -1",
    "vol-create-as default-pool '' 1",
    "vol-create-as default-pool v 1M --backing-vol nosuch",
    "undefine test --wipe-storage",
    "undefine test --nvram --keep-nvram",
    "undefine test --remove-all-storage",
    "net-list --table --name",
    # right
    "list",
    "list --all",
    "list --inactive",
    "list --uuid",
    "list --name --all",
    "list --uuid --name",
    "list --id",
    "list --id --name",
    "list --id --uuid --name",
    "list --title",
    "list --table --title",
    "list --transient",
    "list --persistent",
    "list --with-snapshot",
    "list --without-snapshot",
    "list --state-running",
    "list --state-other",
    "list --managed-save",
    "destroy test; list --id --all; list --state-shutoff; list --inactive --state-running; list --id --name --all",
    "domstate test",
    "domstate test --reason",
    "domstate --domain=test",
    "domstate --reason -- test",
    "domid test",
    "domid 6695eb01-f6a4-8304-79aa-97f2502e193f",
    "domname 1",
    "domname 6695eb01-f6a4-8304-79aa-97f2502e193f",
    "domuuid test",
    "domuuid 1",
    "domblklist test",
    "domblklist 1 --details",
    "dominfo test",
    "dominfo 1; destroy 1; dominfo test",
    "autostart test",
    "autostart test --disable; list --autostart --all",
    "autostart 1; list --autostart",
    "destroy test; list --all; domstate test --reason; domid test; start test; list",
    "suspend test; domstate test --reason; suspend test; resume test; domstate test --reason; resume 1",
    "shutdown test; shutdown test; list --all; domstate test --reason",
    "reboot 1; domstate test --reason",
    "reset 1",
    "suspend 1; destroy 1; suspend test; reset test; reboot test",
    "undefine test; list --all; dominfo test; undefine test; destroy test; list --all",
    "destroy test; undefine test; list --all; undefine test",
    "start --paused test",
    "dumpxml test --inactive",
    "dumpxml test",
    "dumpxml test --xpath //disk",
    "dumpxml test --xpath /domain/name/text()",
    "dumpxml test --xpath //source/@file",
    "dumpxml test --xpath //target --wrap",
    "dumpxml test --xpath //nosuch",
    "dumpxml test --xpath count(//disk)",
    "dumpxml test --wrap",
    "dumpxml nosuch",
    "pool-list",
    "pool-list --all",
    "pool-list --inactive",
    "pool-list --details",
    "pool-list --name --uuid",
    "pool-list --name",
    "pool-list --uuid",
    "pool-list --type dir",
    "pool-list --type fs,netfs",
    "pool-list --transient",
    "pool-list --no-autostart",
    "pool-info default-pool",
    "pool-info default-pool --bytes",
    "pool-uuid default-pool",
    "pool-name dfe224cb-28fb-8dd0-c4b2-64eb3f0f4566",
    "pool-dumpxml default-pool",
    "pool-dumpxml dfe224cb-28fb-8dd0-c4b2-64eb3f0f4566",
    "pool-destroy default-pool; pool-list; pool-list --all --details; pool-info default-pool; pool-start default-pool",
    "pool-destroy default-pool; pool-destroy default-pool; vol-list default-pool; pool-undefine default-pool",
    "pool-autostart default-pool; pool-list; pool-list --autostart; pool-autostart default-pool --disable; pool-list",
    "pool-refresh default-pool; pool-start default-pool; pool-undefine default-pool; pool-delete default-pool",
    "pool-define-as p dir --target /tmp/p; pool-list --all; pool-build p; pool-start p; pool-list; pool-dumpxml p "
    "--xpath //target",
    "pool-create-as t dir --target /tmp/t; pool-list --transient; pool-destroy t; pool-list --all",
    "pool-define-as p dir --target /tmp/p --print-xml",
    "pool-define-as n netfs --source-host h --source-path /e --target /tmp/n --source-format nfs --print-xml",
    "pool-define-as i iscsi h --source-dev d --source-initiator q --auth-type chap --auth-username u --secret-usage s "
    "--print-xml",
    "pool-define-as s scsi --adapter-wwnn 1 --adapter-wwpn 2 --adapter-parent p --print-xml",
    "pool-define-as s scsi --adapter-wwnn 1 --adapter-wwpn 2 --adapter-parent-wwnn 3 --adapter-parent-wwpn 4"
    " --print-xml",
    "pool-define-as s scsi --adapter-wwnn 1 --adapter-wwpn 2 --adapter-parent-fabric-wwn f --print-xml",
    "pool-define-as s scsi --adapter-name scsi_host0 --source-name n --source-protocol-ver 4 --print-xml",
    "pool-create-as l logical --source-name vg --source-protocol-ver 3 --build --overwrite --print-xml",
    "vol-list default-pool",
    "vol-list default-pool --details",
    "vol-create-as default-pool v 5G; vol-list default-pool; vol-list default-pool --details; vol-info v default-pool",
    "vol-create-as default-pool v 5G --allocation 1G; vol-info v --pool default-pool --bytes; vol-path v default-pool; "
    "vol-key /default-pool/v; vol-name /default-pool/v; vol-pool /default-pool/v; vol-pool --uuid /default-pool/v",
    "vol-create-as default-pool v 5M; vol-dumpxml v default-pool; vol-dumpxml v default-pool --xpath //capacity",
    "vol-create-as default-pool v 5M; vol-create-as default-pool v 5M; vol-delete v default-pool; vol-delete v "
    "default-pool; vol-list default-pool",
    "vol-create-as default-pool v 200G",
    "vol-create-as default-pool v 1K --format qcow2; vol-clone v w default-pool; vol-list default-pool; vol-delete "
    "/default-pool/v; vol-list default-pool",
    "vol-create-as default-pool v 1k; vol-clone v w --pool default-pool --print-xml",
    "vol-create-as default-pool v 10 --print-xml",
    "vol-create-as default-pool v 10MiB --allocation 1KB --format qcow2 --print-xml",
    "vol-create-as default-pool v 1; vol-create-as default-pool w 1 --format qcow2 --backing-vol v "
    "--backing-vol-format raw --print-xml",
    "pool-create-as t dir --target /tmp/t; vol-create-as t v 1; vol-info /tmp/t/v default-pool",
    "vol-create-as default-pool v 1; vol-resize v 2M --pool default-pool",
    "vol-create-as default-pool v 1; vol-resize v -2M --pool default-pool",
    "vol-create-as default-pool v 1; vol-wipe v --pool default-pool --algorithm foo",
    "vol-create-as default-pool v 1; vol-wipe v --pool default-pool",
    "vol-create-as default-pool v 1; vol-info v --pool default-pool --physical",
    "net-list",
    "net-list --all",
    "net-list --name",
    "net-list --uuid",
    "net-list --inactive",
    "net-list --transient",
    "net-info default",
    "net-uuid default",
    "net-name dd8fe884-6c02-601e-7551-cca97df1c5df",
    "net-dumpxml default",
    "net-dumpxml default --xpath //range",
    "net-destroy default; net-start default; net-start default; net-destroy default; net-list --all",
    "net-undefine default",
    "net-autostart default; net-list; net-list --no-autostart; net-autostart default --disable; net-info default",
    f"net-update default add ip-dhcp-host {GUEST}; net-dumpxml default",
    f"net-update default add ip-dhcp-host {GUEST} --config; net-dumpxml default",
    f"net-update default add ip-dhcp-host {GUEST} --config --live; net-dumpxml default",
    f"net-update default add ip-dhcp-host {GUEST}; net-update default add ip-dhcp-host {GUEST}",
    f"net-update default delete ip-dhcp-host {GUEST}",
    "net-update default add dns-txt \"<txt name='a' value='b'/>\"; net-dumpxml default",
    "net-update default modify dns-txt \"<txt name='a' value='b'/>\"",
    "net-update default add-first portgroup \"<portgroup name='p'/>\"; net-dumpxml default",
    "net-update default add bridge \"<bridge name='br0'/>\"",
    "net-update default add ip-dhcp-range \"<range start='10.0.0.1' end='10.0.0.9'/>\" --parent-index 0",
    "net-update default add ip-dhcp-range \"<range start='1.2.3.4' end='1.2.3.9'/>\" --parent-index 7",
    "net-update default twist ip '<ip/>'; net-update default add nothing '<ip/>'; net-update nosuch add ip '<ip/>'",
    "net-update default add dns-txt /nosuch; net-update default add dns-txt '<host/>'",
    "net-update default add dns-txt '<txt/>' --live --current",
    "net-destroy default; net-update default add dns-txt \"<txt name='a' value='b'/>\" --live",
    "net-destroy default; net-update default add dns-txt \"<txt name='a' value='b'/>\"; net-dumpxml default",
    "uri",
    "hostname",
    "version",
    "echo a 'b c' \"d e\" f\\ g",
    "echo a # comment",
    "echo a;;echo b; ",
    "echo --xml '<a>' '&'",
    "echo --shell a 'b c' \"d'e\"",
    "echo --split a,b,,c",
    "echo --err a b",
    "list;nosuch",
    "dominfo nosuch; echo went on",
    "connect; list",
    "connect test:///default --readonly; list; destroy test; pool-destroy default-pool; net-destroy default",
    "exit; list",
    "list; quit; list",
    "echo a --str b",
    "echo --hi",
    "echo --hi=3",
    "version --daemon",
    "nodedev-dettach nosuch",
    "complete",
    "complete --xx",
    # options of what only QEMU does
    "dumpxml test --update-cpu",
    "destroy test --remove-logs",
    "destroy test --graceful; list --all",
    "setvcpus test 1 --hotpluggable",
    "domjobabort test --postcopy",
    "undefine test --delete-storage-volume-snapshots",
    "destroy test; undefine test --remove-all-storage --delete-snapshots",
    "qemu-monitor-command test --pass-fds 3 query-version",
    "qemu-monitor-command test --pass-fds x query-version",
    "restore /nosuch --bypass-cache",
    "destroy test; start test --reset-nvram",
    "destroy test; start test --autodestroy",
    "destroy test; start test --bypass-cache",
    "destroy test; start test --force-boot",
]


def ours(words: list[str], *, quiet: bool = False) -> tuple[int, str, str]:
    """Run our virsh in process."""
    return run_lines(URI, open_uri, [words], quiet=quiet)[0]


def theirs(words: list[str], *, quiet: bool = False) -> tuple[int, str, str]:
    """Run the real one."""
    argv = ["virsh", "-c", URI, *(["-q"] if quiet else []), *words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False, stdin=subprocess.DEVNULL)
    return done.returncode, done.stdout, done.stderr


def normal(result: tuple[int, str, str]) -> tuple[int, str, str]:
    """Take out what differs from run to run: the time of day that stands for CPU time."""
    code, out, err = result
    return code, re.sub(r"CPU time: .*", "CPU time: T", out), err


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours runs in this process: it must see no terminal either."""
    monkeypatch.setattr("sys.stdin", io.StringIO())


@pytest.mark.parametrize("line", COMMANDS)
def test_a_line_gives_what_virsh_gives(line: str) -> None:
    assert normal(ours([line])) == normal(theirs([line]))


@pytest.mark.parametrize(
    ("line", "then"),
    [("pool-define-as p foo", " Write "), ("vol-create-as default-pool v 1M --format foo", "; write one of raw, ")],
)
def test_an_error_begins_as_virshs_and_says_what_to_write(line: str, then: str) -> None:
    code, out, err = ours([line])
    their_code, their_out, their_err = theirs([line])
    assert (code, out) == (their_code, their_out)
    assert err.startswith(their_err.rstrip("\n") + then)


@pytest.mark.parametrize(
    "line",
    [
        "list",
        "pool-list --details",
        "net-list",
        "echo a",
        "destroy test",
        "pool-info default-pool",
        "vol-create-as default-pool v 1",
        "dumpxml test",
    ],
)
def test_quiet_drops_what_virsh_drops(line: str) -> None:
    assert ours([line], quiet=True) == theirs([line], quiet=True)


@pytest.mark.parametrize(
    "argv",
    [
        ["-c"],
        ["--nosuch"],
        ["-x"],
        ["-v"],
        ["--version"],
        ["--version=short"],
        ["--connect"],
        ["-e"],
        ["-e", "^"],
        ["-e", "ab", "list"],
        ["-k", "5", "-c", URI, "uri"],
        ["-K5", "-c", URI, "uri"],
        ["-k", "0", "-c", URI, "uri"],
        ["-k", "-1"],
        ["--keepalive-interval=z"],
        ["--keepalive-count", "-3"],
        ["-k", "08"],
        ["--k", "5"],
        ["-d", "9", "-c", URI, "uri"],
        ["-d", "x"],
        ["--debug=x"],
        ["-d0", "-c", URI, "domid test; list --all"],
        ["-d1", "-c", URI, "dominfo", "--domain", "nosuch"],
        ["-d2", "-c", URI, "domid", "test"],
        ["--vers"],
        ["--version=foo"],
        ["--re", "--conn", URI, "uri"],
        ["--readonly=1"],
        ["-vV"],
        ["-c", URI, "nosuch"],
        ["-d", "4", "-rq", "-t", "-x"],
        ["--escape", "^é"],
    ],
    ids=str,
)
def test_options_before_the_command_are_virshs(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code = main(argv)
    seen = capsys.readouterr()
    done = subprocess.run(["virsh", *argv], capture_output=True, text=True, timeout=20, check=False)
    assert (code, seen.out, seen.err) == (done.returncode, done.stdout, done.stderr)


LINES = [
    [""], ["dump"], ["nosuch", "x"], ["list", ""], ["list", "--a"], ["list", "--all"], ["list;dominfo", "te"],
    ["dominfo", ""], ["dominfo", "te"], ["dominfo", "--domain", ""], ["dominfo", "--domain=t"], ["dominfo", "test", ""],
    ["undefine", "--storage", "v"], ["undefine", "test", "--storage", ""], ["start", "te"],
    ["shutdown", "test", "--mode", "acpi,a"], ["echo", "a", ""], ["help", "do"], ["cd", "/"], ["setvcpu", "test", "1,"],
    ["vol-info", "--vol", "", "--pool", "default-pool"], ["domname", "6"], ["net-name", "d"],
    ["domifstat", "test", "te"], ["resume", "--domain", ""],
    ["snapshot-revert", "--domain", ""], ["blockcommit", "test", "vda", "--base", ""], ["maxvcpus", "q"],
    ["send-process-signal", "test", "1", ""], ["send-process-signal", "test", "1", "p"], ["nodecpustats", "--cpu", ""],
    ["vcpupin", "test", "--cpulist", "1,"], ["domif-setlink", "test", "testnet0", "d"],
    ["allocpages", "--pagesize", ""], ["freepages", "--cellno", ""], ["iface-start", "--interface", ""],
    ["iface-name", "--interface", ""],
    ["pool-define-as", "p", "di"], ["perf", "test", "--enable", "cmt,m"], ["event", "--event", "de"],
]  # fmt: skip


@pytest.mark.parametrize("words", LINES, ids=" ".join)
def test_what_may_follow_is_what_virsh_offers(words: list[str]) -> None:
    line = ["complete", "--", *words]
    assert ours(line) == theirs(line)


def test_read_only_connections_refuse_what_virshs_refuse(capsys: pytest.CaptureFixture[str]) -> None:
    line = "list; destroy test; define /dev/null; pool-destroy default-pool; net-destroy default; vol-list default-pool"
    code = main(["-r", "-c", URI, line])
    seen = capsys.readouterr()
    done = subprocess.run(["virsh", "-r", "-c", URI, line], capture_output=True, text=True, timeout=20, check=False)
    assert (code, seen.out, seen.err) == (done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize(
    "words",
    [
        ["blockcommit", "test", "vda", "--bandwidth", "x"],
        ["blockpull", "test", "vda", "--bandwidth", "1x", "--bytes"],
        ["blockjob", "test", "vda", "--bandwidth", "99999999999999999999"],
        ["blockcopy", "test", "vda", "--dest", "/x", "--bandwidth", "-1x"],
        ["domiftune", "test", "nosuch", "--config"],
        ["echo", "--err"],
        ["echo", "--shell", "--err", ""],
        ["managedsave-remove", "1"],
        ["maxvcpus"],
        ["secret-set-value", "x"],
    ],
    ids=" ".join,
)
def test_numbers_and_names_are_read_and_said_as_virsh_does(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["-c", URI, *words])
    seen = capsys.readouterr()
    done = subprocess.run(["virsh", "-c", URI, *words], capture_output=True, text=True, timeout=20, check=False)
    assert (code, seen.out, seen.err) == (done.returncode, done.stdout, done.stderr)


def test_timing_is_said_as_virsh_says_it(capsys: pytest.CaptureFixture[str]) -> None:
    main(["-t", "-c", URI, "list"])
    done = subprocess.run(["virsh", "-t", "-c", URI, "list"], capture_output=True, text=True, timeout=20, check=True)
    numbers = re.compile(r"\d+\.\d{3}")
    assert numbers.sub("N", capsys.readouterr().out) == numbers.sub("N", done.stdout)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ([], "list\nnosuch\n\necho 'open\necho a; echo b # c\nquit\nlist\n"),
        ([], "dominfo nosuch\nlist"),
        ([], ""),
        (["-q"], "list\n"),
        (["-r"], "destroy test\nexit\n"),
    ],
)
def test_the_shell_answers_as_virshs(
    options: list[str], text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    code = main([*options, "-c", URI])
    seen = capsys.readouterr()
    argv = ["virsh", *options, "-c", URI]
    done = subprocess.run(argv, input=text, capture_output=True, text=True, timeout=20, check=False)
    assert (code, seen.out, seen.err) == (done.returncode, done.stdout, done.stderr)


def test_every_command_of_virshs_is_there_and_no_other() -> None:
    listed = subprocess.run(["virsh", "help"], capture_output=True, text=True, timeout=20, check=True).stdout
    names = {line.split()[0] for line in listed.splitlines() if line.startswith("    ")}
    assert set(OURS) == names


def test_groups_and_the_order_of_their_commands_are_virshs() -> None:
    _, mine, _ = ours(["help"])
    listed = subprocess.run(["virsh", "help"], capture_output=True, text=True, timeout=20, check=True).stdout
    titles = re.compile(r"^ .*\(help keyword '.*'\):$", re.MULTILINE)
    assert [title for title in titles.findall(listed) if title in mine] == titles.findall(mine)

    def names(text: str) -> list[str]:
        return [line.split()[0] for line in text.splitlines() if line.startswith("    ")]

    assert [name for name in names(listed) if name in OURS] == names(mine)
    assert ours(["help", "Domain Management"]) == ours(["help", "domain"])


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    """What virsh says of each command, by name."""
    asked = "; ".join(f"help {name}" for name in OURS)
    told = subprocess.run(["virsh", asked], capture_output=True, text=True, timeout=20, check=True).stdout
    found = re.split(r"^  NAME\n", told, flags=re.MULTILINE)[1:]
    return dict(zip(OURS, found, strict=True))


@pytest.mark.parametrize("name", OURS)
def test_a_command_takes_the_options_of_virshs_in_the_same_order(name: str, pages: dict[str, str]) -> None:
    page = pages[name]
    assert page.startswith(f"    {name} - ")
    synopsis = page.split("  SYNOPSIS\n    ")[1].split("\n")[0]
    # Whether an uploaded image may name other files is a question that libvirt does not ask.
    added = " [--trust]" if name == "vol-upload" else ""
    assert find(name).synopsis() == synopsis + added
    options = re.compile(r"^    (\S+(?: <\w+>)?)  ", re.MULTILINE)
    mine = find(name).help().partition("\n  OPTIONS\n")[2]
    theirs = page.partition("\n  OPTIONS\n")[2]
    assert [each for each in options.findall(mine) if each != added.strip(" []")] == options.findall(theirs)


UUID = "11111111-2222-3333-4444-555555555555"
DOCUMENTS = {
    "domain.xml": f"<domain type='test'><name>d</name><uuid>{UUID}</uuid><memory>4096</memory><os><type>hvm</type>"
    "</os></domain>",
    "same.xml": f"<domain type='test'><name>e</name><uuid>{UUID}</uuid><memory>4096</memory><os><type>hvm</type>"
    "</os></domain>",
    "stored.xml": "<domain type='test'><name>s</name><memory>4096</memory><os><type>hvm</type></os><devices>"
    "<disk type='file'><source file='/default-pool/v'/><target dev='vda'/></disk>"
    "<disk type='volume'><source pool='nopool' volume='v'/><target dev='vdb'/></disk>"
    "<disk type='volume'><source pool='default-pool' volume='w'/><target dev='vdc'/></disk>"
    "<disk type='file' device='cdrom'><target dev='hdc'/></disk></devices></domain>",
    "network.xml": f"<network><name>n</name><uuid>{UUID}</uuid><bridge name='br7'/></network>",
    "pool.xml": f"<pool type='dir'><name>p</name><uuid>{UUID}</uuid><target><path>/tmp/p/</path></target></pool>",
    "volume.xml": "<volume><name>v</name><capacity unit='M'>3</capacity><allocation>0</allocation></volume>",
}
LINES_WITH_DOCUMENTS = [
    "create domain.xml; list; create domain.xml; define same.xml; destroy d; list --all",
    "create domain.xml; define domain.xml; list --persistent; destroy d; list --all; undefine d; list --all",
    "define domain.xml; start d; undefine d; list --transient; destroy d; list --all",
    "create domain.xml; list; domstate d --reason; dominfo d; dumpxml d",
    "net-define network.xml; net-list --all; net-start n; net-info n; net-destroy n; net-undefine n",
    "net-create network.xml; net-list; net-create network.xml; net-info n; net-destroy n; net-list --all",
    "net-create network.xml; net-define network.xml; net-info n; net-destroy n; net-list --all",
    "pool-define pool.xml; pool-list --all; pool-start p; vol-create p volume.xml; vol-list p --details; "
    "vol-dumpxml v p; pool-info p; pool-destroy p; pool-undefine p",
    "pool-create pool.xml; pool-list --details; pool-create pool.xml; vol-create p volume.xml; pool-destroy p; "
    "pool-list --all",
    "pool-create pool.xml; pool-define pool.xml; pool-destroy p; pool-list --all",
    "define stored.xml; vol-create-as default-pool v 1M; undefine s --remove-all-storage; vol-list default-pool",
    "define stored.xml; vol-create-as default-pool v 1M; undefine s --storage vda; vol-list default-pool",
    "define stored.xml; vol-create-as default-pool v 1M; undefine s --storage /default-pool/v --wipe-storage; "
    "vol-list default-pool",
    "define stored.xml; undefine s --storage vda,vdz,/x; list --all; undefine s --storage vda --remove-all-storage",
    "define stored.xml; undefine s --remove-all-storage; list --all",
    "define stored.xml; start s; undefine s --remove-all-storage; list --all",
    "pool-define pool.xml; pool-create pool.xml; vol-create-from p volume.xml --inputpool default-pool nosuch",
]


@pytest.mark.parametrize("line", LINES_WITH_DOCUMENTS)
def test_a_line_about_documents_gives_what_virsh_gives(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in DOCUMENTS.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    assert normal(ours([line])) == normal(theirs([line]))
