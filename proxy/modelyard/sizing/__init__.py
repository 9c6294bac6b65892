"""How much GPU memory a model needs, and where it fits. Pure but for ``files``; knows neither inventories nor hosts.

``read_model`` makes a model of a parsed ``config.json``, ``estimate`` says what a request of it needs, ``judge`` whether
that fits on a host's GPUs. The formulas stand where they are used, with their sources.
"""

from modelyard.sizing.estimate import KV_DTYPES, Estimate, Request, Share, estimate, resident_bytes, splits
from modelyard.sizing.files import CONFIG, model_at
from modelyard.sizing.fit import (
    UTILIZATION,
    Fit,
    Gpus,
    Known,
    check_utilization,
    corrected,
    gib,
    judge,
    required_bytes,
)
from modelyard.sizing.model import Model, read_model
from modelyard.sizing.wishes import RULES, UNTOLD_ARGS, asked_of, gpu_bytes, untold

__all__ = [
    "CONFIG",
    "KV_DTYPES",
    "RULES",
    "UNTOLD_ARGS",
    "UTILIZATION",
    "Estimate",
    "Fit",
    "Gpus",
    "Known",
    "Model",
    "Request",
    "Share",
    "asked_of",
    "check_utilization",
    "corrected",
    "estimate",
    "gib",
    "gpu_bytes",
    "judge",
    "model_at",
    "read_model",
    "required_bytes",
    "resident_bytes",
    "splits",
    "untold",
]
