"""Engines: one file per runtime."""

from rbcedge.engines.base import Engine
from rbcedge.engines.loading import load_engines

__all__ = ["Engine", "load_engines"]
