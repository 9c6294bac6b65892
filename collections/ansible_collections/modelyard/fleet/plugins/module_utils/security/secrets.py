"""Which arguments hold secrets, and whether a management key is one that can be guessed. Never repeats a value."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from ansible_collections.modelyard.fleet.plugins.module_utils.planner.flags import from_flags

# by its name; plurals such as max_tokens count things
_NAMED = re.compile(r"(?:^|_)(?:token|key|apikey|secret|password|passwd|passphrase|credential|credentials)$")
# by its look: keys of a model hub and of well-known services
_LOOKS = re.compile(r"(?:^|[=:\s\"'])(?:hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,})")
_WORTH_HIDING = 8
_SHORTEST = 24
_FEWEST_DIFFERENT = 8
_LEFT_IN_PLACE = (
    "changeme", "change-me", "password", "secret", "admin", "example", "default", "letmein", "modelyard", "qwerty",
)  # fmt: skip


def secret_arguments(words: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """Names of the arguments whose values are secrets: by name, by look, or as the value of a secret variable."""
    hidden = {
        value: name
        for name, value in environment.items()
        if len(value) >= _WORTH_HIDING and _NAMED.search(name.lower())
    }
    found = set()
    for name, value in from_flags(list(words)).items():
        flag = "an argument" if name == "command" else f"--{name.replace('_', '-')}"
        # a path is the file that the secret stands in
        named = _NAMED.search(name.lower()) and value not in ("true", "false", "") and value[:1] != "/"
        if named or _LOOKS.search(value):
            found.add(flag)
        else:
            found |= {
                f"{flag} (the value of {variable})" for secret, variable in hidden.items() if secret in value
            }
    return sorted(found)


def pairs(environment: Iterable[str]) -> dict[str, str]:
    """``NAME=value`` texts as a mapping."""
    return {name: value for name, _, value in (one.partition("=") for one in environment)}


def key_weakness(key: str) -> str:
    """Why a management key is no good, as the proxy itself judges it; empty when it is good."""
    if not key.isascii() or any(char.isspace() for char in key):
        return "must be one line of ASCII characters without spaces"
    if len(key) < _SHORTEST:
        return f"is shorter than {_SHORTEST} characters"
    without = re.sub("|".join(map(re.escape, _LEFT_IN_PLACE)), "", key.lower())
    if len(set(key)) < _FEWEST_DIFFERENT or len(without) < _SHORTEST // 2:
        return "is easy to guess"
    return ""
