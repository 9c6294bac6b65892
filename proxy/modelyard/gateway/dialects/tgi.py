"""TGI's ``/generate`` with ``inputs``: untouched to an engine that speaks it, translated for one that does
not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from modelyard.errors import InvalidFieldError, NotSupportedError, UpstreamError

from ..answers import Shape
from ..context import Gateway
from ..forward import Call
from ..keys import REQUEST_ID_KEY
from ..relay import relay
from ..replicas import Replica
from .backend import generated_text
from .bodies import number_field, text_field
from .wishes import answer_object, dumps, make_wish, told_by

_UNPROCESSABLE = 422
_DEFAULT_NEW_TOKENS = 100
# what an OpenAI server has no word for; refused when set, because ignoring it would change the text
_UNTRANSLATABLE = ("grammar", "adapter_id", "typical_p", "watermark", "decoder_input_details", "top_n_tokens")
# TGI's name -> vLLM's; the last two are vLLM's additions to OpenAI's API
_SAME_MEANING = {
    "temperature": "temperature",
    "top_p": "top_p",
    "seed": "seed",
    "frequency_penalty": "frequency_penalty",
    "best_of": "n",
    "top_k": "top_k",
    "repetition_penalty": "repetition_penalty",
    "truncate": "truncate_prompt_tokens",
}
_SAMPLING = ("temperature", "top_p", "top_k", "typical_p", "best_of")


async def generate(
    gateway: Gateway, request: web.Request, body: dict[str, Any], raw: bytes
) -> web.StreamResponse:
    """``{"inputs", "parameters"}`` -> ``{"generated_text", "details"?}``.

    The model is the one in the header ``X-Model``, or the default.
    """
    text_field(body, "inputs", status=_UNPROCESSABLE)
    parameters = body.get("parameters")
    if parameters is None:
        parameters = {}
    if not isinstance(parameters, dict):
        raise InvalidFieldError("'parameters' must be an object", status=_UNPROCESSABLE, param="parameters")
    name = request.headers.get("X-Model")
    model = gateway.model(name, param="X-Model") if name else gateway.default_model(param="X-Model")
    if model.task != "generate":
        raise InvalidFieldError(
            f"model {model.id!r} is for the task {model.task!r}, not for generating text",
            status=_UNPROCESSABLE,
            param="X-Model",
        )
    translated: dict[str, bytes] = {}

    def plan(replica: Replica) -> Call:
        if replica.engine.speaks("tgi"):
            return Call("/generate", raw)
        served = replica.endpoint.served_name
        if served not in translated:
            translated[served] = dumps(to_completion(body["inputs"], parameters, served))
        return Call("/v1/completions", translated[served])

    # A translated answer is needed whole; one that passes untouched is short too, and whole it can still be
    # retried.
    async with gateway.forwarder.open(
        make_wish(gateway, request, model, body, plan, buffered=True)
    ) as opened:
        if opened.replica.engine.speaks("tgi"):
            return await relay(request, opened, Shape.TGI, request[REQUEST_ID_KEY])
        answer = answer_object(opened)
        reply = from_completion(answer, body["inputs"], parameters)
        if reply is None:
            raise UpstreamError(f"{opened.replica.id} answered without any text", code="upstream_garbled")
        return web.json_response(reply, headers=told_by(opened))


def to_completion(inputs: str, parameters: Mapping[str, Any], served_name: str) -> dict[str, Any]:
    """The body of ``/v1/completions`` that means what TGI's request means.

    TGI generates greedily unless a sampling parameter is set; OpenAI's API samples unless told otherwise.
    Nulls are dropped. Raises ``NotSupportedError`` for what cannot be said and ``InvalidFieldError`` for a
    bad value.
    """
    for name in _UNTRANSLATABLE:
        if parameters.get(name):
            raise NotSupportedError(
                f"the engine of this model has no {name!r}; leave it out, or use a model that TGI serves",
                param=name,
            )
    best_of = number_field(dict(parameters), "best_of", status=_UNPROCESSABLE, whole=True, least=1)
    if best_of is not None and best_of > 1:
        raise NotSupportedError(
            "the engine of this model has no 'best_of' above 1; leave it out", param="best_of"
        )
    count = number_field(dict(parameters), "max_new_tokens", status=_UNPROCESSABLE, whole=True, least=1)
    body: dict[str, Any] = {
        "model": served_name,
        "prompt": inputs,
        "max_tokens": count if count is not None else _DEFAULT_NEW_TOKENS,
    }
    for name, theirs in _SAME_MEANING.items():
        value = number_field(dict(parameters), name, status=_UNPROCESSABLE, least=-(2.0**64))
        if value is not None and name != "best_of":
            body[theirs] = value
    stop = parameters.get("stop")
    if stop:
        if not isinstance(stop, list) or not all(isinstance(item, str) for item in stop):
            raise InvalidFieldError("'stop' must be a list of texts", status=_UNPROCESSABLE, param="stop")
        body["stop"] = stop
    sampling = parameters.get("do_sample") or any(parameters.get(name) is not None for name in _SAMPLING)
    if not sampling:
        body["temperature"] = 0
    return body


def from_completion(
    answer: dict[str, Any], inputs: str, parameters: Mapping[str, Any]
) -> dict[str, Any] | None:
    """TGI's reply for a completion, ``details`` included where asked for; ``None`` when there is no text in
    it.
    """
    text = generated_text(answer)
    if text is None:
        return None
    reply: dict[str, Any] = {"generated_text": inputs + text if parameters.get("return_full_text") else text}
    if parameters.get("details"):
        choice = answer["choices"][0]
        usage = answer.get("usage")
        reply["details"] = {
            "finish_reason": _finish_reason(choice),
            "generated_tokens": usage.get("completion_tokens", 0) if isinstance(usage, dict) else 0,
            "seed": parameters.get("seed"),
            "prefill": [],
            "tokens": [],
        }
    return reply


def _finish_reason(choice: Mapping[str, Any]) -> str:
    if choice.get("finish_reason") == "length":
        return "length"
    # vLLM tells which stop string ended the text; without one it was the end-of-sequence token
    return "stop_sequence" if isinstance(choice.get("stop_reason"), str) else "eos_token"
