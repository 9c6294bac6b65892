"""Request bodies: read once, bounded, and checked field by field."""

from __future__ import annotations

import asyncio
import json
import math
import time
from typing import Any

from aiohttp import web
from aiohttp.web import RequestPayloadError

from modelyard.errors import BadRequestError, BodyTimeoutError, BodyTooLargeError, InvalidFieldError

from ..keys import VISIT


async def read_object(request: web.Request, within_s: float) -> tuple[dict[str, Any], bytes]:
    """The JSON object in the body, and the bytes it came as.

    Raises ``BodyTimeoutError`` when it is not whole ``within_s`` seconds from now, ``BodyTooLargeError``
    beyond the application's limit and ``BadRequestError`` for anything but one object.
    """
    try:
        async with asyncio.timeout(within_s):
            raw = await request.read()
        request[VISIT].arrived = time.perf_counter()
    except TimeoutError as exc:
        raise late(within_s) from exc
    except web.HTTPRequestEntityTooLarge as exc:
        raise BodyTooLargeError(
            f"the body is larger than {request.client_max_size} bytes; "
            "send less, or ask the operator to raise the limit"
        ) from exc
    except RequestPayloadError as exc:
        raise BadRequestError(
            "the body cannot be read as its Content-Encoding says; send it plain",
        ) from exc
    try:
        # decoded here, for json.loads would take UTF-16 as well, which engines do not
        body = json.loads(raw.decode("utf-8-sig"))
    except RecursionError as exc:
        raise BadRequestError("the body is nested too deeply", code="malformed_json") from exc
    except UnicodeDecodeError as exc:
        raise BadRequestError("the body is not UTF-8 text; send JSON", code="malformed_json") from exc
    except json.JSONDecodeError as exc:
        raise BadRequestError(
            f"the body is not valid JSON: {exc.msg} (line {exc.lineno}, column {exc.colno})",
            code="malformed_json",
        ) from exc
    except ValueError as exc:
        raise BadRequestError("the body holds a number with too many digits", code="malformed_json") from exc
    if not isinstance(body, dict):
        raise BadRequestError(f"the body must be a JSON object, it is {_kind(body)}", code="not_an_object")
    return body, raw


def late(within_s: float) -> BodyTimeoutError:
    """The refusal of a body that was not whole in time."""
    return BodyTimeoutError(
        f"the body was not whole within {within_s:g} s; send it faster, or ask the operator for more time"
    )


def text_field(body: dict[str, Any], name: str, *, status: int) -> str:
    """A required text. Raises ``InvalidFieldError`` with ``status``."""
    value = body.get(name)
    if value is None:
        raise InvalidFieldError(f"the body needs {name!r} (text)", status=status, param=name)
    if not isinstance(value, str):
        raise InvalidFieldError(f"{name!r} must be text, it is {_kind(value)}", status=status, param=name)
    return value


def number_field(
    body: dict[str, Any],
    name: str,
    *,
    status: int,
    whole: bool = False,
    least: float = 0.0,
    most: float = math.inf,
) -> float | int | None:
    """An optional number in ``[least, most]``; null counts as absent. Raises ``InvalidFieldError`` with
    ``status``.
    """
    value = body.get(name)
    if value is None:
        return None
    kinds = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds):
        wanted = "a whole number" if whole else "a number"
        raise InvalidFieldError(f"{name!r} must be {wanted}, it is {_kind(value)}", status=status, param=name)
    number: float | int = value
    if not least <= number <= most or math.isinf(number):
        bounds = f"at least {least:g}" + ("" if most == math.inf else f" and at most {most:g}")
        raise InvalidFieldError(f"{name!r} must be {bounds}, it is {number!r:.40}", status=status, param=name)
    return number


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    names = {
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "text",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value), type(value).__name__)
