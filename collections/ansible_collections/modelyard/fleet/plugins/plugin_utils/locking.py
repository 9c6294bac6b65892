"""One changing run at a time per inventory: who holds the lock, whether they still live, and what to tell others.

The lock is a file on the controller. Reading, judging and replacing it happens under a second file's `flock`, which
the kernel drops with its process, so that of many runs that begin at once exactly one gets the lock.
"""

from __future__ import annotations

import fcntl
import getpass
import hashlib
import json
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

LOCK = "lock"
_GUARD = ".lock.guard"
_ALIVE = ".lock.alive"
_GUARD_WAIT_S = 10.0

MINE, ALIVE, DEAD, ELSEWHERE = "mine", "alive", "dead", "elsewhere"

Starts = Callable[[int], str | None]
"""The start of a process by its id, as text that no later process with that id has; None when there is none."""


class LockError(Exception):
    """The lock cannot be had; the text says who has it and what to do."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Where a process id means something: empty where the system does not say."""

    host: str
    machine_id: str
    boot_id: str
    pid_space: str


@dataclass(frozen=True, slots=True)
class Owner:
    """Who holds the lock: a run (``pid`` of its ansible-playbook, ``born`` when that began) on a machine."""

    who: str
    playbook: str
    started: str
    pid: int
    born: str
    host: str
    machine_id: str
    boot_id: str
    pid_space: str
    nonce: str


@dataclass(frozen=True, slots=True)
class Held:
    """What the lock file says. ``owner`` is None when it cannot be understood; ``id`` names this very content."""

    id: str
    owner: Owner | None


def this_machine() -> Machine:
    """Identity of the machine, its boot, and the space that process ids count in."""
    with suppress(OSError):
        space = str(Path("/proc/self/ns/pid").readlink())
        return Machine(socket.gethostname(), _text("/etc/machine-id"), _text(_BOOT_ID), space)
    return Machine(socket.gethostname(), _text("/etc/machine-id"), _text(_BOOT_ID), "")


_BOOT_ID = "/proc/sys/kernel/random/boot_id"


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def process_start(pid: int) -> str | None:
    """When a process began, in clock ticks since boot; None when it is gone or only waits to be reaped.

    Without /proc the answer is only whether there is such a process.
    """
    try:
        state, *rest = (
            Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        )
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self/stat").exists():
            return None
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            pass
        return "there"
    return None if state in "ZX" else rest[18]  # fields 3 and 22 of proc(5)


def who_am_i() -> str:
    """``user@host``; behind sudo the user who called it."""
    user = os.environ.get("SUDO_USER") or ""
    if not user:
        try:
            user = getpass.getuser()
        except (KeyError, OSError):
            user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def run_owner(
    pid: int, playbook: str, now: datetime, machine: Machine, born: Starts = process_start
) -> Owner:
    """The run that asks, as an owner. ``LockError`` when its process has ended already."""
    start = born(pid)
    if start is None:
        raise LockError("The run that asks for the lock has ended.")
    moment = now.astimezone(UTC).isoformat(timespec="seconds")
    return Owner(who_am_i(), playbook, moment, pid, start, nonce=secrets.token_hex(8), **asdict(machine))


def judge(owner: Owner, machine: Machine, pid: int, born: Starts) -> str:
    """Whether the lock is ``mine``, or its owner ``alive``, ``dead`` or ``elsewhere``: not to be judged from here."""
    if owner.boot_id and owner.boot_id == machine.boot_id:
        if owner.pid_space != machine.pid_space:
            return ELSEWHERE  # another container: its process ids say nothing here
    elif (owner.host, owner.machine_id) != (machine.host, machine.machine_id) or not owner.machine_id:
        return ELSEWHERE
    elif owner.boot_id or machine.boot_id:
        return DEAD  # this machine has been started anew since
    if born(owner.pid) != owner.born:
        return DEAD
    return MINE if owner.pid == pid else ALIVE


def read_lock(state_dir: Path) -> Held | None:
    """What the lock file says now; None when there is none. ``LockError`` when it cannot be read."""
    try:
        raw = (state_dir / LOCK).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LockError(f"{state_dir / LOCK} cannot be read: {error}.") from error
    return Held(hashlib.sha256(raw).hexdigest()[:8], _owner(raw))


def _owner(raw: bytes) -> Owner | None:
    try:
        data = json.loads(raw)
        owner = Owner(**{field.name: data[field.name] for field in fields(Owner)})
    except (ValueError, KeyError, TypeError):
        return None
    return (
        owner
        if isinstance(owner.pid, int) and all(isinstance(data[key], str) for key in data if key != "pid")
        else None
    )


