"""The proxy's settings: one table, read from flags, the environment and a ``.env`` file.

The table is the dataclass itself: each field carries its variable, flag, bounds and description, so that the
command line, the documentation and the reader cannot disagree. A flag beats the environment, the environment
beats ``.env``. Nothing is read at import.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from io import StringIO
from pathlib import Path
from typing import Any, Literal

from dotenv import dotenv_values
from dotenv.parser import parse_stream

from .errors import ConfigError, did_you_mean
from .setting_values import convert

Kind = Literal["text", "path", "integer", "number", "switch", "list", "url"]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_PREFIX = "MODELYARD_"


def _row(
    default: Any,
    env: str,
    kind: Kind,
    help_text: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    return dataclasses.field(
        default=default,
        metadata={
            "env": env,
            "kind": kind,
            "help": help_text,
            "minimum": minimum,
            "maximum": maximum,
            "choices": choices,
        },
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """All proxy settings, validated. Times are in seconds, sizes in bytes."""

    registry: Path | None = _row(  # noqa: RUF009
        None,
        "MODELYARD_REGISTRY",
        "path",
        "Endpoint registry (YAML or JSON), watched for changes. Without it: TGI_<NAME>_ENDPOINT variables.",
    )
    host: str = _row("127.0.0.1", "HOST", "text", "Address to listen on.")
    port: int = _row(
        8000, "PORT", "integer", "Port to listen on; 0 takes a free one.", minimum=0, maximum=65535
    )
    workers: int = _row(
        1,
        "MODELYARD_WORKERS",
        "integer",
        "Processes that serve the port together; 0 starts one for each processor core.",
        minimum=0,
        maximum=256,
    )
    allowed_origins: tuple[str, ...] = _row(
        (),
        "ALLOWED_ORIGINS",
        "list",
        "Web origins that browsers may call from, comma-separated (https://chat.example.org), or * for all.",
    )
    trusted_proxies: tuple[str, ...] = _row(
        (),
        "MODELYARD_TRUSTED_PROXIES",
        "list",
        "Networks (10.0.0.0/8) whose X-Forwarded-* headers are believed and passed on; from others they are dropped.",
    )
    admin_key_file: Path | None = _row(  # noqa: RUF009
        None,
        "MODELYARD_ADMIN_KEY_FILE",
        "path",
        "File with the management key (at least 24 characters). Without it the /admin routes do not exist.",
    )
    max_body_bytes: int = _row(
        32 * 2**20, "MODELYARD_MAX_BODY_BYTES", "integer", "Largest request body taken.", minimum=1024
    )
    body_timeout_s: float = _row(
        60.0,
        "MODELYARD_BODY_TIMEOUT_S",
        "number",
        "How long a client may take to send its request body.",
        minimum=0.1,
        maximum=3600,
    )
    upstream_ca_file: Path | None = _row(  # noqa: RUF009
        None,
        "MODELYARD_UPSTREAM_CA_FILE",
        "path",
        "Certificates (PEM) of authorities that engines behind https are trusted by, besides the system's.",
    )
    max_attempts: int = _row(
        3,
        "MODELYARD_MAX_ATTEMPTS",
        "integer",
        "Replicas tried for one request and model before its fallbacks are.",
        minimum=1,
        maximum=20,
    )
    retry_budget_percent: float = _row(
        50.0,
        "MODELYARD_RETRY_BUDGET_PERCENT",
        "number",
        "Retries that may be made in vain, as a share of the requests of the last seconds (10 in any case).",
        minimum=0,
        maximum=1000,
    )
    breaker_failures: int = _row(
        5,
        "MODELYARD_BREAKER_FAILURES",
        "integer",
        "Failures in a row, or half of the last twenty, after which a replica gets no requests; 0: never.",
        minimum=0,
    )
    breaker_open_s: float = _row(
        10.0,
        "MODELYARD_BREAKER_OPEN_S",
        "number",
        "How long that lasts before one request tries the replica out; doubled each time in a row.",
        minimum=0.1,
        maximum=3600,
    )
    breaker_longest_s: float = _row(
        120.0,
        "MODELYARD_BREAKER_LONGEST_S",
        "number",
        "The longest that it lasts, however often it was doubled.",
        minimum=0.1,
        maximum=86400,
    )
    slow_start_s: float = _row(
        10.0,
        "MODELYARD_SLOW_START_S",
        "number",
        "How long a replica that has come back takes to its full share of the requests; 0: at once.",
        minimum=0,
        maximum=3600,
    )
    expiry_margin_s: float = _row(
        60.0,
        "MODELYARD_EXPIRY_MARGIN_S",
        "number",
        "A replica that ends sooner than this gets no new requests of unknown length while others can take them.",
        minimum=0,
        maximum=86400,
    )
    expiry_token_s: float = _row(
        0.05,
        "MODELYARD_EXPIRY_TOKEN_S",
        "number",
        "Time that one token is reckoned to take, for requests that say how many they want at most.",
        minimum=0,
        maximum=60,
    )
    suspect_s: float = _row(
        600.0,
        "MODELYARD_SUSPECT_S",
        "number",
        "How long a request is refused that ended two replicas; 0: requests are not held to account.",
        minimum=0,
        maximum=604800,
    )
    registry_poll_s: float = _row(
        1.0,
        "MODELYARD_REGISTRY_POLL_S",
        "number",
        "How often the registry file is looked at.",
        minimum=0.05,
        maximum=3600,
    )
    probe_interval_s: float = _row(
        5.0,
        "MODELYARD_PROBE_INTERVAL_S",
        "number",
        "Time between two health probes of a replica (each varies by a fifth).",
        minimum=0.1,
        maximum=3600,
    )
    probe_timeout_s: float = _row(
        10.0,
        "MODELYARD_PROBE_TIMEOUT_S",
        "number",
        "How long a health probe may take. A busy engine answers late: at least 10.",
        minimum=10,
        maximum=300,
    )
    probe_failures: int = _row(
        3,
        "MODELYARD_PROBE_FAILURES",
        "integer",
        "Failures in a row that take a ready replica out.",
        minimum=1,
    )
    probe_successes: int = _row(
        2,
        "MODELYARD_PROBE_SUCCESSES",
        "integer",
        "Successes in a row that bring a failed replica back.",
        minimum=1,
    )
    hung_after_s: float = _row(
        120.0,
        "MODELYARD_HUNG_AFTER_S",
        "number",
        "An engine with work whose progress counter stands still for this long is hung; 0 judges none.",
        minimum=0,
        maximum=86400,
    )
    hung_action: str = _row(
        "alarm",
        "MODELYARD_HUNG_ACTION",
        "text",
        "What follows: alarm (shown, logged, used on) or eject (no more requests until it moves).",
        choices=("alarm", "eject"),
    )
    busy_waiting: int = _row(
        0,
        "MODELYARD_BUSY_WAITING",
        "integer",
        "A replica with this many requests in its own queue is used only when no ready one is left; 0: never mind.",
        minimum=0,
    )
    drain_delay_s: float = _row(
        0.0,
        "MODELYARD_DRAIN_DELAY_S",
        "number",
        "At shutdown: how long /ready answers 503 before the port closes, for load balancers to notice.",
        minimum=0,
        maximum=600,
    )
    shutdown_grace_s: float = _row(
        60.0,
        "MODELYARD_SHUTDOWN_GRACE_S",
        "number",
        "At shutdown: how long requests that have begun may still take.",
        minimum=0,
        maximum=86400,
    )
    log_level: str = _row(
        "info",
        "MODELYARD_LOG_LEVEL",
        "text",
        "Least severe log line shown.",
        choices=("debug", "info", "warning", "error"),
    )
    access_log: bool = _row(
        False, "MODELYARD_ACCESS_LOG", "switch", "One JSON line for each request on standard output."
    )
    access_log_file: Path | None = _row(  # noqa: RUF009
        None,
        "MODELYARD_ACCESS_LOG_FILE",
        "path",
        "File that gets these lines instead, reopened on SIGHUP. Given alone, it turns them on.",
    )
    otel_endpoint: str = _row(
        "",
        "MODELYARD_OTEL_ENDPOINT",
        "url",
        "OTLP/HTTP collector that gets traces (http://127.0.0.1:4318). Needs modelyard[otel]; none: no traces.",
    )

    def trusted_networks(self) -> tuple[Network, ...]:
        """``trusted_proxies`` as networks."""
        return tuple(ipaddress.ip_network(text, strict=False) for text in self.trusted_proxies)


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table, for documentation, flags and reading."""

    name: str
    env: str
    flag: str
    kind: Kind
    default: Any
    help: str
    minimum: float | None
    maximum: float | None
    choices: tuple[str, ...]


