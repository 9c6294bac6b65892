"""Errors as clients of each dialect expect them: the one place where the error tree meets the wire."""

from __future__ import annotations

import enum
import json
from typing import Any

from aiohttp import web

from modelyard.errors import ModelyardError

from .headers import REQUEST_ID


class Shape(enum.Enum):
    """Whose error object a route answers with."""

    OPENAI = "openai"
    TGI = "tgi"
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
            "error_type": _tgi_type(error),
            "code": error.code,
            "request_id": request_id,
        }
    return {
        "detail": error.message,
        "error": error.message,
        "code": error.code,
        "param": error.param,
        "request_id": request_id,
    }


def error_response(error: ModelyardError, shape: Shape, request_id: str) -> web.Response:
    """The whole response, with ``Retry-After`` where waiting helps."""
    headers = {REQUEST_ID: request_id}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return web.json_response(error_body(error, shape, request_id), status=error.status, headers=headers)


def error_event(error: ModelyardError, shape: Shape, request_id: str) -> bytes:
    """The error as one server-sent event, for a stream that cannot go on."""
    return b"data: " + json.dumps(error_body(error, shape, request_id)).encode() + b"\n\n"


def _openai_type(error: ModelyardError) -> str:
    if error.status == 401:
        return "authentication_error"
    if error.status == 403:
        return "permission_error"
    if error.status == 429:
        return "rate_limit_error"
    return "invalid_request_error" if error.status < 500 else "server_error"


def _tgi_type(error: ModelyardError) -> str:
    # the four words of TGI's router (its clients map them to exception classes)
    if error.status in (429, 503):
        return "overloaded"
    if error.status < 500:
        return "validation"
    return "incomplete_generation" if error.code == "upstream_broken" else "generation"
