"""The app: wires the parts together and delegates the verbs."""

from flowstone.app.flow import FlowStone

__all__ = ["FlowStone"]
