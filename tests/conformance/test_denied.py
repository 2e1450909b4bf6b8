"""What a user is told whom the host denies a file: the real tool's words first, then ours."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import subprocess
from pathlib import Path

import pytest

from hostel.cli.main import main
from support.unprivileged import NOBODY, as_nobody

pytestmark = [
    pytest.mark.requires_tool("qemu-img"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root has files that are another user's"),
]


def _ours(words: list[str]) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    return code, out.getvalue(), err.getvalue()


@pytest.fixture
def place(reachable: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images of root's: one in a closed directory, one that only root reads, one that only root writes."""
    (reachable / "vault").mkdir()
    for name in ("vault/a", "secret", "kept"):
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", name, "1M"], cwd=reachable, check=True)
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-b", "vault/a", "-F", "qcow2", "top"], cwd=reachable, check=True
    )
    (reachable / "vault").chmod(0o700)
    (reachable / "secret").chmod(0o600)
    monkeypatch.chdir(reachable)
    return reachable


@pytest.mark.parametrize(
    ("command", "cause"),
    [
        ("qemu-img info vault/a", "The directory '{place}/vault' (root:root, mode 0700) does not let"),
        ("qemu-img info --backing-chain top", "The directory '{place}/vault' (root:root, mode 0700) does not let"),
        ("qemu-img info secret", "'{place}/secret' (root:root, mode 0600) does not let"),
        ("qemu-img resize kept 2M", "'{place}/kept' (root:root, mode 0644) does not let"),
        ("qemu-img create -f qcow2 new 1M", "The directory '{place}' (root:root, mode 0755) does not let"),
        ("qemu-img convert -O raw kept new", "The directory '{place}' (root:root, mode 0755) does not let"),
        ("qemu-io -c 'write 0 512' kept", "'{place}/kept' (root:root, mode 0644) does not let"),
        ("qemu-nbd -r -f qcow2 secret", "'{place}/secret' (root:root, mode 0600) does not let"),
    ],
)
def test_first_the_real_tools_words_then_who_denies_what(place: Path, command: str, cause: str) -> None:
    words = shlex.split(command)
    user = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"]
    real = subprocess.run(
        [*user, *words], capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL
    )
    # Loads what the child cannot: Python may be where only root gets to.
    for loading in (["qemu-img", "info", "missing/a"], [words[0], "--help"], [*words[:-1], "missing/a"]):
        _ours(loading)
    code, out, err = as_nobody(lambda: _ours(words))
    assert (code, out) == (real.returncode, real.stdout)
    assert err.startswith(real.stderr)
    added = err.removeprefix(real.stderr)
    assert added.startswith(f"{cause.format(place=place)} user 'nobody' (uid 65534) ")
    assert "; to allow it: setfacl -m u:nobody:" in added
    assert added.count("\n") == 1
