"""TGI's routes: POST /, /generate, /generate_stream, /info, /health, /tokenize, /chat_tokenize.

Wire format as TGI's router 3.3 serves it and as its Python clients read it: ``POST /`` wraps a plain answer
in a list, streams have no ``[DONE]``, and an error inside a stream arrives with status 200.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from modelyard.engines.echo.bodies import BadBody, read_object
from modelyard.engines.echo.model import Finish, Piece, generate, token_id, tokenize
from modelyard.engines.echo.openai_request import chat_messages, templated
from modelyard.engines.echo.runtime import OverloadedError, Runtime
from modelyard.engines.echo.sse import EventStream
from modelyard.engines.echo.tgi_request import MAX_BEST_OF, MAX_STOPS, TgiError, TgiRequest, tgi_request

_REASONS = {Finish.END: "eos_token", Finish.LENGTH: "length", Finish.STOP: "stop_sequence"}


@dataclass(slots=True)
class Generated:
    """One finished or growing answer."""

    tokens: list[Piece]

    @property
    def text(self) -> str:
        """All that was generated."""
        return "".join(piece.text for piece in self.tokens)

    @property
    def reason(self) -> str:
        """TGI's word for why it ended."""
        finish = self.tokens[-1].finish
        return _REASONS[finish] if finish is not None else ""


@dataclass(frozen=True, slots=True)
class Spent:
    """Where the time of one request went, in seconds."""

    queue: float
    inference: float
    total: float


class TgiRoutes:
    """The handlers; ``draining`` says whether the engine is about to stop."""

    def __init__(self, runtime: Runtime, version: str, draining: Callable[[], bool]) -> None:
        self._runtime = runtime
        self._version = version
        self._draining = draining

    def routes(self) -> list[web.RouteDef]:
        """The route table of this dialect; ``/tokenize`` is shared with vLLM's."""
        return [
            web.get("/", self.health),
            web.get("/health", self.health),
            web.get("/ping", self.health),
            web.get("/info", self.info),
            web.post("/", self.compatible),
            web.post("/generate", self.generate),
            web.post("/generate_stream", self.generate_stream),
            web.post("/chat_tokenize", self.chat_tokenize),
        ]

    async def health(self, request: web.Request) -> web.Response:
        """200 with nothing in it while requests are taken."""
        if self._draining():
            return error_response(TgiError(503, "The engine is stopping", "healthcheck"))
        return web.Response()

    async def info(self, request: web.Request) -> web.Response:
        """What is served and its limits; ``max_input_tokens`` and ``max_total_tokens`` count tokens."""
        settings = self._runtime.settings
        return web.json_response(
            {
                "model_id": settings.models[0],
                "model_sha": None,
                "model_pipeline_tag": "text-generation",
                "max_concurrent_requests": settings.max_concurrency or 1_000_000,
                "max_best_of": MAX_BEST_OF,
                "max_stop_sequences": MAX_STOPS,
                "max_input_tokens": settings.max_model_len - 1,
                "max_total_tokens": settings.max_model_len,
                "validation_workers": 1,
                "max_client_batch_size": 1,
                "router": "modelyard-echo",
                "version": self._version,
                "sha": None,
                "docker_label": None,
            }
        )

    async def compatible(self, request: web.Request) -> web.StreamResponse:
        """POST /: what TGI's clients call; ``stream`` in the body chooses the form of the answer."""
        try:
            data = await read_object(request)
            wanted = data.get("stream")
            if wanted is not None and not isinstance(wanted, bool):
                raise BadBody("`stream` must be true or false", "stream")
            return await self._answer(request, tgi_request(data, stream=bool(wanted)), listed=True)
        except BadBody as exc:
            return error_response(TgiError.validation(exc.message))

    async def generate(self, request: web.Request) -> web.StreamResponse:
        """POST /generate: one object."""
        return await self._parsed(request, stream=False)

    async def generate_stream(self, request: web.Request) -> web.StreamResponse:
        """POST /generate_stream: one event for each token."""
        return await self._parsed(request, stream=True)

    async def tokenize(self, request: web.Request) -> web.Response:
        """The tokens of ``inputs`` with their character offsets."""
        try:
            return web.json_response(_offsets(tgi_request(await read_object(request), stream=False).inputs))
        except BadBody as exc:
            return error_response(TgiError.validation(exc.message))

    async def chat_tokenize(self, request: web.Request) -> web.Response:
        """The templated text of a chat and its tokens."""
        try:
            text = templated(chat_messages((await read_object(request)).get("messages")))
        except BadBody as exc:
            return error_response(TgiError.validation(exc.message))
        return web.json_response({"tokenize_response": _offsets(text), "templated_text": text})

    async def _parsed(self, http: web.Request, *, stream: bool) -> web.StreamResponse:
        try:
            request = tgi_request(await read_object(http), stream=stream)
        except BadBody as exc:
            return error_response(TgiError.validation(exc.message))
        return await self._answer(http, request, listed=False)

    async def _answer(self, http: web.Request, request: TgiRequest, *, listed: bool) -> web.StreamResponse:
        asked = self._runtime.clock()
        prompt = tokenize(request.prompt)
        try:
            request.verify(len(prompt), self._runtime.settings.max_model_len)
            async with self._runtime.place(wait=False) as queued:
                self._runtime.metrics.prompt_tokens.inc(len(prompt))
                if request.stream:
                    return await self._stream(http, request, len(prompt))
                return await self._plain(request, prompt, asked, queued, listed=listed)
        except OverloadedError:
            error = TgiError.overloaded()
        except TgiError as exc:
            error = exc
        if not request.stream:
            return error_response(error)
        stream = EventStream(http, b"data:", _stream_headers(request))
        await stream.begin()
        await stream.send(error.body())
        return await stream.end()

    async def _plain(
        self, request: TgiRequest, prompt: list[str], asked: float, queued: float, *, listed: bool
    ) -> web.Response:
        begun = self._runtime.clock()
        answers = [Generated([]) for _ in range(request.best_of)]
        for rotate, answer in enumerate(answers):
            async for piece in self._runtime.paced(generate(request.prompt, request.params(rotate))):
                self._runtime.metrics.tokens.inc()
                answer.tokens.append(piece)
        now = self._runtime.clock()
        body: dict[str, Any] = {"generated_text": _text(request, answers[0])}
        if request.details:
            body["details"] = _details(request, prompt, answers)
        headers = _headers(
            request, len(prompt), len(answers[0].tokens), Spent(queued, now - begun, now - asked)
        )
        return web.json_response([body] if listed else body, headers=headers)

    async def _stream(self, http: web.Request, request: TgiRequest, prompt_tokens: int) -> web.StreamResponse:
        stream = EventStream(http, b"data:", _stream_headers(request))
        await stream.begin()
        answer = Generated([])
        async for piece in self._runtime.paced(generate(request.prompt, request.params(0))):
            self._runtime.metrics.tokens.inc()
            answer.tokens.append(piece)
            event: dict[str, Any] = {"index": piece.index + 1, "token": _token(piece.token)}
            if request.top_n_tokens:
                event["top_tokens"] = [_token(piece.token)]
            last = piece.finish is not None
            event["generated_text"] = _text(request, answer) if last else None
            event["details"] = None
            if last and request.details:
                event["details"] = {**_outcome(request, answer), "input_length": prompt_tokens}
            await stream.send(event)
        return await stream.end()


