"""Why a broker could not be had in a container."""

from __future__ import annotations


class ContainersUnavailable(Exception):
    """There is no container engine, or an image is neither here nor can be pulled. The text says what to do."""


class BrokerNotReady(Exception):
    """The container did not start, or its broker did not answer before the deadline. The text ends with its log."""
