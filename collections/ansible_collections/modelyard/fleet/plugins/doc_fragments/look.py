"""Documentation of what all modules that look at a host by its own tools have in common."""

from __future__ import annotations


class ModuleDocFragment:
    """Taken by ``extends_documentation_fragment: [modelyard.fleet.look]``."""

    DOCUMENTATION = r"""
options:
  timeout:
    description: Seconds that each command has to answer. One that does not is not asked again.
    type: float
    default: 20
  path:
    description: Directories to look for the tools in, instead of C(PATH) and the usual ones.
    type: list
    elements: path
    default: []
  proc:
    description: Where the kernel's C(/proc) is seen.
    type: path
    default: /proc
attributes:
  check_mode:
    description: Runs in check mode as it does otherwise.
    support: full
  diff_mode:
    description: There is never a difference.
    support: none
"""
