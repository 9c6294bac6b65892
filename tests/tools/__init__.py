"""Programs that stand in for what a test cannot have, and tools of the repository's own upkeep."""

from pathlib import Path

UNREACHABLE_SSH = Path(__file__).resolve().with_name("unreachable-ssh")
