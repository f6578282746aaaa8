"""Notifications: what people are notified of by which rule, what was sent, what could not be, and what is late."""

from __future__ import annotations

from dataclasses import dataclass

from flowstone.core.notification import NotificationState
from flowstone.engine.insights.notifications import FreshnessLine, NotificationOverview
from flowstone.web.fields import number
from flowstone.web.registry import ActionCall, Confirm, Done, PageRequest, Role, action, page, url


@dataclass(frozen=True, slots=True)
class NotificationsQuery:
    """Which notifications are shown.

    Args:
        state: only those in this state.
        limit: how many.
    """

    state: NotificationState | None = None
    limit: int = number(50, minimum=1, maximum=200)


@dataclass(frozen=True, slots=True)
class NotificationsModel:
    """What people are notified of, and what is late.

    Args:
        found: rules and notifications.
        late: assets whose data are too old.
    """

    found: NotificationOverview
    late: tuple[FreshnessLine, ...]


@page("/notifications", template="notifications.html", query=NotificationsQuery, role=Role.VIEWER,
      title="Notifications", rail="Notifications")  # fmt: skip
def notifications(request: PageRequest[NotificationsQuery]) -> NotificationsModel:
    """Return what people are notified of, the newest first."""
    query, insights = request.query, request.insights
    late = tuple(one for one in insights.freshness() if one.late_since is not None)
    return NotificationsModel(insights.notifications(state=query.state, limit=query.limit), late)


@dataclass(frozen=True, slots=True)
class RetryForm:
    """What is to be sent again.

    Args:
        id: of the notification.
    """

    id: int


def _retrying(call: ActionCall[RetryForm]) -> Confirm:
    found = call.flow.notifications.message(call.form.id)
    return Confirm(f"Send “{found.subject[:200]}” again?", "Send", ("A worker that declares its rule sends it.",))


@action("/notifications/retry", title="Send again", form=RetryForm, role=Role.OPERATOR, confirm=_retrying)
def retry(call: ActionCall[RetryForm]) -> Done:
    """Have a notification sent that was given up, or waits for another try."""
    again = call.flow.notifications.retry(call.form.id)
    return Done(f"Notification {', '.join(map(str, again))} is sent again.", url("notifications"))
