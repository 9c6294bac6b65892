from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.errors import UpstreamBrokenError, UpstreamConnectError, UpstreamError, UpstreamTimeoutError
from modelyard.gateway.health.rules import (
    Finding,
    HealthRules,
    in_service,
    next_health,
    of_error,
    of_status,
)
from modelyard.gateway.replicas import HealthState, HealthView

RULES = HealthRules(failures=3, successes=2)
UP, FULL, LATE, DOWN = Finding.READY, Finding.BUSY, Finding.LATE, Finding.DOWN
READY, BUSY, FAILING = HealthState.READY, HealthState.BUSY, HealthState.FAILING


def walk(*findings: Finding) -> list[HealthState]:
    view = HealthView()
    states = []
    for number, finding in enumerate(findings):
        view = next_health(view, finding, "because", RULES, float(number))
        states.append(view.state)
    return states


@pytest.mark.parametrize(
    ("finding", "state"),
    [
        (Finding.READY, HealthState.READY),
        (Finding.BUSY, HealthState.BUSY),
        (Finding.LATE, HealthState.FAILING),
        (Finding.NOT_READY, HealthState.STARTING),
        (Finding.UNAUTHORISED, HealthState.UNAUTHORISED),
        (Finding.DOWN, HealthState.FAILING),
    ],
)
def test_the_first_finding_counts_at_once(finding: Finding, state: HealthState) -> None:
    assert walk(finding) == [state]


def test_a_ready_replica_leaves_after_three_and_returns_after_two() -> None:
    assert walk(UP, DOWN, DOWN, UP, DOWN, DOWN, DOWN, UP, UP) == [
        READY, READY, READY, READY, READY, READY, FAILING, FAILING, READY,
    ]  # fmt: skip


@pytest.mark.parametrize("first", [Finding.NOT_READY, Finding.UNAUTHORISED])
def test_what_was_never_at_fault_is_ready_at_once(first: Finding) -> None:
    assert walk(DOWN, first, UP)[2] is READY


def test_a_late_replica_is_busy_until_it_is_late_for_good() -> None:
    assert walk(UP, LATE, LATE, LATE) == [READY, BUSY, BUSY, FAILING]
    assert walk(UP, LATE, UP) == [READY, BUSY, READY]
    assert walk(UP, LATE, DOWN, LATE) == [READY, BUSY, BUSY, FAILING]


def test_a_full_replica_is_never_failing_and_comes_back_like_any_other() -> None:
    assert walk(UP, *[FULL] * 9) == [READY, *[BUSY] * 9]
    assert walk(DOWN, FULL, FULL) == [FAILING, FAILING, BUSY]


@given(st.lists(st.sampled_from(Finding), max_size=30))
def test_never_in_service_without_a_sign_of_life_and_since_moves_only_with_the_state(
    findings: list[Finding],
) -> None:
    view = HealthView()
    alive = False
    for number, finding in enumerate(findings, start=1):
        alive |= finding in (Finding.READY, Finding.BUSY)
        following = next_health(view, finding, "x", RULES, float(number))
        assert alive or not in_service(following)
        assert (following.since == view.since) == (following.state is view.state)
        view = following


@given(st.lists(st.sampled_from(Finding), max_size=30))
def test_so_many_failures_in_a_row_and_no_fewer_take_one_out(findings: list[Finding]) -> None:
    view = next_health(HealthView(), Finding.READY, "", RULES, 0.0)
    row = 0
    for finding in findings:
        row = 0 if finding in (Finding.READY, Finding.BUSY) else row + 1
        before, view = view, next_health(view, finding, "x", RULES, 1.0)
        if in_service(before) and not in_service(view):
            assert row == RULES.failures


@pytest.mark.parametrize(
    ("status", "finding"),
    [
        (204, None),
        (401, Finding.UNAUTHORISED),
        (403, Finding.UNAUTHORISED),
        (429, Finding.BUSY),
        (404, Finding.NOT_READY),
        (503, Finding.NOT_READY),
        (302, Finding.NOT_READY),
    ],
)
def test_what_a_status_means(status: int, finding: Finding | None) -> None:
    found = of_status("/v1/models", status, Finding.NOT_READY)
    assert (found and found[0]) is finding
    assert found is None or f"/v1/models answers {status}" in found[1]


@pytest.mark.parametrize(
    ("error", "quiet", "heard"),
    [
        (UpstreamTimeoutError("late"), Finding.LATE, Finding.BUSY),
        (UpstreamConnectError("no connection within 5 s", status=504), Finding.DOWN, Finding.BUSY),
        # a closed port with streams that go on is a server that is shutting down
        (UpstreamConnectError("connection refused"), Finding.DOWN, Finding.DOWN),
        (UpstreamBrokenError("cut"), Finding.DOWN, Finding.DOWN),
    ],
)
def test_a_late_probe_is_no_failure_while_answers_flow(
    error: UpstreamError, quiet: Finding, heard: Finding
) -> None:
    assert of_error(error, heard=False)[0] is quiet
    assert of_error(error, heard=True)[0] is heard
