"""The route table: the one list that the application, the documentation and the tests read."""

from __future__ import annotations

from dataclasses import dataclass

from .answers import Shape


@dataclass(frozen=True, slots=True)
class Route:
    """One route. ``operation`` names its handler; ``admin`` routes exist only where a management key is
    configured. ``lane``: a JSON object with ``model`` goes in and an engine's answer comes out untouched, so
    that the lane may serve it.
    """

    method: str
    path: str
    operation: str
    shape: Shape
    summary: str
    admin: bool = False
    lane: bool = False


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
    Route(
        "POST",
        "/generate_stream",
        "tgi_generate_stream",
        Shape.TGI,
        "Text from `inputs` as TGI streams it, token by token.",
    ),
    Route(
        "POST",
        "/",
        "tgi_compatible",
        Shape.TGI,
        "Text from `inputs`, as TGI's clients ask for it: `stream` chooses the form.",
    ),
    Route("GET", "/v1/models", "openai_models", Shape.OPENAI, "All models as OpenAI lists them."),
    Route("GET", "/v1/models/{model_id}", "openai_model", Shape.OPENAI, "One model as OpenAI shows it."),
    Route(
        "POST",
        "/v1/chat/completions",
        "chat",
        Shape.OPENAI,
        "Chat completions, streamed or plain.",
        lane=True,
    ),
    Route(
        "POST",
        "/v1/completions",
        "completions",
        Shape.OPENAI,
        "Completions, streamed or plain.",
        lane=True,
    ),
    Route("POST", "/v1/responses", "create_response", Shape.OPENAI, "OpenAI's responses, streamed or plain."),
    Route(
        "GET",
        "/v1/responses/{response_id}",
        "kept_response",
        Shape.OPENAI,
        "A response, from the replica that keeps it.",
    ),
    Route(
        "POST",
        "/v1/responses/{response_id}/cancel",
        "kept_response",
        Shape.OPENAI,
        "Cancels a response on the replica that makes it.",
    ),
    Route("POST", "/v1/messages", "messages", Shape.ANTHROPIC, "Anthropic's messages, streamed or plain."),
    Route(
        "POST",
        "/v1/messages/count_tokens",
        "count_tokens",
        Shape.ANTHROPIC,
        "How many tokens a message would cost.",
    ),
    Route("POST", "/v1/embeddings", "passed", Shape.OPENAI, "Embeddings of one text or many."),
    Route("POST", "/v2/embed", "passed", Shape.OPENAI, "Embeddings as Cohere asks for them."),
    Route("POST", "/pooling", "passed", Shape.OPENAI, "What a pooling model makes of its input."),
    Route("POST", "/classify", "passed", Shape.OPENAI, "Classes of one text or many."),
    Route("POST", "/v1/rerank", "passed", Shape.OPENAI, "Documents in the order of their relevance."),
    Route("POST", "/v2/rerank", "passed", Shape.OPENAI, "The same, as Cohere asks for it."),
    Route("POST", "/rerank", "passed", Shape.OPENAI, "The same, as Jina asks for it."),
    Route("POST", "/v1/score", "passed", Shape.OPENAI, "How alike texts are."),
    Route("POST", "/score", "passed", Shape.OPENAI, "How alike texts are."),
    Route(
        "POST",
        "/tokenize",
        "tokenize",
        Shape.OPENAI,
        "The tokens of `prompt` or `messages` (vLLM), or of `inputs` (TGI).",
    ),
    Route("POST", "/detokenize", "passed", Shape.OPENAI, "The text of tokens."),
    Route(
        "POST",
        "/v1/audio/transcriptions",
        "heard",
        Shape.OPENAI,
        "Speech to text: a form, passed on while it comes in.",
    ),
    Route(
        "POST", "/v1/audio/translations", "heard", Shape.OPENAI, "Speech to English text, in the same way."
    ),
    Route("POST", "/v1/audio/speech", "passed", Shape.OPENAI, "Text to speech."),
    Route("POST", "/tgi/{model_id}/generate", "tgi_generate", Shape.TGI, "TGI's `/generate` for one model."),
    Route(
        "POST",
        "/tgi/{model_id}/generate_stream",
        "tgi_generate_stream",
        Shape.TGI,
        "TGI's `/generate_stream` for one model.",
    ),
    Route("POST", "/tgi/{model_id}/tokenize", "tgi_tokenize", Shape.TGI, "The tokens of `inputs`."),
    Route(
        "POST",
        "/tgi/{model_id}/chat_tokenize",
        "tgi_chat_tokenize",
        Shape.TGI,
        "The tokens of `messages`, and the text that the chat template makes of them.",
    ),
    Route("GET", "/tgi/{model_id}/info", "tgi_info", Shape.TGI, "What the model is, and its limits."),
    Route("GET", "/tgi/{model_id}/health", "tgi_health", Shape.TGI, "200 while the model can be used."),
    Route("GET", "/tgi/{model_id}/metrics", "tgi_metrics", Shape.TGI, "The proxy's metrics of one model."),
    Route(
        "POST",
        "/tgi/{model_id}/v1/chat/completions",
        "tgi_chat",
        Shape.TGI,
        "Chat completions of one model, in the form that TGI's clients read.",
    ),
    Route(
        "POST", "/tgi/{model_id}/v1/completions", "tgi_completions", Shape.TGI, "Completions of one model."
    ),
    Route("GET", "/tgi/{model_id}/v1/models", "tgi_models", Shape.TGI, "The one model, as OpenAI lists it."),
    # the last of them: a model's name may hold slashes
    Route(
        "POST",
        "/tgi/{model_id}",
        "tgi_compatible",
        Shape.TGI,
        "TGI's `POST /` for one model: this is the base URL for TGI's clients.",
    ),
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
    Route(
        "GET",
        "/admin/requests",
        "admin_requests",
        Shape.BACKEND,
        "Requests in flight, oldest first: where they are and how much they have said (`?limit=`, 200).",
        admin=True,
    ),
    Route(
        "GET",
        "/admin/suspects",
        "admin_suspects",
        Shape.BACKEND,
        "Requests under which replicas died, by fingerprint, and which are refused for it.",
        admin=True,
    ),
    Route(
        "GET",
        "/admin/explain",
        "admin_explain",
        Shape.BACKEND,
        "Where a request for `?model=` (and `?session=`) would go now, and why not elsewhere.",
        admin=True,
    ),
    Route(
        "POST",
        "/admin/replicas/{replica_id}/drain",
        "admin_drain_replica",
        Shape.BACKEND,
        "No new requests for one replica; those it has go on. The answer counts them (`in_flight`).",
        admin=True,
    ),
    Route(
        "POST",
        "/admin/replicas/{replica_id}/undrain",
        "admin_undrain_replica",
        Shape.BACKEND,
        "Take it back.",
        admin=True,
    ),
    Route(
        "POST",
        "/admin/drain",
        "admin_drain",
        Shape.BACKEND,
        'Drain all replicas of a host or a model: `{"host": "gpu01"}` or `{"model": "m"}`.',
        admin=True,
    ),
    Route("POST", "/admin/undrain", "admin_undrain", Shape.BACKEND, "Take them back.", admin=True),
)


def shape_of(path: str) -> Shape:
    """The error shape for a path that has no route, or not with this method."""
    plain = path.rstrip("/") or "/"
    if f"{plain}/".startswith("/tgi/"):
        return Shape.TGI
    for route in ROUTES:
        if route.path == plain:
            return route.shape
    if plain.startswith("/v1/messages"):
        return Shape.ANTHROPIC
    return Shape.OPENAI if path.startswith("/v1/") else Shape.BACKEND
