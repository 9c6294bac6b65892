"""Every rule of the registry, schema and beyond, applied in one go."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Collection, Iterator
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

from modelyard.errors import did_you_mean

from .problems import Path, Problem, short
from .quick import Test, quick_test

# visible ASCII; what else a path needs is percent-encoded, and a name of other letters is written xn--
_URL_TEXT = re.compile(r"[!-~]+")
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_TYPE_NAMES = {
    "object": "a mapping",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
}


def registry_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) that both sides of the contract validate against."""
    text = files(__package__).joinpath("schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


@cache
def _validator() -> Any:
    return extend(Draft202012Validator, {"pattern": _pattern})(registry_schema())  # type: ignore[no-untyped-call]


@cache
def _quick_test() -> Test:
    return quick_test(registry_schema())


def _pattern(_: Any, pattern: str, value: Any, __: Any) -> Iterator[ValidationError]:
    # JSON Schema's `$` is the very end; Python's would let a line break through behind it
    if isinstance(value, str) and not re.fullmatch(pattern, value):
        yield ValidationError("does not match")


def check(data: Any, file: str, engines: Collection[str]) -> list[Problem]:
    """Everything that is wrong with ``data``; an empty list means that it may be built.

    ``engines`` are the names that the catalog knows. Rules beyond the schema look only at parts of the right
    type, so that one fault is not told twice.
    """
    if data is None:
        return [Problem(file, (), "is empty; a registry needs at least `version: 1` and `models: {}`")]
    problems = []
    if not _quick_test()(data):
        problems = [Problem(file, *said) for error in _validator().iter_errors(data) for said in _say(error)]
    models = data.get("models") if isinstance(data, dict) else None
    if isinstance(models, dict):
        problems += [Problem(file, path, message) for path, message in _beyond_schema(models, engines)]
    return problems


def _say(error: ValidationError) -> Iterator[tuple[Path, str]]:
    path: Path = tuple(error.absolute_path)
    value, rule = error.instance, str(error.validator)
    limit: Any = error.validator_value
    if rule == "additionalProperties" and isinstance(value, dict):
        known = list(error.schema.get("properties", {})) if isinstance(error.schema, dict) else []
        for key in value:
            if key not in known:
                hint = did_you_mean(str(key), known) or f"; known are {', '.join(known)}"
                yield (*path, str(key)), f"is unknown{hint}"
    elif rule == "required" and isinstance(value, dict):
        # jsonschema reports each missing key on its own
        missing = next((key for key in limit if f"'{key}'" in error.message), "?")
        yield (*path, missing), "is missing; it is required"
    elif rule == "pattern" and error.parent is None and "propertyNames" in error.schema_path:
        yield (
            (*path, str(value)),
            ("is no model id: a lower-case letter or digit, then at most 62 of those, '.', '_' and '-'"),
        )
    elif rule == "type":
        wanted = [limit] if isinstance(limit, str) else list(limit)
        names = " or ".join(_TYPE_NAMES[item] for item in wanted)
        yield path, f"must be {names}, is {short(value)}"
    elif rule == "enum":
        yield path, f"must be one of {', '.join(limit)}, is {short(value)}{did_you_mean(str(value), limit)}"
    elif rule == "const":
        yield path, f"must be {limit} (the only version that this program reads), is {short(value)}"
    elif rule == "pattern":
        yield path, f"is {short(value)}, which has characters or a length that are not allowed here ({limit})"
    elif rule == "uniqueItems":
        yield path, f"names something twice: {short(value)}"
    else:
        bounds = {
            "minimum": "must be at least",
            "exclusiveMinimum": "must be more than",
            "maximum": "must be at most",
            "minLength": "must have a length of at least",
            "maxLength": "must have a length of at most",
        }
        said = f"{bounds[rule]} {limit}" if rule in bounds else error.message
        yield path, f"{said}, is {short(value)}"


def _beyond_schema(models: dict[Any, Any], engines: Collection[str]) -> Iterator[tuple[Path, str]]:
    sound = {name: model for name, model in models.items() if isinstance(model, dict)}
    yield from _check_aliases(sound)
    yield from _check_fallbacks(sound)
    yield from _check_mirrors(sound)
    owners: dict[str, str] = {}
    for name, model in sound.items():
        served: dict[tuple[str, str], int] = {}
        for number, endpoint in enumerate(_listed(model, "endpoints")):
            if not isinstance(endpoint, dict):
                continue
            path: Path = ("models", name, "endpoints", number)
            yield from _check_endpoint(path, endpoint, engines)
            # one engine twice would be tried again as another replica, and carry twice its share
            what = (str(endpoint.get("url")).rstrip("/"), str(endpoint.get("served_name", name)))
            if "url" in endpoint and served.setdefault(what, number) != number:
                yield (*path, "url"), f"is the address of endpoints[{served[what]}] too; remove one of them"
            identity = endpoint.get("id")
            if isinstance(identity, str):
                if identity in owners:
                    yield (
                        (*path, "id"),
                        f"{identity!r} is already an endpoint of model {owners[identity]}; ids are unique",
                    )
                else:
                    owners[identity] = name


def _check_aliases(models: dict[str, Any]) -> Iterator[tuple[Path, str]]:
    owners: dict[str, str] = {}
    for name, model in models.items():
        for number, alias in enumerate(_listed(model, "aliases")):
            path: Path = ("models", name, "aliases", number)
            if not isinstance(alias, str):
                continue
            if alias in models:
                whose = "this model's own id" if alias == name else "the id of another model"
                yield path, f"{alias!r} is {whose}; choose another alias or remove it"
            elif owners.get(alias, name) != name:
                yield (
                    path,
                    f"{alias!r} is already an alias of model {owners[alias]}; one name leads to one model",
                )
            else:
                owners[alias] = name


def _check_fallbacks(models: dict[str, Any]) -> Iterator[tuple[Path, str]]:
    for name, model in models.items():
        for number, other in enumerate(_listed(model, "fallbacks")):
            path: Path = ("models", name, "fallbacks", number)
            if not isinstance(other, str):
                continue
            if other == name:
                yield path, "a model cannot be its own fallback; remove it"
            elif other not in models:
                yield path, f"no model has the id {other!r}{did_you_mean(other, models)}"
            elif (task := models[other].get("task", "generate")) != model.get("task", "generate"):
                yield path, f"{other!r} has another task ({task}); it cannot stand in"
    for cycle in _cycles(models):
        yield (
            ("models", cycle[0], "fallbacks"),
            f"fallbacks go in a circle: {' -> '.join([*cycle, cycle[0]])}",
        )


def _check_mirrors(models: dict[str, Any]) -> Iterator[tuple[Path, str]]:
    for name, model in models.items():
        mirror = model.get("mirror")
        other = mirror.get("model") if isinstance(mirror, dict) else None
        if not isinstance(other, str):
            continue
        path: Path = ("models", name, "mirror", "model")
        if other == name:
            yield path, "a model cannot mirror itself; name another one"
        elif other not in models:
            yield path, f"no model has the id {other!r}{did_you_mean(other, models)}"
        elif (task := models[other].get("task", "generate")) != model.get("task", "generate"):
            yield path, f"{other!r} has another task ({task}); it cannot be asked the same"


def _cycles(models: dict[str, Any]) -> Iterator[list[str]]:
    """Each circle of two or more models once. Iterative, for a chain may be as long as the file."""
    done: set[str] = set()
    for start in models:
        trail: list[str] = []
        on_trail: set[str] = set()
        stack: list[tuple[str, Iterator[Any]]] = []
        if start not in done:
            stack.append((start, iter(_listed(models[start], "fallbacks"))))
            trail.append(start)
            on_trail.add(start)
        while stack:
            name, left = stack[-1]
            following = next(left, None)
            if following is None:
                stack.pop()
                trail.pop()
                on_trail.discard(name)
                done.add(name)
            elif isinstance(following, str) and following in on_trail and following != name:
                yield trail[trail.index(following) :]
            elif isinstance(following, str) and following in models and following not in done | on_trail:
                stack.append((following, iter(_listed(models[following], "fallbacks"))))
                trail.append(following)
                on_trail.add(following)


def _check_endpoint(
    path: Path, endpoint: dict[Any, Any], engines: Collection[str]
) -> Iterator[tuple[Path, str]]:
    url = endpoint.get("url")
    if isinstance(url, str):
        fault = url_fault(url)
        if fault:
            yield (*path, "url"), fault
    engine = endpoint.get("engine")
    if isinstance(engine, str) and engine not in engines:
        hint = did_you_mean(engine, engines) or f"; known are {', '.join(sorted(engines))}"
        yield (*path, "engine"), f"no engine is called {engine!r}{hint}"
    expires = endpoint.get("expires_at")
    if isinstance(expires, str):
        fault = time_fault(expires)
        if fault:
            yield (*path, "expires_at"), fault


def url_fault(url: str) -> str | None:
    """Why ``url`` cannot be an endpoint's address, or ``None``. Never repeats a password."""
    try:
        parts = urlsplit(url)
        port_ok = parts.port is None or parts.port > 0
    except ValueError:
        return "is no URL with a valid host and port"
    if parts.username is not None or parts.password is not None or "@" in parts.netloc:
        return "must not hold a user name or password; give the engine's address alone"
    if parts.scheme not in ("http", "https"):
        return f"must begin with http:// or https://, is {short(url)}"
    if not port_ok or not _is_host(parts.hostname or "") or not _URL_TEXT.fullmatch(url):
        return f"is no URL with a valid host and port: {short(url)}"
    if parts.query or parts.fragment or url.endswith(("?", "#")):
        return f"must end with the host, port or path, without '?' or '#', is {short(url)}"
    return None


def _is_host(host: str) -> bool:
    """Whether ``host`` is an address or a name of DNS (with underscores, which containers' names have)."""
    if ":" in host:
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            return False
        return True
    return len(host) <= 253 and all(map(_LABEL.fullmatch, host.removesuffix(".").split(".")))


def time_fault(text: str) -> str | None:
    """Why ``text`` is no point in time, or ``None``."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return f"must be a time such as 2026-12-31T18:00:00Z, is {short(text)}"
    if moment.tzinfo is None:
        return f"needs a time zone, such as {moment.isoformat()}Z, is {short(text)}"
    return None


def _listed(model: Any, key: str) -> list[Any]:
    value = model.get(key) if isinstance(model, dict) else None
    return value if isinstance(value, list) else []
