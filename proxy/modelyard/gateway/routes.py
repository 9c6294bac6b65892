"""The route table: the one list that the application, the documentation and the tests read."""

from __future__ import annotations

from dataclasses import dataclass

from .answers import Shape


@dataclass(frozen=True, slots=True)
class Route:
    """One route. ``operation`` names its handler; ``admin`` routes exist only where a management key is
    configured.
    """

    method: str
    path: str
    operation: str
    shape: Shape
    summary: str
    admin: bool = False


ROUTES: tuple[Route, ...] = (
    Route("GET", "/", "info", Shape.BACKEND, "What this is: name, version, models, routes."),
    Route("GET", "/health", "health", Shape.BACKEND, "State of the proxy and how many models can be used."),
    Route("GET", "/live", "live", Shape.BACKEND, "200 while the process runs."),
    Route(
        "GET",
        "/ready",
        "ready",
        Shape.BACKEND,
        "200 when a registry is loaded and at least one replica has been probed, else (or draining) 503.",
    ),
    Route("GET", "/models", "models", Shape.BACKEND, "All models with `available`."),
    Route(
        "GET", "/models/{model_id}/health", "model_health", Shape.BACKEND, "Whether one model can be used."
    ),
    Route(
        "POST",
        "/generate",
        "generate",
        Shape.BACKEND,
        "Text from a prompt: `prompt` and `model_id` (generation backend), or `inputs` (TGI).",
    ),
    Route("GET", "/v1/models", "openai_models", Shape.OPENAI, "All models as OpenAI lists them."),
    Route("GET", "/v1/models/{model_id}", "openai_model", Shape.OPENAI, "One model as OpenAI shows it."),
    Route("POST", "/v1/chat/completions", "chat", Shape.OPENAI, "Chat completions, streamed or plain."),
    Route("POST", "/v1/completions", "completions", Shape.OPENAI, "Completions, streamed or plain."),
    Route("GET", "/metrics", "metrics", Shape.BACKEND, "Prometheus metrics of the proxy."),
    Route(
        "GET",
        "/admin/registry",
        "admin_registry",
        Shape.BACKEND,
        "The registry in force, and why a newer file was refused.",
        admin=True,
    ),
    Route(
        "GET",
        "/admin/replicas",
        "admin_replicas",
        Shape.BACKEND,
        "State of every replica and why.",
        admin=True,
    ),
)


def shape_of(path: str) -> Shape:
    """The error shape for a path that has no route, or not with this method."""
    plain = path.rstrip("/") or "/"
    for route in ROUTES:
        if route.path == plain:
            return route.shape
    return Shape.OPENAI if path.startswith("/v1/") else Shape.BACKEND
