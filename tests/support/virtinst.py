"""The real virt-install, virt-xml and virt-clone, without their start: one process has them loaded, and forks for each.

Loading them and libosinfo's database takes most of a second, which a few hundred command lines would spend again and
again.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Mapping
from functools import cache
from threading import Timer
from typing import Any, Final

TIMEOUT: Final = 60.0
_SERVER = """
import io, json, logging.handlers, os, sys, tempfile

sys.path.insert(0, "/usr/share/virt-manager")
from virtinst import virtclone, virtinstall, virtxml
from virtinst import OSDB, cli

# What the user has added to the database is not for tests, which have a home of their own.
home, os.environ["HOME"] = os.environ.get("HOME", "/"), "/nonexistent"
OSDB.list_os()
os.environ["HOME"] = home

TOOLS = {"virt-install": virtinstall, "virt-clone": virtclone, "virt-xml": virtxml}


def child(request, out, err):
    os.chdir(request["cwd"])
    os.environ.update(request["environment"])
    for fd, stream in ((1, out), (2, err)):
        os.dup2(stream.fileno(), fd)
    given = tempfile.TemporaryFile("w+")
    given.write(request["given"] or "")
    given.seek(0)
    os.dup2(os.open("/dev/null", os.O_RDONLY) if request["given"] is None else given.fileno(), 0)
    sys.argv = [request["tool"], *request["words"]]
    TOOLS[request["tool"]].runcli()


class Given(io.StringIO):
    def isatty(self):
        return False


def several(request):
    os.environ.update(request["environment"])
    os.chdir(request["cwd"])
    cli.log.debug = lambda *words, **more: None  # half of the time goes into a log that nobody reads
    for words in request["several"]:
        sys.argv, sys.stdin = [request["tool"], *words], Given(request["given"] or "")
        sys.stdout, sys.stderr = io.StringIO(), io.StringIO()
        code = 0
        try:
            TOOLS[request["tool"]].runcli()
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
        yield code, sys.stdout.getvalue(), sys.stderr.getvalue()


for line in sys.stdin:
    request = json.loads(line)
    if request.get("several"):
        with tempfile.TemporaryFile("w+") as answers:
            pid = os.fork()
            if not pid:
                json.dump(list(several(request)), answers)
                answers.flush()
                os._exit(0)
            os.waitpid(pid, 0)
            answers.seek(0)
            print(answers.read() or "[]", flush=True)
        continue
    with tempfile.TemporaryFile("w+", newline="") as out, tempfile.TemporaryFile("w+", newline="") as err:
        pid = os.fork()
        if not pid:
            code = 0
            try:
                child(request, out, err)
            except SystemExit as error:
                code = error.code if isinstance(error.code, int) else int(error.code is not None)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        for stream in (out, err):
            stream.seek(0)
        print(json.dumps([code, out.read(), err.read()]), flush=True)
"""


@cache
def _server() -> subprocess.Popen[str]:
    # It ends with its standard input, and so with this process.
    return subprocess.Popen(
        ["/usr/bin/python3", "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, process_group=0
    )


def run(
    tool: str, words: list[str], *, cwd: str = "/", given: str | None = None, environment: dict[str, str] | None = None
) -> tuple[int, str, str]:
    """Run a command line of the real tool; returns exit code, standard output and standard error."""
    request = {"tool": tool, "words": words, "cwd": cwd, "given": given, "environment": environment or {}}
    code, out, err = _asked(request)
    return code, out, err


def run_several(
    tool: str, several: list[list[str]], *, given: str, environment: dict[str, str]
) -> list[tuple[int, str, str]]:
    """Run many command lines of the real tool in one process, which takes a third of the time; see :func:`run`."""
    request = {"tool": tool, "several": several, "cwd": "/", "given": given, "environment": environment}
    return [(code, out, err) for code, out, err in _asked(request)]


def _asked(request: Mapping[str, object]) -> list[Any]:
    server = _server()
    assert server.stdin is not None and server.stdout is not None
    server.stdin.write(json.dumps(request) + "\n")
    server.stdin.flush()
    ending = Timer(TIMEOUT, os.killpg, (server.pid, signal.SIGKILL))  # it, and the tool that it has forked
    ending.start()
    try:
        line = server.stdout.readline()
    finally:
        ending.cancel()
    if not line.endswith("\n"):
        _server.cache_clear()
        server.kill()
        server.wait(10)
        raise TimeoutError(f"{request['tool']} was ended, or has not answered for {TIMEOUT:.0f} s")
    answer: list[Any] = json.loads(line)
    return answer
