"""From what already runs, or is written down for another tool, to an inventory.

Each source is a pure function from data to ``Instance`` objects and remarks; ``gather`` makes models of them,
``files`` the inventory's text. What cannot be expressed becomes a remark: nothing is dropped in silence.
"""
