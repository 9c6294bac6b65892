"""Which release to go back to. Pure decisions over a model's records."""

from __future__ import annotations

from modelyard.errors import ConfigError
from modelyard.releases.records import APPLIED, Release
from modelyard.releases.store import Store


def effective(store: Store, release: Release) -> Release:
    """What a release truly is: of one that went back, the one that it went back to."""
    return store.find(release.rollback_of) or release


def previous(store: Store, held: int | None = None) -> Release:
    """What ran before the present release came, at whatever time that was.

    The present one is the one that the model is held at (``held``), else the newest record, even one that failed: what
    was tried last is what is to be left. Going back again goes on backwards from there, never forth. ConfigError when
    there is nothing before it.
    """
    if not store.releases:
        raise ConfigError(
            f"No release of {store.model} is recorded: the first deploy that changes it makes one."
        )
    newest = store.releases[-1]
    present = store.find(held) or effective(store, newest)
    for one in reversed(store.releases):
        if one.number < present.number and one.outcome == APPLIED:
            found = effective(store, one)
            if found.config != present.config:
                return found
    raise ConfigError(
        f"There is nothing before release {present.number} of {store.model} to go back to. "
        f"Recorded as applied: {_applied(store)}."
    )


def named(store: Store, number: int) -> Release:
    """The release with this number. ConfigError when it is not there or was never applied."""
    found = store.find(number)
    if found is None:
        raise ConfigError(
            f"There is no release {number} of {store.model}. Recorded as applied: {_applied(store)}."
        )
    if found.outcome != APPLIED:
        raise ConfigError(
            f"Release {number} of {store.model} was not applied (its outcome: {found.outcome}), so nobody knows that it "
            f"works. Recorded as applied: {_applied(store)}."
        )
    return effective(store, found)


def _applied(store: Store) -> str:
    return ", ".join(str(one.number) for one in store.releases if one.outcome == APPLIED) or "none"
