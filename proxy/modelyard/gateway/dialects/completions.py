"""Chat and text completions for every engine and every client: as they are, or translated both ways."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from aiohttp import web

from modelyard.errors import UpstreamError
from modelyard.registry.model import DEFAULT_MODEL_NAMES, Model

from ..answers import Shape
from ..context import Gateway
from ..forward import Call, Opened
from ..keys import REQUEST_ID_KEY
from ..relay import relay
from ..replicas import Replica
from .limits import limited
from .streams import Chained, StreamTranslator, reading
from .tgi.chat import TEXT_GENERATION, ForReader, for_reader, without_nulls
from .to_tgi.reply import Head, from_generate
from .to_tgi.request import Wanted, to_generate
from .to_tgi.stream import TgiToChunks
from .translated import relay_translated
from .wishes import answer_object, dumps, make_wish, told_by

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"


@dataclass(frozen=True, slots=True)
class Asking:
    """One request. ``name`` is what the client calls the model; ``raw`` is the body as it came."""

    path: str
    model: Model
    name: str
    body: dict[str, Any]
    raw: bytes
    shape: Shape

    @property
    def chat(self) -> bool:
        """Whether it is a chat."""
        return self.path == CHAT

    @property
    def stream(self) -> bool:
        """Whether the answer comes in events."""
        return self.body.get("stream") is True

    @property
    def from_tgi_client(self) -> bool:
        """Whether a client of TGI sent it, which may send nulls."""
        return self.shape is Shape.TGI or self.body.get("model") in DEFAULT_MODEL_NAMES

    @property
    def for_reader(self) -> bool:
        """Whether the answer is read by a client that insists on TGI's keys and knows no ``[DONE]``."""
        return self.chat and (self.shape is Shape.TGI or self.body.get("model") == TEXT_GENERATION)


async def answered(gateway: Gateway, request: web.Request, asking: Asking) -> web.StreamResponse:
    """The answer to ``asking``.

    An engine that speaks OpenAI's API gets the body as it came, with ``model`` rewritten where it knows the
    model by another name, and its answer passes byte for byte, unless TGI's clients need it otherwise.
    """
    body, raw = limited(asking.model, asking.path, asking.body, asking.raw)
    asking = replace(asking, body=body, raw=raw)

    @cache
    def generating() -> tuple[bytes, Wanted]:
        body, wanted = to_generate({**asking.body, "model": asking.name}, chat=asking.chat)
        return dumps(body), wanted

    plan = _plan(asking, lambda: generating()[0])
    translating = asking.for_reader or any(
        not replica.engine.speaks("openai") for replica in gateway.pool.of_model(asking.model.id)
    )
    wish = make_wish(
        gateway, request, asking.model, asking.body, plan, buffered=translating and not asking.stream
    )
    identity: str = request[REQUEST_ID_KEY]
    head = Head(identity, int(gateway.clock()))
    async with gateway.forwarder.open(wish) as opened:
        native = opened.replica.engine.speaks("openai")
        if native and not asking.for_reader:
            return await relay(request, opened, asking.shape, identity)
        if not asking.stream:
            answer = await answer_object(opened)
            if not native:
                with reading():
                    answer = _made(opened, answer, generating()[1], head)
            return web.json_response(
                for_reader(answer) if asking.for_reader else answer, headers=told_by(opened)
            )
        return await relay_translated(
            request, opened, _translator(asking, None if native else generating()[1], head)
        )


def _translator(asking: Asking, wanted: Wanted | None, head: Head) -> StreamTranslator:
    """What stands between engine and client; ``wanted`` where the engine speaks TGI's API only."""
    single_tool = asking.body.get("model") == TEXT_GENERATION
    reader = ForReader(head.request_id, single_tool=single_tool, shape=asking.shape)
    if wanted is None:
        return reader
    chunks = TgiToChunks(wanted, head, head.request_id)
    return Chained(chunks, reader) if asking.for_reader else chunks


def _plan(asking: Asking, generate: Callable[[], bytes]) -> Callable[[Replica], Call]:
    stripped = without_nulls(asking.body) if asking.from_tgi_client else asking.body

    @cache
    def named(served_name: str) -> bytes:
        if stripped == asking.body and asking.body.get("model") == served_name:
            return asking.raw
        return dumps({**stripped, "model": served_name})

    def plan(replica: Replica) -> Call:
        if replica.engine.speaks("openai"):
            return Call(asking.path, named(replica.endpoint.served_name))
        return Call("/generate_stream" if asking.stream else "/generate", generate())

    return plan


def _made(opened: Opened, answer: dict[str, Any], wanted: Wanted, head: Head) -> dict[str, Any]:
    told = opened.response.headers.get("x-prompt-tokens", "")
    made = from_generate(answer, wanted, head, int(told) if told.isdecimal() and len(told) < 10 else None)
    if made is None:
        raise UpstreamError(f"{opened.replica.id} answered without any text", code="upstream_garbled")
    return made
