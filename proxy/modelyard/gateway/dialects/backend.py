"""The generation backend's API: ``/models``, ``/models/{id}/health`` and ``/generate`` with a prompt."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from modelyard.errors import BadRequestError, UpstreamError
from modelyard.registry.model import Model

from ..context import Gateway
from ..forward import Call
from ..replicas import Replica
from .bodies import number_field, text_field
from .limits import bounded, check_size
from .wishes import answer_object, dumps, make_wish, told_by

_DEFAULT_NEW_TOKENS = 200
_UNPROCESSABLE = 422


async def generate(
    gateway: Gateway, request: web.Request, body: dict[str, Any], raw: bytes
) -> web.StreamResponse:
    """``{"model_id", "prompt", ...}`` -> ``{"generated_text", "model_id"}``, whichever API the engine
    speaks.
    """
    name = text_field(body, "model_id", status=_UNPROCESSABLE)
    prompt = text_field(body, "prompt", status=_UNPROCESSABLE)
    options = {
        "max_new_tokens": number_field(body, "max_new_tokens", status=_UNPROCESSABLE, whole=True, least=1)
        or _DEFAULT_NEW_TOKENS,
        "temperature": number_field(body, "temperature", status=_UNPROCESSABLE, most=100),
        "top_p": number_field(body, "top_p", status=_UNPROCESSABLE, most=1),
        "repetition_penalty": number_field(
            body, "repetition_penalty", status=_UNPROCESSABLE, least=1e-3, most=100
        ),
    }
    model = gateway.model(name, param="model_id")
    if model.task != "generate":
        raise BadRequestError(
            f"model {name!r} is for the task {model.task!r}, not for generating text",
            code="wrong_task",
            param="model_id",
        )

    check_size(model, len(raw))
    options = bounded(model.limits, options, ("max_new_tokens",), status=_UNPROCESSABLE)

    def plan(replica: Replica) -> Call:
        if replica.engine.speaks("tgi"):
            return Call("/generate", dumps(_for_tgi(prompt, options)))
        return Call("/v1/completions", dumps(_for_openai(prompt, options, replica.endpoint.served_name)))

    async with gateway.forwarder.open(
        make_wish(gateway, request, model, body, plan, buffered=True)
    ) as opened:
        answer = await answer_object(opened)
        text = generated_text(answer)
        if text is None:
            raise UpstreamError(f"{opened.replica.id} answered without any text", code="upstream_garbled")
        return web.json_response({"generated_text": text, "model_id": name}, headers=told_by(opened))


def _for_tgi(prompt: str, options: dict[str, Any]) -> dict[str, Any]:
    parameters: dict[str, Any] = {"max_new_tokens": options["max_new_tokens"]}
    # TGI refuses a temperature of 0 and a top_p of 1, which both mean "without": greedy, and everything
    temperature = options["temperature"]
    if temperature:
        parameters |= {"temperature": temperature, "do_sample": True}
        if options["top_p"] and options["top_p"] < 1:
            parameters["top_p"] = options["top_p"]
    elif temperature is None and options["top_p"] and options["top_p"] < 1:
        parameters |= {"top_p": options["top_p"], "do_sample": True}
    elif temperature == 0:
        parameters["do_sample"] = False
    if options["repetition_penalty"] is not None:
        parameters["repetition_penalty"] = options["repetition_penalty"]
    return {"inputs": prompt, "parameters": parameters}


def _for_openai(prompt: str, options: dict[str, Any], served_name: str) -> dict[str, Any]:
    body: dict[str, Any] = {"model": served_name, "prompt": prompt, "max_tokens": options["max_new_tokens"]}
    if options["temperature"] is not None:
        body["temperature"] = options["temperature"]
    # OpenAI's API wants top_p above 0; 0 means the one most likely token, as temperature 0 does
    if options["top_p"] == 0:
        body["temperature"] = 0
    elif options["top_p"] is not None:
        body["top_p"] = options["top_p"]
    # vLLM's own addition to OpenAI's API; 1 is its default, which plain OpenAI servers need not be shown
    if options["repetition_penalty"] not in (None, 1, 1.0):
        body["repetition_penalty"] = options["repetition_penalty"]
    return body


def generated_text(answer: Any) -> str | None:
    """The text in an answer of TGI's ``/generate`` or OpenAI's ``/v1/completions``; ``None`` when there is
    none.
    """
    if isinstance(answer.get("generated_text"), str):
        return str(answer["generated_text"])
    choices = answer.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        text = choices[0].get("text")
        return text if isinstance(text, str) else None
    return None


def list_models(gateway: Gateway) -> list[dict[str, Any]]:
    """``GET /models``."""
    return [
        {
            "id": model.id,
            "name": model.name,
            "hf_name": model.hf_name or model.id,
            "endpoint": _endpoint(gateway, model),
            "available": gateway.balancer.available(model.id),
        }
        for model in gateway.keeper.current.models.values()
    ]


def model_health(gateway: Gateway, name: str) -> dict[str, Any]:
    """``GET /models/{id}/health``. Raises ``ModelNotFoundError``."""
    model = gateway.find(name, param="model_id")
    healthy = gateway.balancer.available(model.id)
    return {
        "model_id": name,
        "endpoint": _endpoint(gateway, model),
        "healthy": healthy,
        "status": "available" if healthy else "unavailable",
    }


def _endpoint(gateway: Gateway, model: Model) -> str | None:
    """The address shown for a model: of a usable replica where there is one."""
    usable = gateway.balancer.usable(model.id) or gateway.pool.of_model(model.id)
    return usable[0].endpoint.url if usable else None
