"""Whose GPUs a host has, by what the inventory calls its accelerator."""

from __future__ import annotations

VENDOR_OF = {"nvidia": "nvidia", "rocm": "amd"}
