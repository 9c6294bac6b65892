"""Which of the candidates gets the request: pure choices, nothing is counted here."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, Protocol, TypeVar

# A hashed choice is skipped when it carries more than this many times the average load (bounded loads).
_LOAD_BOUND = 1.25
_GOLDEN = 0.6180339887498949


class Loaded(Protocol):
    """What a policy may look at."""

    @property
    def id(self) -> str:
        """The replica's id."""

    @property
    def in_flight(self) -> int:
        """Requests on it now."""


LoadedT = TypeVar("LoadedT", bound=Loaded)


def pick(
    policy: str,
    candidates: Sequence[LoadedT],
    weights: Sequence[float],
    *,
    turn: int,
    rng: random.Random,
    key: str | None = None,
    extra: Sequence[float] | None = None,
) -> LoadedT:
    """One of ``candidates`` (at least one), of which ``weights`` says how much each can bear.

    ``turn`` grows by one with each choice for a model and decides between equals. ``key`` is what the hash
    policies stick to; without one they take the least loaded. ``extra`` is load besides the requests in
    flight, for the policies that go by load.
    """
    count = len(candidates)
    if count == 1:
        return candidates[0]
    if policy == "round_robin":
        return candidates[_in_turn(weights, turn)]
    if policy == "power_of_two" and count > 2:
        some = rng.sample(range(count), 2)
        chosen = least_loaded(
            [candidates[n] for n in some],
            [weights[n] for n in some],
            turn & 1,
            None if extra is None else [extra[n] for n in some],
        )
        return candidates[some[chosen]]
    if policy in ("session_hash", "prefix_hash") and key:
        return _hashed(candidates, weights, key)
    return candidates[least_loaded(candidates, weights, turn, extra)]


def least_loaded(
    candidates: Sequence[Loaded], weights: Sequence[float], turn: int, extra: Sequence[float] | None = None
) -> int:
    """The place of the candidate with the least load for its weight once it has the request too; among
    equals the one whose turn it is, so that an idle fleet is used evenly.
    """
    count = len(candidates)
    place = best = turn % count
    least = float("inf")
    for _ in range(count):
        load = candidates[place].in_flight + 1.0
        if extra is not None:
            load += extra[place]
        load /= weights[place]
        if load < least:
            least, best = load, place
        place += 1
        if place == count:
            place = 0
    return best


def _in_turn(weights: Sequence[float], turn: int) -> int:
    count = len(weights)
    if weights.count(weights[0]) == count:
        return turn % count
    # the multiples of the golden ratio fall evenly between 0 and 1, after every number of turns
    point = turn * _GOLDEN % 1.0 * sum(weights)
    for place, weight in enumerate(weights):
        point -= weight
        if point < 0:
            return place
    return count - 1


def _hashed(candidates: Sequence[LoadedT], weights: Sequence[float], key: str) -> LoadedT:
    """Rendezvous hashing with bounded loads: the same key goes to the same replica unless that one is
    overloaded.

    Mirrokni, Thorup, Zadimoghaddam, "Consistent Hashing with Bounded Loads" (2018), over
    highest-random-weight hashing, so that a replica that goes moves only its own keys.
    """
    total = sum(item.in_flight for item in candidates) + 1
    share = total / sum(weights)
    taken = key.encode("utf-8", "surrogatepass")

    def score(n: int) -> bytes:
        return blake2b(candidates[n].id.encode() + b"\0" + taken, digest_size=8).digest()

    def bears(n: int) -> bool:
        return candidates[n].in_flight + 1 <= max(1.0, _LOAD_BOUND * share * weights[n])

    scores = list(map(score, range(len(candidates))))
    home = scores.index(max(scores))
    if bears(home):
        # nearly always, and the others need no order then
        return candidates[home]
    ranked = sorted(range(len(candidates)), key=scores.__getitem__, reverse=True)
    return candidates[next(filter(bears, ranked), home)]


def in_percent(key: str | None, percent: float, rng: random.Random) -> bool:
    """Whether one request belongs to ``percent`` of them; the same ``key`` always does or always does not."""
    if key:
        drawn = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=4, person=b"percent")
        return int.from_bytes(drawn.digest(), "big") < percent / 100 * 2**32
    return rng.random() * 100 < percent


def most_tokens(document: Mapping[str, Any]) -> int | None:
    """How many tokens of an answer a request asks for at most, where its body says so."""
    for name in ("max_tokens", "max_completion_tokens", "max_output_tokens"):
        most = document.get(name)
        if isinstance(most, int):
            return most
    return None
