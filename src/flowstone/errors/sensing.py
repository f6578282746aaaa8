"""Errors of sensors."""

from __future__ import annotations

from flowstone.errors.root import FlowStoneError


class SensorError(FlowStoneError, ValueError):
    """A sensor answered with what cannot work; nothing of its answer was placed, its cursor stays.

    Args:
        sensor: its name.
        problem: what is wrong, and what to do.
        where: `file:line` of the sensor, when known.
    """

    def __init__(self, sensor: str, problem: str, *, where: str = "") -> None:
        self.sensor = sensor
        self.where = where
        super().__init__(f"Sensor {sensor!r}{f' ({where})' if where else ''}: {problem}")
