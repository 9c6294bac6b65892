"""What the dialects share in making a wish from a request."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from aiohttp import web

from modelyard.errors import BadRequestError, ModelyardError, UpstreamError
from modelyard.registry.model import Model

from ..affinity import affinity_key
from ..context import Gateway
from ..forward import Call, Opened, Wish
from ..headers import ATTEMPTS, REPLICA, is_trusted, to_upstream
from ..json_text import read
from ..keys import REQUEST_ID_KEY, VISIT
from ..replicas import Replica
from ..upstream import whole

SESSION = "X-Session-Id"


def make_wish(
    gateway: Gateway,
    request: web.Request,
    model: Model,
    body: dict[str, Any],
    plan: Callable[[Replica], Call],
    *,
    buffered: bool = False,
    only: Replica | None = None,
    once: Callable[[], bool] | None = None,
) -> Wish:
    """The wish for ``request``; also labels the request with its model for the metrics."""
    visit = request[VISIT]
    visit.model = model.id
    identity: str = request[REQUEST_ID_KEY]
    trusted = is_trusted(request.remote, gateway.settings.trusted_networks())
    return Wish(
        model=model,
        plan=plan,
        headers=to_upstream(request.headers, identity, trusted=trusted),
        request_id=identity,
        key=affinity_key(model.policy, request.headers.get(SESSION), body),
        buffered=buffered,
        only=only,
        once=once,
        visit=visit,
        document=body,
    )


def dumps(body: dict[str, Any]) -> bytes:
    """Compact JSON. Raises ``BadRequestError`` for what is nested too deeply."""
    return _written(body).encode("utf-8", "surrogatepass")


async def answer_object(opened: Opened) -> dict[str, Any]:
    """The JSON object that an engine answered with 200, read to its end.

    Raises the engine's own refusal (its status and words) or ``UpstreamError`` for what cannot be understood.
    """
    body = opened.first + await whole(opened.response)
    if opened.response.status >= 400:
        raise refusal(opened, body)
    data = read_answer(body)
    if not isinstance(data, dict):
        raise UpstreamError(
            f"{opened.replica.id} answered with something that is no JSON object", code="upstream_garbled"
        )
    return data


def refusal(opened: Opened, body: bytes) -> ModelyardError:
    """The error for an answer with a status of 400 or more: a 4xx is passed on with the engine's words."""
    status = opened.response.status
    said = _words(read_answer(body)) or f"it answered {status}"
    if status >= 500:
        return UpstreamError(f"{opened.replica.id} failed: {said}", code="upstream_failed")
    return ModelyardError(f"the engine refused: {said}", status=status, code="upstream_refused")


def read_answer(body: bytes) -> Any:
    """The JSON that an engine answered; ``None`` when it is none."""
    try:
        return read(body)
    except ValueError:
        return None


def told_by(opened: Opened) -> dict[str, str]:
    """The headers that tell which replica answered, and after how many attempts."""
    return {REPLICA: opened.replica.id, ATTEMPTS: str(opened.attempts)}


def _written(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except RecursionError as exc:
        # reading goes a little deeper than writing, which begins further up the stack
        raise BadRequestError("the body is nested too deeply", code="malformed_json") from exc


def _words(data: Any) -> str | None:
    for key in ("error", "detail", "message"):
        value = data.get(key) if isinstance(data, dict) else None
        if isinstance(value, dict):
            value = value.get("message")
        if isinstance(value, str) and value:
            return value[:500]
    return None
