from __future__ import annotations

import json

import pytest

from modelyard.errors import UpstreamBusyError, UpstreamError
from modelyard.gateway.in_band import error_of, in_band_error


def first(text: str) -> bytes:
    return b"data:" + text.encode() + b"\n\n"


def test_an_overloaded_tgi_may_be_left_for_another() -> None:
    error = in_band_error(first('{"error":"Model is overloaded","error_type":"overloaded"}'))
    assert isinstance(error, UpstreamBusyError)
    assert "Model is overloaded" in error.message


@pytest.mark.parametrize(
    "text",
    [
        '{"error":"CUDA","error_type":"generation"}',
        '{"error":{"message":"EngineCore died","type":"InternalServerError","code":500}}',
        '{"error":{"message":"x"}}',
    ],
)
def test_a_failed_engine_may_be_left_for_another(text: str) -> None:
    error = in_band_error(first(text))
    assert isinstance(error, UpstreamError)
    assert error.code == "upstream_failed"


@pytest.mark.parametrize(
    "text",
    [
        '{"error":"`inputs` cannot be empty","error_type":"validation"}',
        '{"error":{"message":"too long","code":400}}',
    ],
)
def test_what_the_engine_blames_on_the_client_is_an_answer(text: str) -> None:
    assert in_band_error(first(text)) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b'data:{"error":"Model is over',
        first('{"token":{"text":"\\"error\\""},"error":null}'),
        first("[1]") + first('{"error":"x","error_type":"overloaded"}'),
        first('{"choices":[]}') + first('{"error":"x","error_type":"overloaded"}'),
        b'data: "error"\n\n',
        first("<error"),
    ],
)
def test_anything_else_is_no_error(data: bytes) -> None:
    assert in_band_error(data) is None


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ('{"object":"error","message":"too long","type":"BadRequestError","code":400}', 400),
        ('{"object":"error","message":"died","type":"InternalServerError","code":500}', 502),
        ('{"error":{"message":"no","type":"invalid_request_error","code":"invalid_value"}}', 400),
        ('{"type":"error","error":{"type":"overloaded_error","message":"busy"}}', 503),
    ],
)
def test_errors_as_other_engines_write_them(text: str, status: int) -> None:
    found = error_of(json.loads(text))
    assert found is not None
    assert found.status == status
    # what the client is to blame for is tried nowhere else
    assert (in_band_error(first(text)) is None) is (status == 400)


@pytest.mark.parametrize(("code", "status"), [(400, 400), (404, 404), (422, 422)])
def test_a_refusal_keeps_its_status(code: int, status: int) -> None:
    error = error_of({"error": {"message": "no", "code": code}})
    assert error is not None
    assert (error.status, error.code) == (status, "upstream_refused")
