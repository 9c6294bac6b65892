"""Typed keys under which a request carries what the layers tell each other."""

from __future__ import annotations

from aiohttp import web

from .answers import Shape
from .visit import Visit

REQUEST_ID_KEY = web.RequestKey("modelyard.request_id", str)
SHAPE = web.RequestKey("modelyard.shape", Shape)
VISIT = web.RequestKey("modelyard.visit", Visit)
STARTED = web.RequestKey("modelyard.started", bool)
