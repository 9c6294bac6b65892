"""Fixtures of this room."""

from __future__ import annotations

from tests.hosts.fixtures import lab, parts, plain_host, start_hosts

__all__ = ["lab", "parts", "plain_host", "start_hosts"]
