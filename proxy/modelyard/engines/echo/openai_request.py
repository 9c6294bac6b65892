"""What an OpenAI client asks for: bodies of /v1/chat/completions and /v1/completions, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelyard.engines.echo.bodies import BadBody, Fields, kind
from modelyard.engines.echo.model import Params, tokenize
from modelyard.engines.echo.runtime import EchoSettings

_MOST_CHOICES = 64
_MOST_STOPS = 16
_DEFAULT_NAMES = ("", "tgi", "dummy")  # what TGI's clients send for "the model that is there"


class OpenAIError(Exception):
    """An error with the parts of OpenAI's error object."""

    def __init__(self, status: int, message: str, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param

    @classmethod
    def of(cls, bad: BadBody) -> OpenAIError:
        """The 400 for a body that cannot be used."""
        return cls(400, bad.message, "invalid_body" if bad.field is None else "invalid_value", bad.field)

    def body(self) -> dict[str, Any]:
        """OpenAI's error object."""
        kinds = {429: "rate_limit_error"}
        kind_ = kinds.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind_, "param": self.param, "code": self.code}}


@dataclass(frozen=True, slots=True)
class OpenAIRequest:
    """One checked request.

    ``echoed`` are the texts to answer, one for each prompt; ``prompt_tokens`` counts what was read for all of
    them; ``prefix`` is True when the answer begins with the prompt (``echo`` of /v1/completions).
    """

    model: str
    echoed: tuple[str, ...]
    prompt_tokens: int
    params: Params
    n: int
    stream: bool
    include_usage: bool
    prefix: bool = False


def templated(messages: list[tuple[str, str]]) -> str:
    """The chat template: role line, text line, and the opening of the answer."""
    return "".join(f"<|{role}|>\n{text}\n" for role, text in messages) + "<|assistant|>\n"


def chat_messages(value: object) -> list[tuple[str, str]]:
    """Check ``messages`` and give (role, text) of each; BadBody when they cannot be used."""
    if not isinstance(value, list) or not value:
        raise BadBody("`messages` must be a list of at least one message", "messages")
    found = []
    for place, message in enumerate(value):
        where = f"messages[{place}]"
        if not isinstance(message, dict):
            raise BadBody(f"`{where}` must be an object, not {kind(message)}", where)
        role = Fields(message, where + ".").text("role")
        if not role:
            raise BadBody(f"`{where}.role` is missing", f"{where}.role")
        found.append((role, _content(message.get("content"), f"{where}.content")))
    return found


def chat_request(data: Mapping[str, Any], settings: EchoSettings) -> OpenAIRequest:
    """Check a body of /v1/chat/completions. The answer echoes the last message."""
    messages = chat_messages(data.get("messages"))
    fields = Fields(data)
    limit = fields.integer("max_completion_tokens", 1)
    limit = fields.integer("max_tokens", 1) if limit is None else limit
    return _request(fields, settings, (messages[-1][1],), [templated(messages)], limit)


def completion_request(data: Mapping[str, Any], settings: EchoSettings) -> OpenAIRequest:
    """Check a body of /v1/completions: one prompt or many, each text or token numbers."""
    fields = Fields(data)
    prompts = _prompts(fields)
    limit = fields.integer("max_tokens", 1)
    return _request(fields, settings, prompts, list(prompts), limit, prefix=fields.flag("echo"))


def _request(
    fields: Fields,
    settings: EchoSettings,
    echoed: tuple[str, ...],
    read: list[str],
    limit: int | None,
    *,
    prefix: bool = False,
) -> OpenAIRequest:
    stream = fields.flag("stream")
    if fields.raw("stream_options") is not None and not stream:
        raise fields.bad("stream_options", "is only allowed together with `stream: true`")
    _ranges(fields)
    lengths = [len(tokenize(text)) for text in read]
    _fits(max(lengths), limit, settings.max_model_len)
    return OpenAIRequest(
        model=_model(fields, settings),
        echoed=echoed,
        prompt_tokens=sum(lengths),
        params=Params(
            max_tokens=limit,
            stops=fields.strings("stop", _MOST_STOPS),
            # vLLM's addition
            include_stop=fields.flag("include_stop_str_in_output"),
        ),
        n=fields.integer("n", 1, _MOST_CHOICES) or 1,
        stream=stream,
        include_usage=fields.child("stream_options").flag("include_usage"),
        prefix=prefix,
    )


def _model(fields: Fields, settings: EchoSettings) -> str:
    name = fields.text("model") or ""
    if name in settings.models:
        return name
    if name in _DEFAULT_NAMES:
        return settings.models[0]
    served = ", ".join(settings.models)
    raise OpenAIError(
        404, f"The model `{name}` does not exist here; served: {served}.", "model_not_found", "model"
    )


def _ranges(fields: Fields) -> None:
    """Refuse sampling values that a real engine refuses, although they change nothing here."""
    for name, low, high in (("temperature", 0.0, 2.0), ("top_p", 0.0, 1.0)):
        value = fields.number(name)
        if value is not None and not low <= value <= high:
            raise fields.bad(name, f"must be between {low:g} and {high:g}, got {value:g}")


def _fits(prompt: int, limit: int | None, most: int) -> None:
    asked = prompt + (limit or 1)
    if asked > most:
        raise OpenAIError(
            400,
            f"This model's context length is {most} tokens; the prompt has {prompt} and {limit or 1} were "
            "asked for. Shorten the prompt or lower max_tokens.",
            "context_length_exceeded",
            "messages" if limit is None else "max_tokens",
        )


def _content(value: object, where: str) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise BadBody(f"`{where}` must be a string or a list of parts, not {kind(value)}", where)
    texts = []
    for place, part in enumerate(value):
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise BadBody(f"`{where}[{place}]` must be a text part: this model reads text only", where)
        texts.append(part["text"])
    return "\n".join(texts)


def _prompts(fields: Fields) -> tuple[str, ...]:
    value = fields.raw("prompt")
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list) and value:
        if _numbers(value):
            return (_spoken(value),)
        if all(isinstance(item, str) for item in value):
            return tuple(value)
        if all(isinstance(item, list) and item and _numbers(item) for item in value):
            return tuple(_spoken(item) for item in value)
    raise fields.bad(
        "prompt", "must be a string, a list of strings, token numbers, or lists of token numbers"
    )


def _numbers(value: list[Any]) -> bool:
    return all(isinstance(item, int) and not isinstance(item, bool) for item in value)


def _spoken(numbers: list[int]) -> str:
    """Token numbers as words; there is no vocabulary to look them up in."""
    return " ".join(str(number) for number in numbers)
