"""Errors that are shown to the user as one or two plain lines."""

from __future__ import annotations


class RbcedgeError(Exception):
    """Something failed: what, where and what to do. The command line prints it and exits with 1."""


class UsageError(RbcedgeError):
    """The command was asked for something that makes no sense. The command line exits with 2."""
