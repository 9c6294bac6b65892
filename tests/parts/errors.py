"""What goes wrong while parts are built, in words that say what to do next."""

from __future__ import annotations


class PartError(RuntimeError):
    """A part cannot be built or used; the message says why and what would help."""
