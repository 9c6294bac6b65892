"""Engines as data: one YAML file each, read by the planner, the roles, the proxy and the documentation.

A new engine is one more file in ``engines/``. Nothing here runs anything.
"""

from modelyard.catalog.loader import Engine, EngineMetrics, load_engine, load_engines

__all__ = ["Engine", "EngineMetrics", "load_engine", "load_engines"]
