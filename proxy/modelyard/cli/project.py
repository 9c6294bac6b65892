"""Where the playbooks are: the directory that holds ``ansible.cfg`` beside ``playbooks/``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import modelyard
from modelyard.errors import ConfigError

HOME_VARIABLE = "MODELYARD_HOME"


def is_project(directory: Path) -> bool:
    """Whether playbooks can be run from here."""
    return (directory / "ansible.cfg").is_file() and (directory / "playbooks").is_dir()


def project_root(start: Path, environment: Mapping[str, str], *, package: Path | None = None) -> Path:
    """The project's directory: named by MODELYARD_HOME, else above ``start``, else around the package.

    ``package`` is the package's own directory, for an installation that points into a checkout. ConfigError
    when there is none.
    """
    named = environment.get(HOME_VARIABLE)
    if named:
        directory = Path(named).expanduser().resolve()
        if not is_project(directory):
            raise ConfigError(
                f"{HOME_VARIABLE} is {directory}, which holds no ansible.cfg beside playbooks/: "
                "set it to the checkout of Modelyard."
            )
        return directory
    package = package or Path(modelyard.__file__).parent
    for directory in (start.resolve(), *start.resolve().parents, *package.resolve().parents):
        if is_project(directory):
            return directory
    raise ConfigError(
        f"There are no playbooks above {start}: run this inside the checkout of Modelyard, "
        f"or set {HOME_VARIABLE} to it."
    )


def inventory_path(given: str, start: Path, root: Path) -> Path:
    """The inventory as a path, relative to ``start`` or else to the project; ConfigError if absent."""
    for base in (start, root):
        path = (base / given).resolve()
        if path.exists():
            return path
    raise ConfigError(
        f"There is no inventory {given!r}: name one with -i, or copy inventories/example to begin with."
    )
