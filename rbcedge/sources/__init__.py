"""Where frames come from."""

from rbcedge.sources.base import Kind, Source
from rbcedge.sources.opening import open_source
from rbcedge.sources.options import SourceOptions

__all__ = ["Kind", "Source", "SourceOptions", "open_source"]
