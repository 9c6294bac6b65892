"""Errors as clients of each dialect expect them: the one place where the error tree meets the wire."""

from __future__ import annotations

import enum
import json
from typing import Any

from aiohttp import web

from modelyard.errors import ModelyardError, UpstreamError

from .headers import REQUEST_ID


class Shape(enum.Enum):
    """Whose error object a route answers with."""

    OPENAI = "openai"
    TGI = "tgi"
    ANTHROPIC = "anthropic"
    BACKEND = "backend"


def error_body(error: ModelyardError, shape: Shape, request_id: str) -> dict[str, Any]:
    """The error object. Each shape also carries our stable code and the request id beside its own keys."""
    if shape is Shape.OPENAI:
        inner = {
            "message": error.message,
            "type": _openai_type(error),
            "code": error.code,
            "param": error.param,
        }
        return {"error": inner, "request_id": request_id}
    if shape is Shape.TGI:
        return {
            "error": error.message,
            "error_type": _tgi(error)[1],
            "code": error.code,
            "request_id": request_id,
        }
    if shape is Shape.ANTHROPIC:
        told = {"type": _anthropic_type(error), "message": error.message, "code": error.code}
        return {"type": "error", "error": told, "request_id": request_id}
    return {
        "detail": error.message,
        "error": error.message,
        "code": error.code,
        "param": error.param,
        "request_id": request_id,
    }


def error_response(error: ModelyardError, shape: Shape, request_id: str) -> web.Response:
    """The whole response, with ``Retry-After`` where waiting helps."""
    headers = {REQUEST_ID: request_id, **error_headers(error)}
    status = _tgi(error)[0] if shape is Shape.TGI else error.status
    return web.json_response(error_body(error, shape, request_id), status=status, headers=headers)


def error_headers(error: ModelyardError) -> dict[str, str]:
    """What an error's response says in headers."""
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return headers


def error_event(error: ModelyardError, shape: Shape, request_id: str) -> bytes:
    """The error as one server-sent event, for a stream that cannot go on."""
    # Anthropic's clients know an event by its name
    name = b"event: error\n" if shape is Shape.ANTHROPIC else b""
    return name + b"data: " + json.dumps(error_body(error, shape, request_id)).encode() + b"\n\n"


def _openai_type(error: ModelyardError) -> str:
    if error.status == 401:
        return "authentication_error"
    if error.status == 403:
        return "permission_error"
    if error.status == 429:
        return "rate_limit_error"
    return "invalid_request_error" if error.status < 500 else "server_error"


def _anthropic_type(error: ModelyardError) -> str:
    # https://docs.anthropic.com/en/api/errors
    named = {
        401: "authentication_error",
        403: "permission_error",
        404: "not_found_error",
        413: "request_too_large",
        429: "rate_limit_error",
        503: "overloaded_error",
        504: "timeout_error",
    }
    return named.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")


def _tgi(error: ModelyardError) -> tuple[int, str]:
    """Status and ``error_type`` as TGI's router gives them: its clients map both to exception classes."""
    if error.status in (429, 503):
        return 429, "overloaded"
    if error.status in (400, 501):
        return 422, "validation"
    if error.status < 500:
        return error.status, "validation"
    if error.code == "upstream_broken":
        return 500, "incomplete_generation"
    return 424 if isinstance(error, UpstreamError) else 500, "generation"
