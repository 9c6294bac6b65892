"""Verdicts of the gateway benchmark: ratios are taken within a round, and what is missing judges nothing."""

from __future__ import annotations

from typing import Any

from tests.bench.report import table, verdicts, with_added


def found(values: dict[str, dict[str, list[float]]], what: str, cores: int = 8) -> dict[str, Any]:
    return next(row for row in verdicts(values, cores) if row["what"] == what)


RUST = "CPU per request / faster Rust router"
LIMIT = "CPU per request / better of nginx, HAProxy"


def test_ratios_are_taken_within_rounds_against_the_better_peer() -> None:
    # the second round ran on a machine half as fast: the ratio does not see it
    values = {
        "us": {"cpu_request_us": [50.0, 100.0]},
        "vllm-router": {"cpu_request_us": [200.0, 400.0]},
        "sglang-router": {"cpu_request_us": [125.0, 250.0]},
    }
    row = found(values, RUST)
    assert row["reached"] == {"min": 0.4, "median": 0.4, "max": 0.4}
    assert row["verdict"] == "meets"


def test_a_miss_says_by_how_much() -> None:
    values = {"us": {"cpu_request_us": [100.0]}, "vllm-router": {"cpu_request_us": [100.0]}}
    assert found(values, RUST)["verdict"] == "misses (2.00 of the target)"


def test_the_second_step_of_a_target_is_named() -> None:
    values = {"us": {"cpu_request_us": [55.0]}, "nginx": {"cpu_request_us": [20.0]}}
    assert found(values, LIMIT)["verdict"] == "meets, not yet 2.5"


def test_without_peers_nothing_is_judged() -> None:
    row = found({"us": {"cpu_request_us": [100.0]}}, RUST)
    assert (row["reached"], row["verdict"]) == (None, "not measured")


def test_a_peer_that_failed_before_this_figure_is_left_out() -> None:
    values = {
        "us": {"cpu_request_us": [100.0]},
        "vllm-router": {"cpu_request_us": [200.0]},
        "sglang-router": {"resident_idle_mib": [90.0]},
    }
    assert found(values, RUST)["reached"]["median"] == 0.5


def test_workers_are_judged_only_where_there_are_cores() -> None:
    what = "requests/s of 2 workers / twice those of 1"
    values = {"us": {"requests_per_s": [1000.0]}, "us-2w": {"requests_per_s": [1500.0]}}
    assert found(values, what, cores=8)["verdict"].startswith("misses")
    assert found(values, what, cores=2)["verdict"] == "not to be judged on 2 cores"
    values["us-2w"]["requests_per_s"] = [1900.0]
    assert found(values, what, cores=2)["verdict"] == "meets"


def test_added_latency_is_the_difference_to_direct_in_the_same_round() -> None:
    values = {"direct": {"c1_p50_ms": [0.1, 0.5]}, "us": {"c1_p50_ms": [0.3, 0.7], "cpu_request_us": [1.0]}}
    added = with_added(values)["us"]["added_c1_p50_ms"]
    assert [round(each, 6) for each in added] == [0.2, 0.2]


def test_the_table_has_a_row_for_each_system_and_says_who_is_missing() -> None:
    values = {"us": {"cpu_request_us": [1.0, 2.0, 30.0]}, "direct": {}}
    lines = table(values, {"us": "Ours"}, {"nginx": "absent: no apt-get"}).splitlines()
    assert lines[1].split("  ")[0].strip() == "Ours"
    assert "1.00 - 2.00 - 30.0" in lines[1]
    assert lines[-1] == "nginx: absent: no apt-get"
