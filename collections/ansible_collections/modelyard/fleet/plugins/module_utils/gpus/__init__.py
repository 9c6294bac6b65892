"""What the GPUs of a managed host are, and whether they are well. Standard library only; nothing here changes anything.

Parsers and the diagnosis are pure; only ``command``, ``host`` and what ``collect`` is given touch the machine. All of it
runs with Python 3.9. A value that cannot be found out is None with a reason under ``unknown``; a value that a card does
not have is None without one.
"""
