"""Weaknesses of a fleet's hosts: what is seen, as plain data without secrets, and what follows. Looks only."""
