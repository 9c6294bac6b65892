"""A large registry is read in a process of its own, and prepared before it is put in force."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from modelyard.catalog.loader import load_engines
from modelyard.errors import RegistryRefusedError
from modelyard.gateway.replicas import ReplicaPool
from modelyard.registry import apart
from modelyard.registry.apart import LARGE_BYTES, Pauses, load_apart
from modelyard.registry.keep import RegistryKeeper
from modelyard.registry.load import load_file, load_text


def document(host: str = "a", models: int = 800, **more: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "generation": 7,
        "models": {
            f"m{number}": {
                "aliases": [f"org/M{number}"],
                "timeouts": {"first_byte_s": 3},
                "endpoints": [
                    {
                        "id": f"{host}.m{number}.{at}",
                        "url": f"http://h:{at + 1}/{number}",
                        "engine": "vllm",
                        **more,
                    }
                    for at in range(3)
                ],
            }
            for number in range(models)
        },
    }


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "endpoints.yml"
    path.write_text(json.dumps(document()))
    assert path.stat().st_size >= LARGE_BYTES
    return path


class NotHere:
    """Fails when a registry is read in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(_: Path) -> None:
            raise AssertionError("it was read here")

        monkeypatch.setattr(apart, "load_file", fail)


def test_what_comes_back_is_the_same(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = load_file(large)
    NotHere(monkeypatch)
    pauses: list[None] = []
    found = load_apart(large, lambda: pauses.append(None))
    assert found == expected
    assert list(found.models) == list(expected.models)
    assert len(pauses) == len(expected.models)


def test_every_problem_comes_back(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large.write_text(json.dumps(document(weight=-1)))
    with pytest.raises(RegistryRefusedError) as here:
        load_file(large)
    NotHere(monkeypatch)
    with pytest.raises(RegistryRefusedError) as there:
        load_apart(large, Pauses())
    assert there.value.message == here.value.message
    assert sorted(there.value.problems) == sorted(here.value.problems)
    assert len(there.value.problems) == 2400


@pytest.mark.parametrize("program", ["/nowhere", "/bin/false", "/bin/true"])
def test_where_no_process_can_be_had_it_is_read_here(
    large: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, program: str
) -> None:
    monkeypatch.setattr("modelyard.registry.apart.sys.executable", program)
    assert load_apart(large, Pauses()) == load_file(large)
    assert "is read here" in caplog.text


def test_a_small_one_begins_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "small"
    path.write_text(json.dumps(document(models=2)))
    monkeypatch.setattr("modelyard.registry.apart.subprocess.run", None)
    assert load_apart(path, Pauses()) == load_file(path)


def test_what_is_prepared_changes_nothing_until_it_is_offered() -> None:
    old, new = (load_text(json.dumps(document(host, 40)), "r") for host in "ab")
    newest = load_text(json.dumps(document("b", 40, weight=2)), "r")
    keeper, pool = RegistryKeeper(old, "r", lambda: 0.0), ReplicaPool(load_engines())
    pool.apply(old)
    keeper.prepare_with(pool.prepare)
    keeper.listen(lambda registry, _: pool.apply(registry) and None)
    before = list(pool.everyone())
    held = pool.lease(before[0])

    change = keeper.prepare(new, Pauses())
    assert list(pool.everyone()) == before
    assert keeper.current is old
    assert not any(replica.removed for replica in before)

    assert keeper.offer(new, change).endpoints_added == change.endpoints_added != ()
    assert all(replica.removed for replica in before)
    assert {replica.id for replica in pool.everyone() if not replica.removed} == {
        endpoint.id for model in new.models.values() for endpoint in model.endpoints
    }
    assert before[0] in pool.everyone()
    held.release()
    assert before[0] not in pool.everyone()

    # prepared for what was in force then, but something else came in between
    keeper.prepare(old, Pauses())
    kept = list(pool.everyone())
    keeper.offer(newest)
    assert list(pool.everyone()) == kept
    assert {replica.endpoint.weight for replica in kept} == {2.0}


def test_what_is_drained_while_another_registry_is_prepared_stays_drained() -> None:
    old, new = (
        load_text(json.dumps(document("a", 2)).replace("http://h", f"http://{host}"), "r") for host in "xy"
    )
    pool = ReplicaPool(load_engines())
    pool.apply(old)
    pool.prepare(new, Pauses())
    first = pool.get("a.m0.0")
    assert first is not None
    first.drained = True
    pool.apply(new)
    heir = pool.get("a.m0.0")
    assert heir is not None
    assert heir is not first
    assert heir.drained
    assert sum(replica.drained for replica in pool.everyone()) == 1
