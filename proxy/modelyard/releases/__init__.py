"""What was applied: a record of every change of a model, holds at an earlier one, and what differs between them.

No Ansible import: the playbooks write and read these records through plugins, `modelyard history` reads them directly.
"""

from modelyard.releases.choice import named, previous
from modelyard.releases.differences import differences
from modelyard.releases.holds import Hold, Wished, apply_hold, has_ended
from modelyard.releases.records import APPLIED, FAILED, PUT_BACK, Release, config_hash, launch_of
from modelyard.releases.store import MOST_KEPT, Store, append, read_holds, read_releases, write_holds

__all__ = [
    "APPLIED",
    "FAILED",
    "MOST_KEPT",
    "PUT_BACK",
    "Hold",
    "Release",
    "Store",
    "Wished",
    "append",
    "apply_hold",
    "config_hash",
    "differences",
    "has_ended",
    "launch_of",
    "named",
    "previous",
    "read_holds",
    "read_releases",
    "write_holds",
]
