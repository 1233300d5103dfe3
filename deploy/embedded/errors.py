"""What goes wrong with a server."""

from __future__ import annotations


class ServiceError(Exception):
    """A server is missing, died, or did not become ready; ends with its last log lines."""


class PortTaken(ServiceError):
    """It died for want of a port that somebody took after it was chosen."""
