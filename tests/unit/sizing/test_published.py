"""Estimates against what others have published or measured."""

from __future__ import annotations

import pytest

from modelyard.sizing import Model, Request, estimate, read_model, resident_bytes
from tests.unit.sizing.published import FIGURES, GPT_OSS_20B, Published

TOLERANCE = 0.15


def figure(model: Model, published: Published) -> float:
    request = Request(**{"max_model_len": 1, **published.asked})
    needs = estimate(model, request)
    found = {
        "parameters": model.parameters,
        "checkpoint": model.weights_bytes,
        "weights": resident_bytes(model, request),
        "kv_token": needs.kv_bytes_per_token,
        "kv": needs.per_gpu.kv,
        "start": needs.per_gpu.weights + needs.per_gpu.overhead,
    }[published.figure]
    assert found is not None
    return found


@pytest.mark.parametrize("published", FIGURES, ids=lambda one: f"{one.name}-{one.figure}")
def test_the_estimate_is_near_what_is_published(published: Published) -> None:
    found = figure(read_model(published.config), published)
    assert found == pytest.approx(published.value, rel=TOLERANCE), published.source


def test_the_list_holds_many_architectures() -> None:
    assert len({one.config["model_type"] for one in FIGURES}) >= 10
    assert len({one.name for one in FIGURES}) >= 15


def test_an_index_goes_before_what_is_counted() -> None:
    model = read_model(GPT_OSS_20B, index={"metadata": {"total_size": 13_761_264_768}}, files_bytes=5)
    assert (model.weights_bytes, model.origin, model.parameters) == (13_761_264_768, "index", None)


if __name__ == "__main__":  # python -m tests.unit.sizing.test_published: the table
    for one in FIGURES:
        got = figure(read_model(one.config), one)
        print(
            f"{one.name:24} {one.figure:11} {got:>18,.0f} {one.value:>18,.0f} {got / one.value - 1:+7.1%}  {one.source}"
        )
