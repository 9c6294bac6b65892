"""One unprivileged supervisord per home directory: its files, its life, its programs.

Layout below the home:

    supervisor/supervisord.conf, supervisor.sock (0600), conf.d/<program>.conf, launch.py
    process/<program>/spec.json (redacted), launch.json (0600: command and environment), pid, output.log

The command and the environment stay out of supervisord's own configuration: its quoting cannot carry every
value, and a `%` means something there. ``launch.py`` reads them and becomes the program (same process id).
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import time
import xmlrpc.client
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.files import write_atomically
from ansible_collections.modelyard.fleet.plugins.module_utils.unix_http import xmlrpc_over_unix

SOCKET_LIMIT = 107
"""Bytes of a Unix socket's path that the kernel takes (108 with the closing zero)."""

INHERITED = (
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "XDG_RUNTIME_DIR",
)
"""What programs inherit from the user that starts supervisord; nothing of Ansible's own environment."""

MARK = "SUPERVISED_PROGRAM"
"""Environment variable by which a process is known to be a certain program of a certain home."""

LAUNCHER = f'''\
"""Become the program that a launch.json describes; its path is the only argument."""

import json
import os
import sys

with open(sys.argv[1], encoding="utf-8") as handle:
    launch = json.load(handle)
directory = os.path.dirname(os.path.realpath(sys.argv[1]))
os.chdir(launch["directory"] or directory)
environment = dict(os.environ)
environment.update(launch["environment"])
environment["{MARK}"] = directory
for name in list(environment):
    if name.startswith("SUPERVISOR_"):
        del environment[name]
with open(os.path.join(directory, "pid"), "w", encoding="utf-8") as handle:
    handle.write(str(os.getpid()))
os.execvpe(launch["command"][0], launch["command"], environment)
'''


class SupervisorError(Exception):
    """Something the operator must know about supervisord or a program."""


@dataclass(frozen=True)
class Home:
    """Where everything of one supervisord lies."""

    root: Path

    @property
    def folder(self) -> Path:
        """The supervisord's own directory (mode 0700)."""
        return self.root / "supervisor"

    @property
    def socket(self) -> Path:
        """The supervisord's control socket."""
        return self.folder / "supervisor.sock"

    @property
    def configuration(self) -> Path:
        """The supervisord's main file."""
        return self.folder / "supervisord.conf"

    def program_file(self, name: str) -> Path:
        """The supervisord's file for one program."""
        return self.folder / "conf.d" / f"{name}.conf"

    def program_folder(self, name: str) -> Path:
        """Everything of one program."""
        return self.root / "process" / name

    def check(self) -> None:
        """Refuse a home whose socket path the kernel would not take. Raises ``SupervisorError``."""
        # supervisord binds "<socket>.<pid>" first and renames it
        length = len(os.fsencode(self.socket)) + len(".4194304")
        if length > SOCKET_LIMIT:
            raise SupervisorError(
                f"{self.socket} is {length - SOCKET_LIMIT} bytes too long for a Unix socket (limit {SOCKET_LIMIT}, "
                "8 of them for a suffix): choose a shorter home directory"
            )


@dataclass(frozen=True)
class Program:
    """One program. Times in seconds; ``log_bytes`` is the size at which its log is rotated."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str]
    directory: str | None
    hash: str
    spec: dict[str, Any]
    stop_timeout_s: int
    log_bytes: int
    log_files: int


def _quoted(path: Path) -> str:
    """A path for supervisord's configuration."""
    return str(path).replace("%", "%%")


def main_configuration(home: Home) -> str:
    """The supervisord's main file."""
    folder = _quoted(home.folder)
    user = "user=root\n" if os.geteuid() == 0 else ""
    return (
        "; Managed by Modelyard: changes are overwritten.\n"
        f"[unix_http_server]\nfile={folder}/supervisor.sock\nchmod=0600\n\n"
        f"[supervisord]\nlogfile={folder}/supervisord.log\nlogfile_maxbytes=5MB\nlogfile_backups=1\n"
        f"pidfile={folder}/supervisord.pid\nchildlogdir={folder}\ndirectory={folder}\n{user}\n"
        "[rpcinterface:supervisor]\n"
        "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n\n"
        f"[include]\nfiles={folder}/conf.d/*.conf\n"
    )


def program_configuration(home: Home, program: Program, python: str) -> str:
    """The supervisord's file for one program."""
    folder = home.program_folder(program.name)
    command = shlex.join([python, str(home.folder / "launch.py"), str(folder / "launch.json")]).replace(
        "%", "%%"
    )
    return (
        "; Managed by Modelyard: changes are overwritten.\n"
        f"[program:{program.name}]\ncommand={command}\n"
        "autostart=true\nautorestart=true\nstartsecs=1\nstartretries=3\n"
        f"stopsignal=TERM\nstopwaitsecs={program.stop_timeout_s}\nkillasgroup=true\n"
        f"redirect_stderr=true\nstdout_logfile={_quoted(folder)}/output.log\n"
        f"stdout_logfile_maxbytes={program.log_bytes}\nstdout_logfile_backups={max(program.log_files - 1, 0)}\n"
    )


def launch_document(program: Program) -> str:
    """Command and environment of a program (secret)."""
    document = {
        "command": list(program.command),
        "directory": program.directory,
        "environment": program.environment,
    }
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


def spec_document(program: Program) -> str:
    """What may be known about a program: its hash and its redacted launch spec."""
    document = {"replica": program.name, "hash": program.hash, "spec": program.spec}
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


