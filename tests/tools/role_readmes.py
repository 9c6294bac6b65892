"""Write each role's README from its argument_specs; with --check only say which are out of date."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]


def _sentences(text: Any) -> str:
    """A description, one string or a list of them, as one line."""
    return " ".join(text) if isinstance(text, list) else " ".join(str(text).split())


def _default(option: dict[str, Any]) -> str:
    if option.get("required"):
        return "**required**"
    if "default" not in option:
        return ""
    value = option["default"]
    shown = {True: "true", False: "false"}.get(value, value) if isinstance(value, bool) else value
    return f"`{shown}`" if shown != "" else "empty"


def _type(option: dict[str, Any]) -> str:
    kind = str(option.get("type", "str"))
    if "elements" in option:
        kind += f" of {option['elements']}"
    if "choices" in option:
        kind += ": " + ", ".join(f"`{choice}`" for choice in option["choices"])
    return kind


def _rows(options: dict[str, Any], prefix: str = "") -> list[str]:
    rows = []
    for name, option in options.items():
        text = _sentences(option.get("description", "")).replace("|", "\\|")
        rows.append(f"| `{prefix}{name}` | {_type(option)} | {_default(option)} | {text} |")
        rows += _rows(option.get("options", {}), f"{prefix}{name}.")
    return rows


def render(role: Path) -> str:
    """The README of one role."""
    specs = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text(encoding="utf-8"))[
        "argument_specs"
    ]
    lines = [
        f"# {role.name}",
        "",
        "<!-- Made from meta/argument_specs.yml by tests/tools/role_readmes.py: change it there. -->",
    ]
    for entry, spec in specs.items():
        title = "" if entry == "main" else f" (`tasks_from: {entry}.yml`)"
        lines += ["", f"{spec['short_description']}.{title}", ""]
        lines += [_sentences(part) for part in spec.get("description", [])]
        lines += ["", "| variable | type | default | meaning |", "|---|---|---|---|"]
        lines += _rows(spec.get("options", {}))
    scenarios = sorted(path.parent.name for path in role.glob("molecule/*/molecule.yml"))
    if scenarios:
        lines += ["", "## Tests", "", "In this directory, with the repository's environment:", ""]
        lines += [f"    molecule test -s {name}" for name in scenarios]
    return "\n".join(lines) + "\n"


def outdated(root: Path) -> list[Path]:
    """READMEs that are missing or differ from what they would be made to."""
    found = []
    for specs in sorted(root.glob("roles/*/meta/argument_specs.yml")):
        readme = specs.parents[1] / "README.md"
        if not readme.exists() or readme.read_text(encoding="utf-8") != render(specs.parents[1]):
            found.append(readme)
    return found


def main() -> int:
    """Run the command; 1 with --check when something is out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing, exit 1 when a README is out of date"
    )
    check = parser.parse_args().check
    stale = outdated(ROOT)
    for readme in stale:
        print(f"{readme.relative_to(ROOT)} {'is out of date' if check else 'written'}")
        if not check:
            readme.write_text(render(readme.parent), encoding="utf-8")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
