"""Bring the containers of this host's replicas to what is wished: all at once, each for itself.

The order of the calls is such that whatever moment a run dies at, the next one finds its way: a replacement is made
before its predecessor is stopped (so a wish that the engine refuses costs nothing), nothing new is started before what
had its GPUs and port has stopped, and a predecessor goes only when its replacement runs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.containers import decide, takeover
from ansible_collections.modelyard.fleet.plugins.module_utils.containers.compare import differences
from ansible_collections.modelyard.fleet.plugins.module_utils.containers.config import (
    LABEL,
    NEXT,
    PREVIOUS,
    container_config,
    container_name,
)
from ansible_collections.modelyard.fleet.plugins.module_utils.containers.decide import (
    RefusedError,
    Seen,
    Step,
)
from ansible_collections.modelyard.fleet.plugins.module_utils.containers.engine import (
    ConflictError,
    Engine,
    EngineError,
    MissingError,
    make_directory,
)

Assignment = Mapping[str, Any]
Result = dict[str, Any]
Act = Callable[[Engine, Assignment, Result], None]

MOST_PULLS = 4
RESTART = "a restart is asked for"
ATTEMPTS = 5
PAUSE_S = 0.5
"""How often, and after how many seconds, a container that the engine is busy with is looked at again."""


@dataclass(frozen=True)
class Wish:
    """What is asked for as a whole."""

    fleet: str
    home: Path
    state: str = "applied"
    keep_previous: bool = False
    pull: bool = True
    check: bool = False
    stop_timeout_s: int = 120
    restart: frozenset[str] = frozenset()


def masked(text: str, assignment: Assignment) -> str:
    """The text with the values of the environment hidden; short ones are no secrets and stay."""
    values = (str(value) for value in ((assignment.get("spec") or {}).get("env") or {}).values())
    for value in sorted(values, key=len, reverse=True):
        if len(value) > 3:
            text = text.replace(value, "***")
    return text


class Reconciler:
    """One host's containers. ``own`` is ``os.chown``, ``clock`` and ``sleep`` are those of ``time``."""

    def __init__(
        self,
        engine: Engine,
        wish: Wish,
        own: Callable[[Path, int, int], None] = os.chown,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._engine = engine
        self._wish = wish
        self._own = own
        self._clock = clock
        self._sleep = sleep
        self._images: dict[str, dict[str, Any] | None] = {}
        self._unpulled: dict[str, str] = {}
        self._held: dict[str, set[str]] = {}
        self._decided: dict[str, Event] = {}
        self._ended: dict[str, Event] = {}
        self._leaves: set[str] = set()

    def refuse_conflicts(self, assignments: Sequence[Assignment]) -> None:
        """Raise ``EngineError`` when somebody else's container has a name which is ours to give."""
        replicas = [one["replica"] for one in assignments if not one.get("adopted")]
        taken = decide.conflicts(self._engine.containers(), self._wish.fleet, replicas)
        if taken:
            raise EngineError("; ".join(taken))

    def run(
        self, assignments: Sequence[Assignment], stops: Sequence[str], taken: Mapping[str, str] | None = None
    ) -> list[Result]:
        """Carry out (in check mode: foresee) everything, stops too. Raises ``EngineError`` when nothing was touched.

        ``taken``: of the stops that are adopted containers, their ids.
        """
        if not assignments and not stops:
            return []
        containers = self._engine.containers()
        self._held = decide.held(containers, self._wish.fleet)
        names = (*stops, *(one["replica"] for one in assignments))
        self._decided = {name: Event() for name in names}
        self._ended = {name: Event() for name in names}
        acts = {"applied": self._apply, "put_back": self._put_back, "confirmed": self._confirm}
        if self._wish.state == "applied":
            self._fetch_images(assignments)
        work: list[tuple[Act, Assignment]] = [
            (self._stop, {"replica": replica, "container": (taken or {}).get(replica)}) for replica in stops
        ]
        work += [
            (self._leave if assignment.get("adopted") else acts[self._wish.state], assignment)
            for assignment in assignments
        ]
        # one thread each: a start may wait for the stop of another replica
        with ThreadPoolExecutor(max_workers=len(work)) as pool:
            return list(pool.map(self._one, work))

    def _one(self, work: tuple[Act, Assignment]) -> Result:
        act, item = work
        begun = self._clock()
        result: Result = {
            "replica": item["replica"],
            "runtime": "docker",
            "action": "keep",
            "reason": "",
            "changed": False,
            "differences": [],
            "image_id": None,
            "image_digest": None,
            "notes": [],
            "error": "",
        }
        try:
            engine = self._engine.another()
            try:
                self._patiently(engine, item, act, result)
            finally:
                engine.close()
        except KeyError as error:
            result["error"] = f"its assignment has no {error}: is it from the planner?"
        except (EngineError, RefusedError, ValueError, TypeError, OSError) as error:
            result["error"] = masked(str(error), item)
            result["changed"] = result["changed"] and not isinstance(error, RefusedError)
        finally:
            self._decided[item["replica"]].set()
            self._ended[item["replica"]].set()
        return result | {"took_s": round(self._clock() - begun, 3)}

    def _patiently(self, engine: Engine, item: Assignment, act: Act, result: Result) -> None:
        """Decide anew when the engine was still busy with a call of a run that died."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                act(engine, item, result)
            except (ConflictError, MissingError):
                if attempt == ATTEMPTS:
                    raise
                self._sleep(PAUSE_S)
            else:
                return

    def _fetch_images(self, assignments: Sequence[Assignment]) -> None:
        """Each wished image once: what this host has of it, after a pull if it has none and that is allowed."""

        def fetch(reference: str) -> None:
            engine = self._engine.another()
            try:
                self._images[reference] = engine.image(reference)
                if self._images[reference] is None and self._wish.pull and not self._wish.check:
                    engine.pull(reference)
                    self._images[reference] = engine.image(reference)
            except EngineError as error:
                self._unpulled[reference] = str(error)
            finally:
                engine.close()

        specs = [one.get("spec") or {} for one in assignments if not one.get("adopted")]
        wanted = sorted({str(spec["image"]) for spec in specs if spec.get("image")})
        if wanted:
            with ThreadPoolExecutor(max_workers=min(len(wanted), MOST_PULLS)) as pool:
                list(pool.map(fetch, wanted))

    # --- one replica ----------------------------------------------------------------------------

    def _look(self, engine: Engine, replica: str) -> Seen:
        labels = (f"{LABEL}.fleet={self._wish.fleet}", f"{LABEL}.replica={replica}")
        found = decide.listed(engine.containers(*labels), self._wish.fleet, replica)
        seen = {kind: [engine.inspect(one["Id"]) for one in entries] for kind, entries in found.items()}
        return Seen(
            next(iter(seen["current"]), None),
            next(iter(seen["previous"]), None),
            tuple(seen["leftovers"]),
            tuple(seen["strays"]),
        )

    @staticmethod
    def _leave(engine: Engine, assignment: Assignment, result: Result) -> None:
        result.update(takeover.left_as_it_is(engine, assignment))

    def _apply(self, engine: Engine, assignment: Assignment, result: Result) -> None:
        replica = assignment["replica"]
        name = container_name(self._wish.fleet, replica)
        body = container_config(dict(assignment), self._wish.fleet)
        seen = decide.settled(self._look(engine, replica))
        left_alone = decide.untouchable(seen)
        if left_alone:
            result["reason"] = left_alone
            return
        image = self._images.get(body["Image"])
        step = decide.applied(assignment, seen, name, self._differences(engine, body, seen.current, image))
        if step.action == "keep" and replica in self._wish.restart:
            step = replace(step, action="replace", reason=RESTART)
        old = seen.current
        makes = old is None or step.action == "replace"
        result.update(_told(step))
        result["image_id"] = (image or {}).get("Id") if old is None or makes else old["Image"]
        result["image_digest"] = decide.repository_digest(body["Image"], image)
        if makes and image is None and not (self._wish.check and self._wish.pull):
            lack = "this host does not have it, and pulling is off"
            raise RefusedError(f"{body['Image']}: {self._unpulled.get(body['Image'], lack)}")
        if step.action != "keep":
            self._leaves.add(replica)
            self._decided[replica].set()
            self._refuse_what_is_held(replica, assignment["spec"])
        if self._wish.check or not step.changes:
            return
        if old is None or makes:
            self._make_directories(assignment)
            identity = self._make(engine, seen, name, body, result)
            self._take_over(engine, assignment)
            self._start(engine, identity, name, assignment)
            if old is not None and not self._wish.keep_previous:
                # fine when it is gone; one that an earlier run kept is none of this one's
                engine.remove(old["Id"], name + PREVIOUS)
            result["notes"] = self._quirks(engine, identity, body, image, name)
            return
        self._tidy(engine, seen, name)
        if step.rename:
            engine.rename(old["Id"], name)
        if step.action == "start":
            self._take_over(engine, assignment)
            self._start(engine, old["Id"], name, assignment)

    def _take_over(self, engine: Engine, assignment: Assignment) -> None:
        """Stop the adopted container whose place this replica takes."""
        if assignment.get("replaces"):
            takeover.stand_down(engine, assignment["replaces"], self._wish.stop_timeout_s)

    def _differences(
        self, engine: Engine, body: dict[str, Any], current: Any, image: dict[str, Any] | None
    ) -> list[dict[str, Any]] | None:
        if current is None:
            return None
        same = image is not None and image.get("Id") == current.get("Image")
        running = None if same else engine.image(str(current.get("Image")))
        return differences(body, current, image, running)

    def _make(self, engine: Engine, seen: Seen, name: str, body: dict[str, Any], result: Result) -> str:
        """Make the new container, stop and keep the old one; gives the new one's id, which is yet to start."""
        old = seen.current
        for leftover in seen.leftovers:
            engine.remove(leftover["Id"], name + NEXT)
        result["changed"] = False  # as long as the engine has not taken the wish
        identity = engine.create(name if old is None else name + NEXT, body)
        result["changed"] = True
        self._tidy(engine, Seen(previous=seen.previous), name)
        if old is not None:
            self._halt(engine, old, name)
            if seen.previous is None and decide.status(old) != "created":
                engine.rename(old["Id"], name + PREVIOUS)
            else:
                # the one that is kept already is the last that was confirmed
                engine.remove(old["Id"], name)
            engine.rename(identity, name)
        return identity

    def _tidy(self, engine: Engine, seen: Seen, name: str) -> None:
        """Never two of one replica: its previous container does not run when it does."""
        for leftover in seen.leftovers:
            engine.remove(leftover["Id"], name + NEXT)
        if seen.previous is not None and decide.runs(seen.previous):
            self._halt(engine, seen.previous, name + PREVIOUS)

    def _refuse_what_is_held(self, replica: str, spec: Mapping[str, Any]) -> None:
        """Nobody gets a GPU or port of another replica of this fleet that runs on."""
        for other, has in self._held.items():
            both = has & decide.claims(spec)
            if not both or other == replica:
                continue
            if other in self._decided:
                self._decided[other].wait()
            if other not in self._leaves:
                raise RefusedError(f"{other} runs and has {', '.join(sorted(both))}: stop it first")

    def _start(self, engine: Engine, identity: str, name: str, assignment: Assignment) -> None:
        """Start a container once the other replicas of this call that had its GPUs and port are through."""
        wants = decide.claims(assignment["spec"])
        self._ended[assignment["replica"]].set()  # whatever this one had is free now: others may go on
        others = [
            one
            for one, has in self._held.items()
            if has & wants and one != assignment["replica"] and one in self._ended
        ]
        for other in others:
            self._ended[other].wait()
        if others:
            now = decide.held(engine.containers(f"{LABEL}.fleet={self._wish.fleet}"), self._wish.fleet)
            for other in others:
                both = now.get(other, set()) & wants
                if both:
                    raise EngineError(f"{other} still runs and has {', '.join(sorted(both))}")
        engine.start(identity, name)

    def _quirks(
        self, engine: Engine, identity: str, body: dict[str, Any], image: dict[str, Any] | None, name: str
    ) -> list[str]:
        """What the engine did not do as asked: it would count as a difference at every later run."""
        return [
            f"{name}: this engine makes {one['found']} of {one['field']} {one['wanted']}; it will be replaced again "
            "at the next run unless the wish says so too"
            for one in differences(body, engine.inspect(identity), image, image)
        ]

    def _put_back(self, engine: Engine, assignment: Assignment, result: Result) -> None:
        replica = assignment["replica"]
        name = container_name(self._wish.fleet, replica)
        seen = decide.settled(self._look(engine, replica))
        left_alone = decide.untouchable(seen)
        if left_alone:
            raise RefusedError(left_alone)
        if assignment.get("replaces") and seen.previous is None:
            result.update(
                action="put_back", reason="the adopted container takes its place again", changed=True
            )
            if not self._wish.check:
                for one in (*seen.leftovers, *seen.strays, seen.current):
                    if one is not None:
                        self._end(engine, one)
                engine.start(assignment["replaces"], "the adopted container")
            return
        step = decide.put_back(replica, seen, name, str(assignment["hash"]))
        result.update(_told(step))
        back = seen.previous or seen.current
        if back is None:
            return
        result["image_id"] = back["Image"]
        if self._wish.check or not step.changes:
            return
        if seen.previous is not None or decide.halted(back, str(assignment["hash"])):
            in_its_place = seen.current if seen.previous is not None else None
            for one in (in_its_place, *seen.leftovers, *seen.strays):
                if one is not None:
                    self._end(engine, one)
            engine.set_restart(back["Id"], name, "unless-stopped")
            # before it has its name back: once it has that, nobody could tell that it was yet to be started
            engine.start(back["Id"], name)
        if str(back.get("Name", "")).lstrip("/") != name:
            engine.rename(back["Id"], name)

    def _confirm(self, engine: Engine, assignment: Assignment, result: Result) -> None:
        seen = self._look(engine, assignment["replica"])
        left_alone = decide.untouchable(seen)
        if left_alone:
            result["reason"] = left_alone
            return
        step = decide.confirmed(assignment["replica"], seen)
        result.update(_told(step))
        result["image_id"] = (seen.current or {}).get("Image")
        if seen.previous is not None and step.changes and not self._wish.check:
            self._end(engine, seen.previous)

    def _stop(self, engine: Engine, item: Assignment, result: Result) -> None:
        seen = self._look(engine, item["replica"])
        left_alone = decide.untouchable(seen)
        if left_alone:
            result["reason"] = left_alone
            return
        result.update(_told(decide.stopped(item["replica"], seen)))
        if item.get("container"):
            result.update(action="stop", reason="the container is no longer adopted", changed=True)
        self._leaves.add(item["replica"])
        self._decided[item["replica"]].set()
        if not self._wish.check:
            # the replica last: as long as it is there, another run sees that something is to be stopped
            for one in (*seen.leftovers, *seen.strays, seen.previous, seen.current):
                if one is not None:
                    self._end(engine, one)
            if item.get("container"):
                takeover.stand_down(engine, item["container"], self._wish.stop_timeout_s)

    def _end(self, engine: Engine, container: Mapping[str, Any]) -> None:
        name = str(container.get("Name", "")).lstrip("/")
        self._halt(engine, container, name)
        engine.remove(container["Id"], name)

    def _halt(self, engine: Engine, container: Mapping[str, Any], name: str) -> None:
        """Stop a container for good.

        The restart policy goes first. Should this run die while the engine stops it, the next one would see a container
        that still runs as wished and leave it alone; so it sees one that differs from the wish.
        """
        if decide.status(container) != "dead":
            engine.set_restart(container["Id"], name, "no")
        engine.stop(container["Id"], name, self._grace_s(container))

    def _grace_s(self, container: Mapping[str, Any]) -> int:
        return decide.grace_s(container, self._wish.stop_timeout_s)

    def _make_directories(self, assignment: Assignment) -> None:
        """The directories that the container writes to, for the user that it runs as."""
        spec = assignment["spec"]
        user, _, group = str(spec.get("user") or "0").partition(":")
        # first, and for everybody to read: what lies below belongs to containers' users
        self._wish.home.mkdir(parents=True, exist_ok=True)
        for mount in spec.get("mounts") or []:
            if not mount["read_only"]:
                make_directory(Path(mount["source"]), int(user), int(group or user), 0o750, self._own)


def _told(step: Step) -> Result:
    return {
        "action": step.action,
        "reason": step.reason,
        "differences": step.differences,
        "changed": step.changes,
    }
