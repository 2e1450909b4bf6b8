"""Other hypervisors' configuration on the command line: in, out, and refused in virsh's words."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostel.cli.main import main

VMX = 'config.version = "8"\nvirtualHW.version = "4"\ndisplayName = "mail"\n'


def virsh(*arguments: str) -> int:
    return main(["hostel", "virsh", "-c", "test:///default", *arguments])


def test_configuration_becomes_a_document_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mail.vmx").write_text(VMX)
    assert virsh("domxml-from-native", "vmware-vmx", str(tmp_path / "mail.vmx")) == 0
    document = capsys.readouterr().out
    assert "<domain type='vmware'>" in document and "<name>mail</name>" in document
    (tmp_path / "mail.xml").write_text(document)
    assert virsh("domxml-to-native", "vmware-vmx", "--xml", str(tmp_path / "mail.xml")) == 0
    assert 'displayName = "mail"' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["domxml-to-native", "vmware-vmx"], "need either domain or domain XML"),
     (["domxml-to-native", "vmware-vmx", "--domain", "test", "--xml", "x"],
      "Options --domain and --xml are mutually exclusive"),
     (["domxml-to-native", "vmware-vmx", "--domain", "test"], "Expecting virt type to be 'vmware' but found 'test'"),
     (["domxml-to-native", "floppy-net", "--domain", "test"], "unsupported config type floppy-net"),
     (["domxml-from-native", "vmware-vmx", "/nowhere"], "Failed to open file '/nowhere': No such file or directory")],
)  # fmt: skip
def test_refusals_are_virsh_s(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert virsh(*arguments) == 1
    assert words in capsys.readouterr().err
