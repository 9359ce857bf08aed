"""Python's garbage collector, kept away from what is there at start-up and stays."""

from __future__ import annotations

import gc


def freeze_heap() -> None:
    """Take what exists by now out of the collector's sight, unless somebody has done so before.

    A full collection stops every request, for a time that grows with the heap, and most of a service's heap is what
    it has imported: some 90 ms where without it they are 15. See ``gc.freeze``.
    """
    if gc.get_freeze_count() == 0:
        gc.collect()
        gc.freeze()
