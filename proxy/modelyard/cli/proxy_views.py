"""``modelyard requests``, ``replicas`` and ``explain``: what a running proxy says of itself, as tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urlsplit
from urllib.request import ProxyHandler, Request, build_opener

import rich_click as click
from rich.table import Table
from rich.text import Text

from modelyard.cli.console import fail, out, print_json
from modelyard.cli.tables import age, cell, rows, state

CommandT = TypeVar("CommandT", bound=Callable[..., Any])

_PATIENCE_S = 15.0
_STATES = {"streaming": "green", "waiting": "yellow", "queued": "yellow", "hung": "red", "failing": "red"}

_REQUESTS = ("id", "model", "replica", "state", "age", "events", "bytes", "attempt", "route", "client")
_REPLICAS = (
    "replica",
    "model",
    "state",
    "reason",
    "since",
    "in flight",
    "running",
    "waiting",
    "cache",
    "weight",
)
_CANDIDATES = ("", "model", "replica", "state", "why", "in flight", "weight")


def _options(command: CommandT) -> CommandT:
    """Where the proxy is, and how it knows the operator."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print what the proxy answered."),
        click.option(
            "--key-file",
            required=True,
            envvar="MODELYARD_ADMIN_KEY_FILE",
            show_envvar=True,
            type=click.Path(dir_okay=False, path_type=Path),
            help="File with the proxy's management key.",
        ),
        click.option(
            "--url",
            default="http://127.0.0.1:8000",
            show_default=True,
            envvar="MODELYARD_URL",
            show_envvar=True,
            help="Address of the proxy.",
        ),
    ):
        command = option(command)
    return command


@click.command()
@_options
@click.option("--limit", type=click.IntRange(1, 5000), default=50, show_default=True, help="Rows at most.")
def requests(url: str, key_file: Path, limit: int, as_json: bool) -> None:
    """Show what a proxy is serving now, oldest first."""
    told = _ask(url, key_file, "/admin/requests", {"limit": limit}, as_json=as_json)
    if as_json:
        print_json(told)
        return
    table = _table(_REQUESTS)
    for row in rows(told.get("requests")):
        table.add_row(
            *map(cell, (row.get("id"), row.get("model"), row.get("replica"))),
            _state(row.get("state")),
            Text(f"{row.get('age_s', 0):.1f} s"),
            *map(cell, (row.get(name) for name in ("events", "bytes", "attempt", "route", "client"))),
        )
    out().print(table)
    shown, total = table.row_count, told.get("total", 0)
    out().print(f"{total} in flight" + (f", the oldest {shown} shown" if shown < total else ""))


@click.command()
@_options
def replicas(url: str, key_file: Path, as_json: bool) -> None:
    """Show what a proxy knows of every replica, and why."""
    told = _ask(url, key_file, "/admin/replicas", {}, as_json=as_json)
    if as_json:
        print_json(told)
        return
    table, now = _table(_REPLICAS), datetime.now(UTC)
    for row in rows(told.get("replicas")):
        load = row.get("load") or {}
        since = row.get("since")
        table.add_row(
            *map(cell, (row.get("id"), row.get("model"))),
            _state(row.get("state")),
            cell(row.get("reason")),
            age(since, now) if since else cell(None),
            *map(cell, (row.get("in_flight"), _number(load, "running"), _number(load, "waiting"))),
            cell(None if load.get("kv_usage") is None else f"{load['kv_usage']:.0%}"),
            cell(row.get("weight")),
        )
    out().print(table)


@click.command()
@click.argument("model")
@_options
@click.option("--session", metavar="NAME", help="What the policies session_hash and prefix_hash stick to.")
def explain(model: str, url: str, key_file: Path, session: str | None, as_json: bool) -> None:
    """Show where a request for MODEL would go now, and why not elsewhere."""
    asked = {"model": model, **({"session": session} if session else {})}
    told = _ask(url, key_file, "/admin/explain", asked, as_json=as_json)
    if as_json:
        print_json(told)
        return
    table = _table(_CANDIDATES)
    for tried in rows(told.get("models")):
        for row in rows(tried.get("replicas")):
            mark = "→" if row.get("chosen") and tried.get("model") == told.get("serving") else ""
            table.add_row(
                Text(mark, style="bold green"),
                *map(cell, (tried.get("model"), row.get("replica"))),
                _state(row.get("state")),
                *map(cell, (row.get("why"), row.get("in_flight"), row.get("weight"))),
            )
    out().print(table)
    chosen, serving = told.get("chosen"), told.get("serving")
    if chosen is None:
        out().print("no replica can take a request now")
    else:
        out().print(
            f"chosen: {chosen}" + (f", of the fallback {serving}" if serving != told.get("model") else "")
        )


def _table(columns: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(name, overflow="fold")
    return table


def _state(value: Any) -> Text:
    return Text(str(value), style=_STATES[value]) if value in _STATES else state(value)


def _number(load: Mapping[str, Any], name: str) -> int | None:
    value = load.get(name)
    return None if value is None else int(value)


def _ask(url: str, key_file: Path, path: str, query: Mapping[str, Any], *, as_json: bool) -> dict[str, Any]:
    """The object that the proxy answers. Ends the command with one sentence where there is none."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise click.BadParameter(f"{url!r} is no http or https address", param_hint="--url")
    try:
        key = key_file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as exc:
        fail(f"{key_file} cannot be read ({exc}); name the file with the management key", as_json=as_json)
    address = f"{url.rstrip('/')}{path}" + (f"?{urlencode(query)}" if query else "")
    request = Request(address, headers={"Authorization": f"Bearer {key}"})  # noqa: S310 - checked above
    try:
        # the key is for this address and for no proxy on the way
        with build_opener(ProxyHandler({})).open(request, timeout=_PATIENCE_S) as answer:
            told = json.load(answer)
    except HTTPError as exc:
        with exc:
            fail(_refused(url, exc), as_json=as_json)
    except (URLError, TimeoutError, OSError) as exc:
        reason = getattr(exc, "reason", exc)
        fail(f"no proxy answers at {url} ({reason}); name it with --url", as_json=as_json)
    except ValueError:
        told = None
    if not isinstance(told, dict):
        fail(f"what answers at {url} is no proxy of ours; name one with --url", as_json=as_json)
    return told


def _refused(url: str, error: HTTPError) -> str:
    try:
        told = json.load(error)
        said = str(told["error"])
        code = told.get("code")
    except (ValueError, KeyError, TypeError, AttributeError):
        said, code = f"{url} answered {error.code}", None
    if error.code == 401:
        return f"{url} does not know this management key; give the file that the proxy was started with"
    if code == "no_such_route":
        return f"{url} has no /admin routes; start the proxy with --admin-key-file"
    return said
