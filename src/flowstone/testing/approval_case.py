"""What the parts of the approval conformance suite share."""

from __future__ import annotations

import pytest

from flowstone.core.approval import Approval
from flowstone.core.outcome import Suspended
from flowstone.core.state import State
from flowstone.core.step import PlacedStep
from flowstone.errors import ApprovalDecidedError
from flowstone.testing.marks import wait_until
from flowstone.testing.store_case import StoreCase
from flowstone.testing.store_scene import Scene


def suspended(message: str = "Go on?", **fields: object) -> Suspended:
    """Return the end of an attempt that asks."""
    return Suspended(message, **fields)  # type: ignore[arg-type]


class ApprovalCase(StoreCase):
    """Gives tests the verbs of asking and deciding."""

    def ask(self, scene: Scene, placed: PlacedStep, **fields: object) -> Approval:
        """Start an attempt that asks; return the request."""
        committed = scene.end(scene.claim(placed.id), suspended(**fields))  # type: ignore[arg-type]
        assert (committed.accepted, committed.state) == (True, State.AWAITING_APPROVAL)
        return scene.store.approvals.of_step(placed.id)[-1]

    def expire(self, scene: Scene) -> None:
        """Wait until one request has expired."""
        assert wait_until(lambda: scene.store.approvals.expire_due() == 1, timeout_seconds=10)

    def late(self, scene: Scene, approval_id: int, *, approve: bool = True) -> ApprovalDecidedError:
        """Decide what is over already."""
        with pytest.raises(ApprovalDecidedError) as caught:
            scene.store.approvals.decide(approval_id, approve=approve, by="late")
        return caught.value
