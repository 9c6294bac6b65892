"""Real parts for the tests: images, a tiny model and test hosts, built here and pulled from nowhere.

Everything is built from the distribution's and the Python package index's own packages, so no image
registry and no model hub is needed. Which mirrors and indexes those are, and which certificates they
need, is read from the machine's own configuration (:mod:`tests.parts.machine`) when a part is built.

A part is cached under a tag made from the files and versions that define it, so that an unchanged part
costs one look-up and a changed one is never served stale.

Only the standard library is used here: ``python -m tests.parts build`` works before any environment exists.
"""
