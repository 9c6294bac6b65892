"""Twenty registries that must be refused, and a piece of what each refusal must say."""

from __future__ import annotations

from dataclasses import dataclass

_HEAD = "version: 1\ngeneration: 9\nmodels:\n"


def _model(endpoint: str = "{id: h.m.0, url: 'http://10.0.0.1:8100', engine: vllm}", more: str = "") -> str:
    return f"{_HEAD}  m:\n{more}    endpoints:\n      - {endpoint}\n"


@dataclass(frozen=True)
class Broken:
    """A text and all that its refusal must contain, one piece for each problem."""

    name: str
    text: str
    says: tuple[str, ...]


BROKEN: tuple[Broken, ...] = (
    Broken("empty", "", ("is empty; a registry needs at least",)),
    Broken("yaml syntax", "version: 1\nmodels: {m: [\n", ("r.yml:3:1: is not valid YAML",)),
    Broken("json syntax", '{"version": 1,\n "models": {,}}', ("r.yml:2:13: is not valid JSON",)),
    Broken("a list", "- version: 1\n", ("r.yml: must be a mapping, is [{'version': 1}]",)),
    Broken("no version", "models: {}\n", ("r.yml: version: is missing; it is required",)),
    Broken("version of tomorrow", "version: 2\nmodels: {}\n", ("r.yml:1: version: must be 1",)),
    Broken(
        "negative generation",
        "version: 1\ngeneration: -1\nmodels: {}\n",
        ("generation: must be at least 0, is -1",),
    ),
    Broken(
        "models is a list", "version: 1\nmodels: [m]\n", ("r.yml:2: models: must be a mapping, is ['m']",)
    ),
    Broken(
        "unknown key in a model",
        _model(more="    polcy: least_loaded\n"),
        ("r.yml:5: model m: polcy: is unknown, did you mean 'policy'?",),
    ),
    Broken(
        "unknown key in an endpoint",
        _model("{id: h.m.0, ulr: 'http://10.0.0.1', engine: vllm}"),
        (
            "r.yml:6: model m: endpoints[0].ulr: is unknown, did you mean 'url'?",
            "r.yml:6: model m: endpoints[0].url: is missing; it is required",
        ),
    ),
    Broken(
        "bad model id",
        "version: 1\nmodels:\n  Big_Model!: {endpoints: []}\n",
        ("r.yml:3: model Big_Model!: is no model id",),
    ),
    Broken(
        "duplicate key",
        "version: 1\nmodels:\n  m: {endpoints: []}\n  m: {endpoints: []}\n",
        ("r.yml:4:3: models: key 'm' stands twice (first in line 3)",),
    ),
    Broken(
        "two endpoints, one id",
        _HEAD
        + "  a: {endpoints: [{id: x, url: 'http://h:1', engine: vllm}]}\n"
        + "  b: {endpoints: [{id: x, url: 'http://h:2', engine: vllm}]}\n",
        ("model b: endpoints[0].id: 'x' is already an endpoint of model a",),
    ),
    Broken(
        "alias clashes",
        _HEAD + "  a: {aliases: [chat, b], endpoints: []}\n" + "  b: {aliases: [chat], endpoints: []}\n",
        (
            "r.yml:4: model a: aliases[1]: 'b' is the id of another model",
            "r.yml:5: model b: aliases[0]: 'chat' is already an alias of model a",
        ),
    ),
    Broken(
        "fallback to nowhere and to itself",
        _HEAD + "  qwen: {fallbacks: [qwem, qwen], endpoints: []}\n",
        (
            "model qwen: fallbacks[0]: no model has the id 'qwem', did you mean 'qwen'?",
            "model qwen: fallbacks[1]: a model cannot be its own fallback",
        ),
    ),
    Broken(
        "fallbacks in a circle",
        _HEAD
        + "  a: {fallbacks: [b], endpoints: []}\n"
        + "  b: {fallbacks: [c], endpoints: []}\n"
        + "  c: {fallbacks: [a], endpoints: []}\n",
        ("model a: fallbacks: fallbacks go in a circle: a -> b -> c -> a",),
    ),
    Broken(
        "url with a password",
        _model("{id: h.m.0, url: 'http://user:hunter2@10.0.0.1', engine: vllm}"),
        ("model m: endpoints[0].url: must not hold a user name or password",),
    ),
    Broken(
        "url of another scheme",
        _model("{id: h.m.0, url: 'file:///etc/passwd', engine: vllm}"),
        ("model m: endpoints[0].url: must begin with http:// or https://, is 'file:///etc/passwd'",),
    ),
    Broken(
        "unknown engine, bad time, bad weight",
        _model("{id: h.m.0, url: 'http://h:70000', engine: vlm, expires_at: 2026-12-31T18:00:00, weight: 0}"),
        (
            "endpoints[0].url: is no URL with a valid host and port",
            "endpoints[0].engine: no engine is called 'vlm', did you mean 'vllm'?",
            "endpoints[0].expires_at: needs a time zone",
            "endpoints[0].weight: must be more than 0, is 0",
        ),
    ),
    Broken(
        "wrong types everywhere",
        _HEAD
        + "  m:\n    name: 7\n    policy: fastest\n    timeouts: {connect_s: soon, idle_s: .nan}\n"
        + "    aliases: chat\n    endpoints: {}\n",
        (
            "r.yml:5: model m: name: must be text, is 7",
            "r.yml:6: model m: policy: must be one of round_robin,",
            "r.yml:7: model m: timeouts.connect_s: must be a number, is 'soon'",
            "r.yml:7:41: model m: timeouts.idle_s: must be a finite number, is .nan",
            "r.yml:8: model m: aliases: must be a list, is 'chat'",
            "r.yml:9: model m: endpoints: must be a list, is {}",
        ),
    ),
    Broken(
        "keys that are not text",
        "version: 1\nmodels:\n  on: {endpoints: []}\n  7: {endpoints: []}\n",
        ("key on is read as a truth value; put it in quotes", "key 7 is read as a number; put it in quotes"),
    ),
    Broken(
        "names that end in a line break",
        '{"version": 1, "models": {"m\\n": {"aliases": ["a\\n"], "endpoints": [{"id": "x\\n",'
        ' "url": "http://h:1", "engine": "vllm"}]}}}',
        (
            "model 'm\\n': is no model id",
            "aliases[0]: is 'a\\n', which has",
            "endpoints[0].id: is 'x\\n', which has",
        ),
    ),
    Broken(
        "one engine as two replicas",
        _model(
            "{id: h.m.0, url: 'http://h:1', engine: vllm}\n      - {id: h.m.1, url: 'http://h:1/', engine: vllm}"
        ),
        ("model m: endpoints[1].url: is the address of endpoints[0] too",),
    ),
    Broken(
        "a number without end in JSON",
        '{"version": 1, "generation": ' + "1" * 5000 + "}",
        ("too many digits",),
    ),
    Broken(
        "a generation that nothing can follow",
        f"version: 1\ngeneration: 1{'0' * 400}\nmodels: {{}}\n",
        ("r.yml:2: generation: must be at most 9007199254740991, is 1000",),
    ),
    Broken("not text at all", "version: 1\nmodels: {}\n\x00\n", ("is not text",)),
)
