"""What the interpreter is told, so that it never stops the streams for long.

A full collection looks at every object there is: with a large registry that takes a tenth of a second. Requests
leave next to no cycles behind, and what a registry is made of is freed by counting alone.
"""

from __future__ import annotations

import gc
import sys

# what changes in a registry that is worth being left out of collections; less is looked at with all the rest
LARGE_CHANGE = 500


def settle() -> None:
    """Leave everything made so far out of all collections; called once a proxy stands, and after each large change
    of what it stands on. A thread that works beside the loop gives way to it sooner.
    """
    gc.freeze()
    gc.set_threshold(5_000, 10, 50)
    # the usual 5 ms are waited at each event of each stream while a thread works
    sys.setswitchinterval(0.0005)