def read_text(path: Path) -> str | None:
    """A file's text; None when it does not exist. What is no text in a damaged file comes as replacement signs."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None


def write_text(path: Path, text: str, mode: int) -> None:
    """Write a file atomically, unless it holds just this text with just this mode."""
    if read_text(path) != text or path.stat().st_mode & 0o7777 != mode:
        write_atomically(path, text.encode(), mode)


def program_state(home: Home, name: str) -> tuple[str, int | None]:
    """``up`` with the process id, proved by its environment; ``down``; or ``unknown`` when nothing can be proved."""
    folder = home.program_folder(name)
    text = read_text(folder / "pid")
    if not text or not text.strip().isdigit():
        return "unknown", None
    pid = int(text)
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except PermissionError:
        return (
            "unknown",
            None,
        )  # a process of somebody else: ours in another life, or the number was used again
    except OSError:
        return "down", None
    ours = f"{MARK}={folder.resolve()}".encode()
    return ("up", pid) if ours in environment and state != "Z" else ("down", None)


def program_pid(home: Home, name: str) -> int | None:
    """Process id of a program that surely runs, under its supervisord or as an orphan."""
    return program_state(home, name)[1]


def executable(home: Path, given: str | None, python: str) -> str:
    """The supervisord to start: the one given, the one beside the Python that runs, or that of the home's environment."""
    beside = Path(python).with_name("supervisord")
    own = home / "venv" / "bin" / "supervisord"
    return given or str(own if own.exists() and not beside.exists() else beside)


class Supervisor:
    """A running or not running supervisord of a home. ``clock`` and ``sleep`` are those of ``time``."""

    def __init__(
        self,
        home: Home,
        timeout_s: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.home = home
        self._timeout_s = timeout_s
        self._clock = clock
        self._sleep = sleep

    def call(self, method: str, *arguments: Any, timeout_s: float | None = None) -> Any:
        """Call ``supervisor.<method>``. Raises ``OSError`` or ``xmlrpc.client.Fault``."""
        with xmlrpc_over_unix(self.home.socket, timeout_s or self._timeout_s) as server:
            return getattr(server.supervisor, method)(*arguments)

    def pid(self) -> int | None:
        """Process id from the pid file if that process lives."""
        text = read_text(self.home.folder / "supervisord.pid")
        if not text or not text.strip().isdigit():
            return None
        try:
            command = Path(f"/proc/{int(text)}/cmdline").read_bytes()
        except OSError:
            return None
        return int(text) if os.fsencode(self.home.configuration) in command.split(b"\0") else None

    def running(self) -> bool:
        """True when it answers, False when it surely does not run. Raises ``SupervisorError`` when unclear."""
        try:
            self.call("getState")
        except (FileNotFoundError, ConnectionRefusedError):
            pid = self.pid()
            if pid is None:
                return False
            raise SupervisorError(
                f"supervisord (process {pid}) lives but {self.home.socket} does not answer: its programs are left "
                f"alone. See {self.home.folder / 'supervisord.log'}"
            ) from None
        except (OSError, xmlrpc.client.Error) as error:
            raise SupervisorError(
                f"supervisord behind {self.home.socket} does not answer properly ({error}): its programs are left alone"
            ) from error
        return True

    def processes(self) -> dict[str, dict[str, Any]]:
        """The supervisord's view of its programs by name."""
        return {info["name"]: info for info in self.call("getAllProcessInfo")}

    def write_main_files(self) -> None:
        """Create the directories and supervisord's own files."""
        self.home.check()
        (self.home.folder / "conf.d").mkdir(parents=True, exist_ok=True)
        self.home.folder.chmod(0o700)
        write_text(self.home.configuration, main_configuration(self.home), 0o600)
        write_text(self.home.folder / "launch.py", LAUNCHER, 0o600)

    def start(self, executable: str) -> None:
        """Start supervisord and wait until it answers. Raises ``SupervisorError``."""
        environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
        self.home.socket.unlink(missing_ok=True)
        try:
            done = subprocess.run(
                [executable, "-c", str(self.home.configuration)],
                env=environment,
                cwd=self.home.folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=self._timeout_s,
                check=False,
            )
        except FileNotFoundError as error:
            raise SupervisorError(
                f"{executable} does not exist: install supervisor (pip install supervisor) for the Python that runs "
                "the modules on this host, or say where supervisord is"
            ) from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SupervisorError(f"{executable} did not start: {error}") from error
        if done.returncode != 0:
            raise SupervisorError(f"{executable} did not start: {(done.stderr or done.stdout).strip()}")
        self._wait(self.running, f"supervisord did not answer; see {self.home.folder / 'supervisord.log'}")

    def shut_down(self, timeout_s: float) -> None:
        """End supervisord and all of its programs, and wait for its process to be gone."""
        pid = self.pid()
        self.call("shutdown")
        if pid is not None:
            self._wait(lambda: self.pid() is None, f"supervisord (process {pid}) did not end", timeout_s)

    def end_orphan(self, name: str, timeout_s: float) -> int | None:
        """End a program that outlived its supervisord; returns its process id, None when there was none."""
        pid = program_pid(self.home, name)
        if pid is None:
            return None
        for number, seconds in ((signal.SIGTERM, timeout_s), (signal.SIGKILL, 10.0)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            deadline = self._clock() + seconds
            while self._clock() < deadline:
                if program_pid(self.home, name) is None:
                    return pid
                self._sleep(0.1)
        raise SupervisorError(f"process {pid} ({name}) does not end")

    def _wait(self, condition: Callable[[], bool], message: str, timeout_s: float | None = None) -> None:
        deadline = self._clock() + (timeout_s or self._timeout_s)
        while not condition():
            if self._clock() > deadline:
                raise SupervisorError(message)
            self._sleep(0.05)
