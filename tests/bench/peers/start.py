"""Run a peer."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from ..cases import Target
from ..processes import EngineHandle, background, fetch, free_port, wait_until
from .base import Peer, Place


def start(peer: Peer, engine: EngineHandle, directory: Path, stack: ExitStack) -> Target:
    """Run a peer until ``stack`` closes. Raises ``Absent``, or ``RuntimeError`` when it does not come up."""
    place = Place(free_port(), engine.ports, directory)
    directory.mkdir()
    command = peer.command(place)
    log = directory / "log"
    process = stack.enter_context(background(command, log=log, env=peer.env, cwd=directory))

    def answers() -> bool:
        wish = {"model": place.model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8}
        try:
            fetch(f"http://127.0.0.1:{place.port}/v1/chat/completions", wish)
        except OSError:
            return False
        return True

    try:
        wait_until(answers, process, peer.name, peer.start_limit_s)
    except RuntimeError as exc:
        said = log.read_text(errors="replace").strip().splitlines()[-3:]
        raise RuntimeError(f"{exc}: {' | '.join(said)}") from exc
    return Target(peer.name, place.port, process.pid, peer.share)
