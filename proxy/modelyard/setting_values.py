"""From the text of a variable or flag to the value of a setting; pure."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from .settings import Setting

_ORIGIN = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(:(?P<port>[0-9]{1,5}))?/?"
)
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


def convert(row: Setting, raw: Any) -> Any:
    """The value that ``raw`` stands for. Raises ``ValueError``, saying what it must be, for one that ``row`` does not
    allow.
    """
    if row.kind == "switch":
        return _switch(raw)
    if row.kind in ("integer", "number"):
        return _number(row, raw)
    if row.kind == "path":
        return Path(raw).expanduser()
    if row.kind == "url":
        return _url(str(raw).strip())
    if row.kind == "list":
        items = raw.split(",") if isinstance(raw, str) else list(raw)
        cleaned = tuple(str(item).strip() for item in items if str(item).strip())
        read = {"trusted_proxies": _network, "allowed_origins": _origin}[row.name]
        return tuple(map(read, cleaned))
    text = str(raw)
    if row.choices and text.lower() not in row.choices:
        raise ValueError(f"must be one of {', '.join(row.choices)}")
    return text.lower() if row.choices else text


def _switch(raw: Any) -> bool:
    if isinstance(raw, bool):
        return raw
    text = str(raw).lower()
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError("must be true or false")


def _number(row: Setting, raw: Any) -> float | int:
    try:
        value: float | int = int(raw) if row.kind == "integer" else float(raw)
    except (TypeError, ValueError):
        kind = "a whole number" if row.kind == "integer" else "a number"
        raise ValueError(f"must be {kind}") from None
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError("must be a finite number")
    if row.minimum is not None and value < row.minimum:
        raise ValueError(f"must be at least {row.minimum:g}")
    if row.maximum is not None and value > row.maximum:
        raise ValueError(f"must be at most {row.maximum:g}")
    return value


def _url(text: str) -> str:
    """A base URL; what could be a secret has no place in it, for settings are printed."""
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise ValueError("must be a URL such as http://127.0.0.1:4318")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("must be a URL without user, query and fragment")
    return text


def _network(item: str) -> str:
    try:
        ipaddress.ip_network(item, strict=False)
    except ValueError:
        raise ValueError(f"{item!r} is no network such as 10.0.0.0/8") from None
    return item


def _origin(item: str) -> str:
    """The origin as browsers write it: lower case, without the scheme's own port and without a slash."""
    if item == "*":
        return item
    match = _ORIGIN.fullmatch(item.lower())
    if match is None or int(match["port"] or 1) > 65535:
        raise ValueError(
            f"{item!r} is no web origin such as https://chat.example.org; * alone stands for all"
        )
    usual = {"http": "80", "https": "443"}[match["scheme"]]
    port = f":{match['port']}" if match["port"] not in (None, usual) else ""
    return f"{match['scheme']}://{match['host']}{port}"