def settings_table() -> tuple[Setting, ...]:
    """Every setting in the order in which it is declared."""
    return tuple(
        Setting(
            name=item.name, flag="--" + item.name.replace("_", "-"), default=item.default, **item.metadata
        )
        for item in dataclasses.fields(Settings)
    )


def read_environment(environ: Mapping[str, str], directory: Path) -> dict[str, str]:
    """The environment, completed (never overridden) by ``directory/.env`` where that file exists.

    Raises ``ConfigError`` when the file cannot be read.
    """
    path = directory / ".env"
    found: dict[str, str] = {}
    if path.is_file():
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigError(
                f"{path}: cannot be read ({exc}); make it a UTF-8 file that this user may read"
            ) from exc
        bad = [item.original for item in parse_stream(StringIO(text)) if item.error]
        if bad:
            # the lines themselves may hold secrets
            raise ConfigError(
                f"{path}: {len(bad)} of its lines cannot be read; each must be NAME=value",
                [f"line {item.line}" for item in bad],
            )
        values = dotenv_values(stream=StringIO(text), interpolate=False)
        found = {key: value for key, value in values.items() if value is not None}
    return {**found, **environ}


def load_settings(environment: Mapping[str, str], overrides: Mapping[str, Any] | None = None) -> Settings:
    """Settings from ``environment`` and ``overrides`` (by field name; ``None`` means "not given").

    Raises ``ConfigError`` listing every bad value with the place it came from. An empty variable counts as
    not set.
    """
    table = settings_table()
    given = {name: value for name, value in (overrides or {}).items() if value is not None}
    problems = [
        f"setting {name!r} does not exist{did_you_mean(name, [row.name for row in table])}"
        for name in given
        if name not in {row.name for row in table}
    ]
    problems += _misspelt(environment, table)
    values: dict[str, Any] = {}
    for row in table:
        raw: Any
        if row.name in given:
            raw, source = given[row.name], row.flag
        elif environment.get(row.env, "").strip():
            raw, source = environment[row.env].strip(), row.env
        else:
            continue
        try:
            values[row.name] = convert(row, raw)
        except ValueError as exc:
            # somebody may have put a password into it
            said = "" if row.kind == "url" else f"={raw}"
            problems.append(f"{source}{said}: {exc}")
    if problems:
        raise ConfigError("the settings are wrong", problems)
    return Settings(**values)


def _misspelt(environment: Mapping[str, str], table: tuple[Setting, ...]) -> list[str]:
    """Variables that are all but one of ours. Others with our prefix may belong to other commands, or to
    whoever starts the proxy, and are none of its business.
    """
    known = {row.env.removeprefix(_PREFIX): row.env for row in table if row.env.startswith(_PREFIX)}
    found = []
    for variable in environment:
        if variable.startswith(_PREFIX) and variable not in known.values():
            close = get_close_matches(variable.removeprefix(_PREFIX), known, n=1, cutoff=0.8)
            if close:
                found.append(f"environment variable {variable} is unknown, did you mean {known[close[0]]!r}?")
    return found
