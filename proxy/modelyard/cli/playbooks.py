"""Run one of our playbooks and read the JSON that it writes.

The channel is a file: the playbook gets its path in ``modelyard_result_file``. Everything that a run leaves
behind stands in a private temporary directory (0700), deleted afterwards.
"""

from __future__ import annotations

import json
import locale
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard.cli.extra_vars import extra_vars_yaml
from modelyard.errors import ConfigError

_POLL_S = 0.25  # how often ansible-runner asks whether it should stop
_SHOWN_LINES = 12

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class TaskFailure:
    """One task that failed on one host; ``unreachable``: the host did not answer."""

    host: str
    task: str
    message: str
    unreachable: bool = False

    def __str__(self) -> str:
        how = "did not answer" if self.unreachable else "failed"
        return f'{self.host}: {how} at "{self.task}": {self.message}'


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended.

    ``result`` is the JSON that the playbook wrote, None when it wrote none. ``output`` holds Ansible's own
    last words, for runs that broke before their first task.
    """

    status: str
    result: dict[str, Any] | None
    failures: tuple[TaskFailure, ...]
    output: str

    @property
    def ok(self) -> bool:
        """Whether every task on every host went well."""
        return self.status == "successful"

    @property
    def canceled(self) -> bool:
        """Whether it was interrupted: what runs on hosts may still be going on."""
        return self.status == "canceled"


class Events:
    """Turns ansible-runner's events into a progress line and a list of failures."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.failures: list[TaskFailure] = []

    def handle(self, event: Mapping[str, Any]) -> bool:
        """Take one event. False tells ansible-runner not to keep it as a file."""
        data = event.get("event_data") or {}
        kind = event.get("event")
        task = str(data.get("task") or data.get("name") or "")
        host = str(data.get("host") or "")
        if kind == "playbook_on_task_start":
            self._progress(task)
        elif kind == "runner_on_start":
            self._progress(f"{task} · {host}" if host else task)
        elif kind == "runner_on_unreachable" or (
            kind == "runner_on_failed" and not data.get("ignore_errors")
        ):
            unreachable = kind == "runner_on_unreachable"
            self.failures.append(TaskFailure(host, task, failure_message(data.get("res")), unreachable))
        return False


def failure_message(res: Any) -> str:
    """What a failed task says, in as few words as its result allows."""
    if not isinstance(res, Mapping):
        return "no reason was given"
    if res.get("censored"):
        return "the reason is hidden (no_log); run the playbook with -e fleet_no_log=false to see it"
    items = [item for item in res.get("results") or [] if isinstance(item, Mapping) and item.get("failed")]
    if items:
        return "; ".join(failure_message(item) for item in items)
    for key in ("msg", "stderr", "module_stderr", "exception", "stdout"):
        text = res.get(key)
        if text:
            lines = text if isinstance(text, list) else str(text).strip().splitlines()
            return "\n".join(str(line) for line in lines[-_SHOWN_LINES:])
    return "no reason was given"


def run_playbook(
    name: str,
    inventory: Path,
    root: Path,
    *,
    extra: Mapping[str, Any] | None = None,
    limit: str | None = None,
    check: bool = False,
    progress: Progress = lambda line: None,
    environment: Mapping[str, str] | None = None,
    on_interrupt: Callable[[], bool] = lambda: True,
) -> Outcome:
    """Run ``playbooks/<name>.yml`` on an inventory and wait for its end.

    ``extra`` are extra variables, taken literally; ``limit`` is a host pattern; ``check`` is Ansible's
    check mode; ``progress`` is told what
    goes on. ``environment`` replaces the process's own (tests). ``on_interrupt`` is asked again and again from an
    interrupt on, and says whether Ansible is to be ended; for runs that can end by themselves. ConfigError when it
    cannot even be started.
    """
    playbook = root / "playbooks" / f"{name}.yml"
    if not playbook.is_file():
        raise ConfigError(f"{playbook} is missing: is {root} a complete checkout of Modelyard?")
    if limit is not None and (not limit.strip() or limit.startswith("-")):
        raise ConfigError(f"--limit {limit!r} is no host pattern.")
    runner = _ansible_runner()
    events = Events(progress)
    with tempfile.TemporaryDirectory(prefix="modelyard-") as directory, _interrupts() as interrupted:
        private = Path(directory)  # mkdtemp makes it 0700
        result_file = private / "result.json"
        (private / "env").mkdir(mode=0o700)
        # Written here and not handed to ansible-runner, which would make trusted templates of it.
        text = extra_vars_yaml({**(extra or {}), "modelyard_result_file": str(result_file)})
        (private / "env" / "extravars").write_text(text, encoding="utf-8")
        run = runner.run(
            private_data_dir=str(private),
            project_dir=str(root),
            playbook=str(playbook),
            inventory=str(inventory),
            limit=limit,
            cmdline="--check" if check else None,
            quiet=True,
            envvars=ansible_environment(os.environ if environment is None else environment, root),
            settings={"pexpect_timeout": _POLL_S},
            event_handler=events.handle,
            cancel_callback=lambda: interrupted.is_set() and on_interrupt(),
        )
        return Outcome(run.status, _read_result(result_file), tuple(events.failures), _last_words(run))


def ansible_environment(base: Mapping[str, str], root: Path) -> dict[str, str]:
    """What ansible-playbook needs in its environment beyond what it inherits."""
    env = {
        "ANSIBLE_CONFIG": base.get("ANSIBLE_CONFIG") or str(root / "ansible.cfg"),
        # ansible-runner turns host key checking off unless it is told otherwise.
        "ANSIBLE_HOST_KEY_CHECKING": base.get("ANSIBLE_HOST_KEY_CHECKING") or "True",
        "ANSIBLE_NOCOLOR": "1",
        # The ansible-playbook beside this interpreter, also when its environment is not activated.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), base.get("PATH", os.defpath)]),
    }
    if locale.getpreferredencoding(False).upper().replace("-", "") != "UTF8":
        env["LC_ALL"] = "C.UTF-8"  # Ansible refuses to run in any other encoding
    return env


def _ansible_runner() -> Any:
    try:
        import ansible_runner
    except ImportError as exc:
        raise ConfigError(
            "This needs Ansible, which is not installed here: pip install 'modelyard[deploy]'."
        ) from exc
    return ansible_runner


@contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, so that ansible-playbook is ended before we are."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: event.set()) for number in numbers]
    try:
        yield event
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _read_result(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _last_words(run: Any) -> str:
    """The errors in Ansible's output, or its last lines."""
    try:
        text = (Path(run.config.artifact_dir) / "stdout").read_text(encoding="utf-8", errors="replace")
    except OSError:  # it broke before it said anything
        return ""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    errors = [place for place, line in enumerate(lines) if line.startswith(("[ERROR]", "ERROR!"))]
    return "\n".join(lines[errors[0] :][:_SHOWN_LINES] if errors else lines[-_SHOWN_LINES:])
