"""What a managed host has beside its GPUs: disks, memory, clock, container engine, ports. Standard library only.

Parsers are pure; only what ``collect`` is given touches the machine, each command with a time limit, and nothing here
changes anything. All of it runs with Python 3.9. What cannot be found out has ``state`` unknown and a ``reason``.
"""