def acquire(
    state_dir: Path, owner: Owner, machine: Machine, breaks: str = "", born: Starts = process_start
) -> tuple[bool, str]:
    """Take the lock. Returns whether it was taken just now, and what the operator has to know of a run before that did
    not end.

    Holding it already is fine. ``breaks`` is the id of a lock that the operator has judged to be left behind.
    ``LockError`` when somebody else holds it, with who, since when and what to do.
    """
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LockError(f"The state directory {state_dir} cannot be made: {error}.") from error
    with _guarded(state_dir):
        held = read_lock(state_dir)
        told = ""
        if held is not None:
            verdict = judge(held.owner, machine, owner.pid, born) if held.owner else ELSEWHERE
            if verdict == MINE:
                return False, ""
            if verdict == DEAD and held.owner is not None:
                told = _left_behind(held.owner)
            elif breaks == held.id:
                told = _broken(held)
            else:
                raise LockError(refusal(state_dir, held, verdict, datetime.fromisoformat(owner.started)))
        elif breaks:
            told = f"There was no lock {breaks} to break any more."
        _write(state_dir / LOCK, owner)
        return True, told


def release(state_dir: Path, owner: Owner) -> bool:
    """Give the lock back if this run has it; somebody else's is left alone."""
    if not (state_dir / LOCK).exists():
        return False
    with _guarded(state_dir):
        held = read_lock(state_dir)
        if held is None or held.owner is None or not _same_run(held.owner, owner):
            return False
        (state_dir / LOCK).unlink()
        return True


def _same_run(one: Owner, other: Owner) -> bool:
    return (one.pid, one.born, one.boot_id, one.pid_space, one.host) == (
        other.pid, other.born, other.boot_id, other.pid_space, other.host,
    )  # fmt: skip


def refusal(state_dir: Path, held: Held, verdict: str, now: datetime) -> str:
    """Why the lock cannot be had, and what to do."""
    path = state_dir / LOCK
    if held.owner is None:
        return f"{path} is a lock that cannot be understood. If no other run is going on, break it: -e break_lock={held.id}"
    owner = held.owner
    told = (
        f"{owner.who} has been changing this fleet with the playbook {owner.playbook} for {_age(owner.started, now)} "
        f"(since {owner.started}, process {owner.pid} on {owner.host})."
    )
    if verdict == ALIVE:
        return f"{told} Wait until that run has ended, or end it, and try again. The lock is {path}."
    return (
        f"{told} Whether that run still goes on cannot be seen from {socket.gethostname()}. Ask {owner.who}; "
        f"if it has ended, break its lock: -e break_lock={held.id}"
    )


def _left_behind(owner: Owner) -> str:
    return (
        f"The run of {owner.playbook} that {owner.who} began at {owner.started} did not end. "
        "What it did is unknown until the hosts have been observed; this run takes over from there."
    )


def _broken(held: Held) -> str:
    whose = (
        f"{held.owner.who} (playbook {held.owner.playbook})" if held.owner else "a run that it does not name"
    )
    return f"The lock of {whose} was broken. What that run did is unknown until the hosts have been observed."


def _age(started: str, now: datetime) -> str:
    try:
        seconds = max(0, int((now - datetime.fromisoformat(started)).total_seconds()))
    except (ValueError, TypeError):
        return "an unknown time"
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


def as_text(owner: Owner) -> str:
    """The content of a lock file."""
    return json.dumps(asdict(owner), indent=2, sort_keys=True) + "\n"


def from_dict(data: Mapping[str, object]) -> Owner | None:
    """An owner handed on as plain data; None when it is none."""
    return _owner(json.dumps(data).encode())


def _write(path: Path, owner: Owner) -> None:
    part = path.with_name(f".{path.name}.{owner.nonce}")
    try:
        with os.fdopen(
            os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "w", encoding="utf-8"
        ) as file:
            file.write(as_text(owner))
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise LockError(f"The lock {path} cannot be written: {error}.") from error


def sign_of_life(state_dir: Path) -> int | None:
    """A descriptor that this process and all that are forked from it hold locked as long as one of them lives.

    A run's tasks go on in forked workers when the run itself is killed; None when it cannot be had.
    """
    try:
        descriptor = os.open(state_dir / _ALIVE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def await_leftovers(state_dir: Path, wait_s: float, say: Callable[[str], object]) -> None:
    """Wait until no task of an earlier run goes on here. ``LockError`` when one still does after ``wait_s`` seconds."""
    deadline, told = time.monotonic() + wait_s, False
    while (descriptor := sign_of_life(state_dir)) is None:
        if not told:
            told = True
            say(
                "A task of an earlier run, which did not end by itself, is still going on here: waiting for it."
            )
        if time.monotonic() > deadline:
            raise LockError(
                f"A task of an earlier run is still going on here after {wait_s:.0f} s. Wait, or end its ansible-playbook "
                f"process (it has {state_dir / _ALIVE} open), and try again."
            )
        time.sleep(0.1)
    os.close(descriptor)


@contextmanager
def _guarded(state_dir: Path) -> Iterator[None]:
    """The moment in which only this process looks at and changes the lock file."""
    path = state_dir / _GUARD
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise LockError(f"{path} cannot be opened: {error}.") from error
    try:
        deadline = time.monotonic() + _GUARD_WAIT_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise LockError(
                        f"Another run has been looking at {path} for {_GUARD_WAIT_S:.0f} s."
                    ) from error
                time.sleep(0.02)
            except OSError as error:
                raise LockError(
                    f"{path} cannot be locked: {error}. Put fleet_state_dir on a local disk."
                ) from error
        yield
    finally:
        os.close(descriptor)