def error_response(error: TgiError) -> web.Response:
    """TGI's error object with its status."""
    return web.json_response(error.body(), status=error.status)


def _token(text: str) -> dict[str, Any]:
    # The answer is certain: probability 1, logarithm 0.
    return {"id": token_id(text), "text": text, "logprob": 0.0, "special": False}


def _offsets(text: str) -> list[dict[str, Any]]:
    found, start = [], 0
    for token in tokenize(text):
        found.append({"id": token_id(token), "text": token, "start": start, "stop": start + len(token)})
        start += len(token)
    return found


def _text(request: TgiRequest, answer: Generated) -> str:
    return request.inputs + answer.text if request.return_full_text else answer.text


def _outcome(request: TgiRequest, answer: Generated) -> dict[str, Any]:
    return {"finish_reason": answer.reason, "generated_tokens": len(answer.tokens), "seed": request.seed}


def _details(request: TgiRequest, prompt: list[str], answers: list[Generated]) -> dict[str, Any]:
    prefill = [
        {"id": token_id(token), "text": token, "logprob": None if place == 0 else 0.0}
        for place, token in enumerate(prompt)
    ]

    def told(answer: Generated) -> dict[str, Any]:
        tokens = [_token(piece.token) for piece in answer.tokens]
        body = {
            **_outcome(request, answer),
            "prefill": prefill if request.decoder_input_details else [],
            "tokens": tokens,
        }
        if request.top_n_tokens:
            body["top_tokens"] = [[token] for token in tokens]
        return body

    body = told(answers[0])
    if len(answers) > 1:
        body["best_of_sequences"] = [
            {"generated_text": _text(request, answer), **told(answer)} for answer in answers[1:]
        ]
    return body


def _headers(request: TgiRequest, prompt_tokens: int, generated: int, spent: Spent) -> dict[str, str]:
    """TGI's accounting headers. ``x-compute-time`` is in seconds, the other times in milliseconds."""

    def ms(seconds: float) -> str:
        return str(round(seconds * 1000))

    return {
        "x-compute-type": "cpu+modelyard-echo",
        "x-compute-time": f"{spent.total:.6f}",
        "x-compute-characters": str(len(request.inputs)),
        "x-total-time": ms(spent.total),
        "x-validation-time": ms(max(0.0, spent.total - spent.queue - spent.inference)),
        "x-queue-time": ms(spent.queue),
        "x-inference-time": ms(spent.inference),
        "x-time-per-token": ms(spent.inference / max(1, generated)),
        "x-prompt-tokens": str(prompt_tokens),
        "x-generated-tokens": str(generated),
    }


def _stream_headers(request: TgiRequest) -> dict[str, str]:
    return {
        "x-compute-type": "cpu+modelyard-echo",
        "x-compute-characters": str(len(request.inputs)),
        "X-Accel-Buffering": "no",
    }
