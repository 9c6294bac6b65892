"""Speech to text: a multipart form goes to the engine while it still comes in, and is never held.

Which model is meant must be known before the first byte can go: from the header ``X-Model`` or the query's
``model``, else from the form's field ``model`` where it stands before the file, else it is the default: the
first model of the registry that transcribes. A field that names another model further on ends the request.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from aiohttp import web
from aiohttp.web import RequestPayloadError

from modelyard.errors import BadRequestError, BodyTimeoutError, BodyTooLargeError, ModelNotFoundError
from modelyard.registry.model import Model

from ..context import Gateway
from ..forward import Call
from ..keys import REQUEST_ID_KEY, SHAPE
from ..relay import relay
from ..replicas import Replica
from .forms import FieldValue, FormScanner, parameter
from .limits import check_size
from .passing import for_task, not_served
from .wishes import make_wish

_FIELD = "model"


async def heard(gateway: Gateway, request: web.Request, path: str) -> web.StreamResponse:
    """``/v1/audio/transcriptions`` and ``/v1/audio/translations``."""
    form = IncomingForm(gateway, request)
    named = request.headers.get("X-Model") or request.query.get("model")
    if not named:
        named = await form.named_before_file()
    model = gateway.model(named, param="model") if named else _default(gateway)
    form.model = for_task(model, named or model.id, path)
    check_size(model, request.content_length or 0)

    def plan(replica: Replica) -> Call:
        if not replica.engine.serves(model.task, path):
            raise not_served(model, replica, path)
        return Call(path, form.pieces(replica.endpoint.served_name))

    wish = make_wish(gateway, request, model, {}, plan, once=lambda: form.begun)
    wish.headers["Content-Type"] = request.headers["Content-Type"]
    async with gateway.forwarder.open(wish) as opened:
        return await relay(request, opened, request[SHAPE], request[REQUEST_ID_KEY])


class IncomingForm:
    """A client's form on its way. ``begun``: an engine has got some of it."""

    def __init__(self, gateway: Gateway, request: web.Request) -> None:
        boundary = _boundary(request)
        self._gateway = gateway
        self._request = request
        self._scanner = FormScanner(boundary, _FIELD)
        self._held: list[bytes | FieldValue] = []
        self._size = 0
        self._due = asyncio.get_running_loop().time() + gateway.settings.body_timeout_s
        self.model: Model | None = None
        self.begun = False

    async def named_before_file(self) -> str | None:
        """The name in the form, where it stands before the file. What has been read is kept for ``pieces``."""
        while not self._scanner.file_begun:
            data = await self._read()
            if not data:
                break
            self._held += self._scanner.feed(data)
            for item in self._held:
                # a later one counts as later even when it has come already: what a form means must not depend
                # on how it was cut
                if isinstance(item, FieldValue) and item.early:
                    return _said(item)
        return None

    async def pieces(self, served_name: str) -> AsyncIterator[bytes]:
        """The form for an engine that knows the model by ``served_name``. Raises ``BadRequestError`` when it
        names another model, or ends too early.
        """
        self.begun = True
        held, self._held = self._held, []
        for item in held:
            yield self._told(item, served_name)
        while data := await self._read():
            for item in self._scanner.feed(data):
                yield self._told(item, served_name)
        if not self._scanner.over:
            raise BadRequestError("the form ends before its last boundary")

    def _told(self, item: bytes | FieldValue, served_name: str) -> bytes:
        if isinstance(item, bytes):
            return item
        name = _said(item)
        if self._gateway.keeper.current.resolve(name) is not self.model:
            raise BadRequestError(
                f"the form's field 'model' says {name[:100]!r}, which is not the model that the request went to; "
                "send the field before the file, or the same name in the header X-Model",
                code="model_disagrees",
                param="model",
            )
        return served_name.encode()

    async def _read(self) -> bytes:
        try:
            async with asyncio.timeout_at(self._due):
                data = await self._request.content.readany()
        except TimeoutError as exc:
            raise BodyTimeoutError(
                f"the body was not whole within {self._gateway.settings.body_timeout_s:g} s; "
                "send it faster, or ask the operator for more time"
            ) from exc
        except RequestPayloadError as exc:
            raise BadRequestError("the body cannot be read; send it plain") from exc
        self._size += len(data)
        most = self._gateway.settings.max_body_bytes
        if self._size > most:
            raise BodyTooLargeError(
                f"the body is larger than {most} bytes; send less, or ask the operator to raise the limit"
            )
        if self.model is not None:
            check_size(self.model, self._size)
        return data


def _boundary(request: web.Request) -> str:
    kind = request.content_type
    boundary = request.headers.get("Content-Type", "") and _parameter(request)
    if kind != "multipart/form-data" or not boundary:
        raise BadRequestError(
            "send a form: Content-Type multipart/form-data with a boundary, the audio in its field 'file'"
        )
    return boundary


def _parameter(request: web.Request) -> str | None:
    found = parameter(request.headers["Content-Type"], "boundary")
    return found if found is not None and len(found) <= 200 and found.isascii() else None


def _said(field: FieldValue) -> str:
    return field.raw.decode("utf-8", "replace").strip()


def _default(gateway: Gateway) -> Model:
    for model in gateway.keeper.current.models.values():
        if model.task == "transcribe":
            return gateway.model(model.id, param="model")
    raise ModelNotFoundError("the registry has no model that transcribes", param="model")
