"""Engine arguments to command-line flags, and back into something that can be compared."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any


def to_flags(args: Mapping[str, Any], rules: Mapping[str, Any]) -> list[str]:
    """The flags for a model's ``args`` under an engine's ``arguments`` rules, in order of name.

    A number or string follows its flag; true is the bare flag; false the negated one, or nothing where the
    engine has no negation; a list puts its values after one flag; a mapping becomes JSON.
    """
    flags: list[str] = []
    for name in sorted(args):
        value = args[name]
        words = name.replace("_", rules["word_separator"])
        flag = rules["prefix"] + words
        if value is True:
            flags.append(flag)
        elif value is False:
            if rules["negation"]:
                flags.append(rules["negation"] + words)
        elif isinstance(value, Mapping):
            flags += [flag, json.dumps(value, sort_keys=True, separators=(",", ":"))]
        elif isinstance(value, list | tuple):
            flags += [flag, *(str(item) for item in value)]
        elif value is not None:
            flags += [flag, str(value)]
    return flags


def from_flags(command: Sequence[str]) -> dict[str, str]:
    """A command line as a mapping that people can read: flag name with underscores -> its values.

    What stands before the first flag has the name ``command``. A negated flag (``--no-x``) is ``x: false``.
    """
    found: dict[str, list[str]] = {}
    name = "command"
    for word in command:
        if word.startswith("--") and len(word) > 2:
            name, _, value = word[2:].partition("=")
            name = name.replace("-", "_")
            found[name] = [value] if value else []
        else:
            found.setdefault(name, []).append(word)
    out: dict[str, str] = {}
    for key, values in found.items():
        if not values and key.startswith("no_"):
            out[key[3:]] = "false"
        else:
            out[key] = " ".join(values) if values else "true"
    return out
