"""Engines and GPUs as data: YAML files, read by the planner, the roles, the proxy and the documentation.

A new engine is one more file in ``engines/``, a new generation of GPUs one more entry in ``gpus/``. Nothing here runs
anything.
"""

from modelyard.catalog.gpu_loader import GpuGeneration, GpuVendor, load_gpus
from modelyard.catalog.loader import Engine, EngineMetrics, load_engine, load_engines

__all__ = [
    "Engine",
    "EngineMetrics",
    "GpuGeneration",
    "GpuVendor",
    "load_engine",
    "load_engines",
    "load_gpus",
]
