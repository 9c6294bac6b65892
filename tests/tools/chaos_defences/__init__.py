"""The table of ``chaos_mutations``: which scenario rests on which defence, and how that is switched off."""

from __future__ import annotations

from .answers import ANSWERS
from .edits import Defence
from .life import LIFE

DEFENCES: tuple[Defence, ...] = (*ANSWERS, *LIFE)
