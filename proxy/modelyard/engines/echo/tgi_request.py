"""What a TGI client asks for: the body of /, /generate, /generate_stream and /tokenize, checked.

TGI knows two kinds of refusal. A body of the wrong shape is answered with status 422. A value that the model
cannot honour is found later, so a stream reports it inside a 200; ``verify`` holds those rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelyard.engines.echo.bodies import Fields
from modelyard.engines.echo.model import Params, tokenize

MAX_BEST_OF = 2
MAX_STOPS = 4
_MOST_TOP = 5


class TgiError(Exception):
    """A refusal in TGI's shape: ``{"error", "error_type"}``."""

    def __init__(self, status: int, message: str, error_type: str) -> None:
        super().__init__(message)
        self.status = status
        self.error_type = error_type

    def body(self) -> dict[str, str]:
        """TGI's error object."""
        return {"error": str(self), "error_type": self.error_type}

    @classmethod
    def validation(cls, message: str) -> TgiError:
        """The 422 for an input that cannot be used."""
        return cls(422, f"Input validation error: {message}", "validation")

    @classmethod
    def overloaded(cls) -> TgiError:
        """The 429 of a full engine."""
        return cls(429, "Model is overloaded", "overloaded")


@dataclass(frozen=True, slots=True)
class TgiRequest:
    """One request of the right shape. Names are TGI's own; token counts are in this engine's tokens."""

    inputs: str
    stream: bool
    max_new_tokens: int | None
    stops: tuple[str, ...]
    best_of: int
    do_sample: bool
    temperature: float | None
    top_p: float | None
    typical_p: float | None
    repetition_penalty: float | None
    seed: int | None
    truncate: int | None
    top_n_tokens: int
    return_full_text: bool
    details: bool
    decoder_input_details: bool

    @property
    def prompt(self) -> str:
        """The input that the model reads: its last ``truncate`` tokens, or all of it."""
        return self.inputs if self.truncate is None else "".join(tokenize(self.inputs)[-self.truncate :])

    def params(self, rotate: int) -> Params:
        """The parameters of one of the ``best_of`` sequences; TGI keeps the stop sequence in the text."""
        return Params(self.max_new_tokens, self.stops, include_stop=True, rotate=rotate)

    def verify(self, prompt_tokens: int, most: int) -> None:
        """Refuse values that cannot be honoured; ``most`` is the context length in tokens."""
        sampled = {"temperature": self.temperature, "repetition_penalty": self.repetition_penalty}
        for name, value in sampled.items():
            if value is not None and value <= 0:
                raise TgiError.validation(f"`{name}` must be strictly positive")
        for name, value in {"top_p": self.top_p, "typical_p": self.typical_p}.items():
            if value is not None and not 0 < value < 1:
                raise TgiError.validation(f"`{name}` must be > 0.0 and < 1.0")
        if not self.inputs:
            raise TgiError.validation("`inputs` cannot be empty")
        self._verify_best_of()
        if len(self.stops) > MAX_STOPS:
            raise TgiError.validation(
                f"`stop` supports up to {MAX_STOPS} stop sequences. Given: {len(self.stops)}"
            )
        asked = prompt_tokens + (self.max_new_tokens or 1)
        if asked > most:
            raise TgiError.validation(
                f"`inputs` tokens + `max_new_tokens` must be <= {most}. "
                f"Given: {prompt_tokens} `inputs` tokens and {self.max_new_tokens or 1} `max_new_tokens`"
            )

    def _verify_best_of(self) -> None:
        if self.best_of > MAX_BEST_OF:
            raise TgiError.validation(f"`best_of` must be > 0 and <= {MAX_BEST_OF}. Given: {self.best_of}")
        if self.best_of > 1 and self.stream:
            raise TgiError.validation("`best_of` != 1 is not supported when streaming tokens")
        if self.best_of > 1 and not (self.do_sample or self.temperature or self.top_p or self.typical_p):
            raise TgiError.validation("you must use sampling when `best_of` is > 1")
        if self.best_of > 1 and self.seed is not None:
            raise TgiError.validation("`seed` must not be set when `best_of` > 1")
        if self.decoder_input_details and self.stream:
            raise TgiError.validation(
                "`decoder_input_details` == true is not supported when streaming tokens"
            )


def tgi_request(data: Mapping[str, Any], *, stream: bool) -> TgiRequest:
    """Check the shape of a body; BadBody names the field that is wrong."""
    fields = Fields(data)
    inputs = fields.text("inputs")
    if inputs is None:
        raise fields.bad("inputs", 'is missing: send {"inputs": "...", "parameters": {...}}')
    given = fields.child("parameters")
    return TgiRequest(
        inputs=inputs,
        stream=stream,
        max_new_tokens=given.integer("max_new_tokens", 1),
        stops=given.strings("stop", 1000),
        best_of=given.integer("best_of", 1) or 1,
        do_sample=given.flag("do_sample"),
        temperature=given.number("temperature"),
        top_p=given.number("top_p"),
        typical_p=given.number("typical_p"),
        repetition_penalty=given.number("repetition_penalty"),
        seed=given.integer("seed", 0),
        truncate=given.integer("truncate", 1),
        top_n_tokens=given.integer("top_n_tokens", 0, _MOST_TOP) or 0,
        return_full_text=given.flag("return_full_text"),
        details=given.flag("details"),
        decoder_input_details=given.flag("decoder_input_details"),
    )
