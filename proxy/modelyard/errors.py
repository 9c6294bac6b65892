"""The error tree: every failure that a caller may see, with its status, stable code and advice.

``status`` is the HTTP status, ``code`` a stable name for programs, the message one sentence that says what
to do. What may be tried on another replica is an ``UpstreamError``.
Mapping to a wire shape happens once, in ``gateway.answers``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class ModelyardError(Exception):
    """Root of the tree; a bare one is a fault in Modelyard itself."""

    status = 500
    code = "internal_error"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        status: int | None = None,
        param: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        if code is not None:
            self.code = code
        if status is not None:
            self.status = status


class ConfigError(ModelyardError):
    """A file, variable or flag is wrong; ``problems`` lists every fault found, one sentence each."""

    code = "bad_configuration"

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


class RegistryRefusedError(ConfigError):
    """A registry that is not taken: it does not validate, or goes back in generation."""

    code = "registry_refused"


class SizingError(ConfigError):
    """A model whose memory cannot be worked out: its files say too little, or nothing that can be true."""


class BadRequestError(ModelyardError):
    """The client's request cannot be understood; repeating it is pointless."""

    status = 400
    code = "bad_request"


class InvalidFieldError(BadRequestError):
    """One field of a well-formed body is missing or wrong; ``param`` names it."""

    code = "invalid_field"


class UnauthorizedError(ModelyardError):
    """No key, or a wrong one."""

    status = 401
    code = "unauthorized"


class NotFoundError(ModelyardError):
    """Nothing has that name."""

    status = 404
    code = "not_found"


class ModelNotFoundError(NotFoundError):
    """The registry has no such model."""

    code = "model_not_found"


class BodyTimeoutError(ModelyardError):
    """The request body did not come in time."""

    status = 408
    code = "body_timeout"


class BodyTooLargeError(ModelyardError):
    """The request body exceeds the limit."""

    status = 413
    code = "body_too_large"


class NotSupportedError(ModelyardError):
    """Understood, but no engine behind this model can do it."""

    status = 501
    code = "not_supported"


class NoReplicaError(ModelyardError):
    """No replica of the model may be used now."""

    status = 503
    code = "no_replica"


class QueueFullError(ModelyardError):
    """Every replica is busy, and as many requests as may wait already do."""

    status = 429
    code = "queue_full"


class QueryOfDeathError(ModelyardError):
    """The request has ended more than one engine; it is not sent to another one."""

    status = 422
    code = "query_of_death"


class UpstreamError(ModelyardError):
    """A replica failed; the parent of all that may be tried on another one."""

    status = 502
    code = "upstream_error"


class UpstreamConnectError(UpstreamError):
    """No connection to the replica could be made."""

    code = "upstream_unreachable"


class UpstreamBrokenError(UpstreamError):
    """The replica closed the connection before its answer was whole."""

    code = "upstream_broken"


class UpstreamLostError(UpstreamBrokenError):
    """The connection ended in the middle of an answer or without one: the replica may have died."""


class UpstreamTimeoutError(UpstreamError):
    """The replica was silent for longer than the model's timeouts allow."""

    status = 504
    code = "upstream_timeout"


class UpstreamBusyError(UpstreamError):
    """The replica answered 502, 503 or 504 itself."""

    status = 503
    code = "upstream_unavailable"


class ClientGoneError(ModelyardError):
    """The client closed its connection; nobody reads the answer. Not an upstream failure."""

    status = 499
    code = "client_gone"


def nearest(name: str, known: Iterable[str], *, limit: int = 3) -> list[str]:
    """The known names most like ``name``, best first; empty when none is near."""
    by_folded: dict[str, str] = {}
    for item in known:
        by_folded.setdefault(item.casefold(), item)
    return [
        by_folded[hit] for hit in get_close_matches(name.casefold(), list(by_folded), n=limit, cutoff=0.6)
    ]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``", did you mean 'x'?"`` or an empty string."""
    hits = nearest(name, known, limit=1)
    return f", did you mean {hits[0]!r}?" if hits else ""
