"""Which of a host's free GPUs are taken together: those with the fastest way between them. Pure.

GPUs that share a model exchange the activations of every layer, so NVLink or XGMI goes before a common PCIe switch, that
before a common NUMA node, and that before the rest. Among equals the tightest set is taken, so that larger ones stay whole.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import combinations
from math import comb

from ansible_collections.modelyard.fleet.plugins.module_utils.planner.types import Host

APART = 3
"""The tier of GPUs that nothing joins, or of which nobody knows what does; the others are those of ``Host.gpu_groups``."""
_MOST_SETS = 100  # of 8 GPUs there are at most 70


def tier(host: Host, count: int, free: Collection[str]) -> int:
    """How well ``count`` of the free GPUs can be joined; 0 is best."""
    if count < 2:
        return 0
    return min((rank for rank, members in _groups(host, free) if len(members) >= count), default=APART)


def choose(host: Host, count: int, free: Collection[str]) -> tuple[str, ...] | None:
    """``count`` of the free GPUs in the host's order, None where there are fewer."""
    if count == 0:
        return ()
    ordered = [gpu for gpu in host.gpus if gpu in free]
    if len(ordered) < count:
        return None
    if not host.gpu_groups:
        return _block(host.gpus, set(ordered), count) or tuple(ordered[:count])
    groups = list(_groups(host, free))
    if count == 1:
        return (min(ordered, key=lambda gpu: _company(gpu, groups)),)
    best = tier(host, count, free)
    place = {gpu: at for at, gpu in enumerate(host.gpus)}
    fitting = [members for rank, members in groups if rank == best and len(members) >= count]
    if not fitting:
        return _spread(ordered, groups, count, place)
    members = min(fitting, key=lambda one: (len(one), sorted(place[gpu] for gpu in one)))
    return _tightest(host, sorted(members, key=place.__getitem__), count)


def _groups(host: Host, free: Collection[str]) -> Iterator[tuple[int, frozenset[str]]]:
    """Tier and free members of each set."""
    for rank, members in host.gpu_groups:
        left = members.intersection(free)
        if left:
            yield rank, left


def _company(gpu: str, groups: Iterable[tuple[int, frozenset[str]]]) -> tuple[int, ...]:
    """How many free GPUs are joined with this one, by tier: one that is alone is taken first."""
    sizes = [0] * APART
    for rank, members in groups:
        if gpu in members:
            sizes[rank] = max(sizes[rank], len(members))
    return tuple(sizes)


def _spread(
    ordered: Sequence[str], groups: Iterable[tuple[int, frozenset[str]]], count: int, place: dict[str, int]
) -> tuple[str, ...]:
    """GPUs of several sets, of as few as possible: the largest first."""
    taken: list[str] = []
    for _, members in sorted(
        groups, key=lambda one: (one[0], -len(one[1]), min(map(place.__getitem__, one[1])))
    ):
        taken += [gpu for gpu in ordered if gpu in members and gpu not in taken]
    taken += [gpu for gpu in ordered if gpu not in taken]
    return tuple(sorted(taken[:count], key=place.__getitem__))


def _tightest(host: Host, members: Sequence[str], count: int) -> tuple[str, ...]:
    """Those with the most direct links among them; aligned neighbours where that makes no difference."""
    usual = _block(host.gpus, set(members), count) or tuple(members[:count])
    if not host.gpu_links or comb(len(members), count) > _MOST_SETS:
        return usual
    most = max(host.gpu_links.values()) * comb(count, 2)
    if _links(host, usual) == most:
        return usual
    sets = [usual, *combinations(members, count)]
    return max(sets, key=lambda one: _links(host, one))  # the first of equals


def _links(host: Host, gpus: Iterable[str]) -> int:
    return sum(host.gpu_links.get(frozenset(pair), 0) for pair in combinations(gpus, 2))


def _block(names: Sequence[str], free: set[str], count: int) -> tuple[str, ...] | None:
    """Aligned neighbours: what they are likely to share is known by nobody who tells no topology."""
    if count < 2:
        return None
    for start in range(0, len(names) - count + 1, count):
        block = tuple(names[start : start + count])
        if free.issuperset(block):
            return block
    return None
