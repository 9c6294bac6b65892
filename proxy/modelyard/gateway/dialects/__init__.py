"""Shapes: each module turns one API's requests into wishes and answers into that API's objects."""
