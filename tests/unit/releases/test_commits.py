"""The commit of a directory, and whether what is in it was committed."""

from __future__ import annotations

import subprocess
from pathlib import Path

from modelyard.releases.commits import commit_of


def git(directory: Path, *words: str) -> str:
    config = ("-c", "user.name=Ann", "-c", "user.email=ann@example.org")
    done = subprocess.run(
        ["git", "-C", str(directory), *config, *words], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def test_a_directory_without_git_and_a_repository_without_a_commit(tmp_path: Path) -> None:
    assert commit_of(tmp_path) is None
    git(tmp_path, "init", "--quiet")
    assert commit_of(tmp_path) is None
    assert commit_of(tmp_path / "missing") is None


def test_a_work_tree_is_clean_or_dirty_in_its_own_directory(tmp_path: Path) -> None:
    inventory, state = tmp_path / "inventory", tmp_path / "inventory" / ".modelyard"
    state.mkdir(parents=True)
    (inventory / "models.yml").write_text("models: []\n", encoding="utf-8")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "--quiet", "--message", "first")
    (state / "lock").touch()
    (tmp_path / "elsewhere").touch()
    head = git(tmp_path, "rev-parse", "HEAD")
    assert commit_of(inventory, state) == {"commit": head, "dirty": False}
    assert commit_of(inventory) == {"commit": head, "dirty": True}
    (inventory / "models.yml").write_text("models: [ ]\n", encoding="utf-8")
    assert commit_of(inventory, state) == {"commit": head, "dirty": True}
