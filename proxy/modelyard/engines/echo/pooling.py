"""What is no generation: embeddings, ranks, scores, classes, tokens and sound, in the shapes that vLLM serves.

Everything is told by the words of a text, so that like texts have like embeddings and answers can be foretold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine
from typing import Any

from aiohttp import BodyPartReader, web

from modelyard.engines.echo.bodies import BadBody, Fields, read_object
from modelyard.engines.echo.model import token_id, tokenize
from modelyard.engines.echo.openai_request import OpenAIError, chat_messages, templated
from modelyard.engines.echo.runtime import Runtime

_SIZE = 16
_CLASSES = ("even", "odd")

Handler = Callable[[web.Request], Coroutine[Any, Any, web.StreamResponse]]


def embedding(text: str) -> list[float]:
    """A unit vector of 16 numbers: how often the words fall into each of 16 baskets."""
    counts = [0.0] * _SIZE
    for token in tokenize(text) or [""]:
        counts[token_id(token.strip()) % _SIZE] += 1.0
    length = math.sqrt(sum(value * value for value in counts))
    return [value / length for value in counts]


def likeness(one: str, other: str) -> float:
    """The cosine between two embeddings, 0 to 1."""
    return sum(a * b for a, b in zip(embedding(one), embedding(other), strict=True))


class PoolingRoutes:
    """The handlers; ``refuse`` makes the response for an error."""

    def __init__(self, runtime: Runtime, refuse: Callable[[OpenAIError], web.Response]) -> None:
        self._runtime = runtime
        self._refuse = refuse

    def routes(self) -> list[web.RouteDef]:
        """The route table."""
        table: dict[str, Callable[[Fields], dict[str, Any]]] = {
            "/v1/embeddings": self._embeddings,
            "/v2/embed": self._cohere,
            "/pooling": self._embeddings,
            "/classify": self._classes,
            "/v1/rerank": self._ranks,
            "/v2/rerank": self._ranks,
            "/rerank": self._ranks,
            "/v1/score": self._scores,
            "/score": self._scores,
            "/detokenize": self._text,
        }
        return [
            *(web.post(path, self._answering(answer)) for path, answer in table.items()),
            web.post("/v1/audio/transcriptions", self.heard),
            web.post("/v1/audio/translations", self.heard),
            web.post("/v1/audio/speech", self.spoken),
        ]

    async def tokens(self, request: web.Request) -> web.StreamResponse:
        """VLLM's ``/tokenize``."""
        return await self._answering(self._tokens)(request)

    async def heard(self, request: web.Request) -> web.StreamResponse:
        """A sound says its own bytes, as far as they are text."""
        fields: dict[str | None, bytes] = {}
        try:
            async for part in await request.multipart():
                if isinstance(part, BodyPartReader):
                    fields[part.name] = bytes(await part.read())
        except (ValueError, AssertionError):
            return self._refuse(OpenAIError(400, "The body is no form.", "invalid_body"))
        name = fields.get("model", b"").decode("utf-8", "replace")
        if name and name not in self._runtime.settings.models:
            return self._refuse(
                OpenAIError(404, f"The model `{name}` does not exist here.", "model_not_found")
            )
        if "file" not in fields:
            return self._refuse(OpenAIError(400, "`file` is missing", "invalid_value", "file"))
        text = fields["file"].decode("utf-8", "replace")
        return web.json_response({"text": text, "usage": {"type": "duration", "seconds": 1}})

    async def spoken(self, request: web.Request) -> web.StreamResponse:
        """The text itself, as bytes that call themselves a sound."""
        try:
            fields = await self._fields(request)
            text = fields.text("input")
            if not text:
                raise fields.bad("input", "is missing")
        except BadBody as exc:
            return self._refuse(OpenAIError.of(exc))
        except OpenAIError as exc:
            return self._refuse(exc)
        return web.Response(body=text.encode(), content_type="audio/wav")

    def _answering(self, answer: Callable[[Fields], dict[str, Any]]) -> Handler:
        async def handler(request: web.Request) -> web.StreamResponse:
            try:
                fields = await self._fields(request)
                async with self._runtime.place(wait=True):
                    return web.json_response(answer(fields))
            except BadBody as exc:
                return self._refuse(OpenAIError.of(exc))
            except OpenAIError as exc:
                return self._refuse(exc)

        return handler

    async def _fields(self, request: web.Request) -> Fields:
        fields = Fields(await read_object(request))
        name = fields.text("model")
        if name is not None and name not in self._runtime.settings.models:
            raise OpenAIError(404, f"The model `{name}` does not exist here.", "model_not_found", "model")
        return fields

    def _embeddings(self, fields: Fields) -> dict[str, Any]:
        texts = _texts(fields, "input")
        data = [
            {"index": place, "object": "embedding", "embedding": embedding(text)}
            for place, text in enumerate(texts)
        ]
        return self._told("embd-echo", "list", texts, data=data)

    def _cohere(self, fields: Fields) -> dict[str, Any]:
        texts = _texts(fields, "texts")
        return {
            "id": "embed-echo",
            "embeddings": {"float": [embedding(text) for text in texts]},
            "texts": texts,
        }

    def _classes(self, fields: Fields) -> dict[str, Any]:
        texts = _texts(fields, "input")
        data = []
        for place, text in enumerate(texts):
            odd = len(tokenize(text)) % 2
            probs = [1.0 - odd, float(odd)]
            data.append({"index": place, "label": _CLASSES[odd], "probs": probs, "num_classes": 2})
        return self._told("classify-echo", "list", texts, data=data)

    def _ranks(self, fields: Fields) -> dict[str, Any]:
        query, documents = fields.text("query") or "", _texts(fields, "documents")
        scored = [(likeness(query, text), place, text) for place, text in enumerate(documents)]
        best = sorted(scored, key=lambda item: (-item[0], item[1]))[: fields.integer("top_n", 1)]
        results = [
            {"index": place, "document": {"text": text}, "relevance_score": score}
            for score, place, text in best
        ]
        told = self._told("rerank-echo", "rerank", [query, *documents], results=results)
        return {name: value for name, value in told.items() if name not in ("object", "created")}

    def _scores(self, fields: Fields) -> dict[str, Any]:
        ones, others = _texts(fields, "text_1"), _texts(fields, "text_2")
        if len(ones) == 1:
            ones *= len(others)
        data = [
            {"index": place, "object": "score", "score": likeness(one, other)}
            for place, (one, other) in enumerate(zip(ones, others, strict=False))
        ]
        return self._told("score-echo", "list", [*ones, *others], data=data)

    def _tokens(self, fields: Fields) -> dict[str, Any]:
        messages = fields.raw("messages")
        text = templated(chat_messages(messages)) if messages is not None else fields.text("prompt") or ""
        words = tokenize(text)
        return {
            "count": len(words),
            "max_model_len": self._runtime.settings.max_model_len,
            "tokens": [token_id(word) for word in words],
            "token_strs": words if fields.flag("return_token_strs") else None,
        }

    def _text(self, fields: Fields) -> dict[str, Any]:
        # there is no vocabulary to look them up in
        return {"prompt": " ".join(str(number) for number in fields.raw("tokens") or [])}

    def _told(self, identity: str, kind: str, read: list[str], **more: Any) -> dict[str, Any]:
        count = sum(len(tokenize(text)) for text in read)
        self._runtime.metrics.prompt_tokens.inc(count)
        return {
            "id": identity,
            "object": kind,
            "created": self._runtime.settings.created,
            "model": self._runtime.settings.models[0],
            **more,
            "usage": {"prompt_tokens": count, "total_tokens": count},
        }


def _texts(fields: Fields, name: str) -> list[str]:
    """One text or a list of them; token numbers stand for a text."""
    value = fields.raw(name)
    listed = value if isinstance(value, list) else [value]
    if listed and all(isinstance(item, int) for item in listed):
        listed = [" ".join(str(item) for item in listed)]
    found = []
    for item in listed:
        if isinstance(item, list):
            item = " ".join(str(number) for number in item)
        if isinstance(item, dict):
            item = item.get("text")
        if not isinstance(item, str):
            raise fields.bad(name, "must be a text or a list of texts")
        found.append(item)
    if not found:
        raise fields.bad(name, "must hold at least one text")
    return found
