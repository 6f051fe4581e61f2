"""Errors that are shown to the user as one or two plain lines."""

from __future__ import annotations


class RbcedgeError(Exception):
    """Something failed: what, where and what to do. The command line prints it and exits with 1."""


class DeviceError(RbcedgeError):
    """A GPU failed while it was in use. What runs elsewhere may go on."""


class Unfit(RbcedgeError):
    """A device works, but has no room for pictures of this size, or no engine that takes them."""


class UsageError(RbcedgeError):
    """The command was asked for something that makes no sense. The command line exits with 2."""
