"""The desired-state contract: what an inventory may say about models and fleet settings, and what is wrong
with one.

No Ansible import: `check_files` reads the files themselves and knows lines and columns, `check` looks at
models and hosts that Ansible has resolved. Both return problems and never stop at the first one.
"""

from modelyard.inventory.adoption import wish_digest
from modelyard.inventory.capacity import capacity
from modelyard.inventory.check import check, check_files, locate, merge, named
from modelyard.inventory.defaults import host_settings, with_defaults
from modelyard.inventory.hosts import HostView, Resolved, patterns_of, unknown_terms
from modelyard.inventory.needs import needs
from modelyard.inventory.problems import Problem
from modelyard.inventory.schema import fleet_schema, models_schema
from modelyard.inventory.source import Sources, read_sources

__all__ = [
    "HostView",
    "Problem",
    "Resolved",
    "Sources",
    "capacity",
    "check",
    "check_files",
    "fleet_schema",
    "host_settings",
    "locate",
    "merge",
    "models_schema",
    "named",
    "needs",
    "patterns_of",
    "read_sources",
    "unknown_terms",
    "wish_digest",
    "with_defaults",
]
