"""Log records as JSON, one object a line, each with the step that wrote it and the trace that it belongs to."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

from flowstone import telemetry
from flowstone.core.clean import mask_secrets, masked_document

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
_RESERVED = frozenset({"time", "level", "logger", "exception", "stack", "trace_id", "span_id"})
_STEP = ("asset", "partition", "run_id", "attempt", "step_id")


class JsonFormatter(logging.Formatter):
    """Writes each record as one line of JSON.

    `time`, `level`, `logger`, `message`; inside a step `asset`, `partition`, `run_id`, `attempt` and `step_id`;
    inside a span `trace_id` and `span_id`; `exception` with a traceback; and whatever was passed as `extra`, under
    `extra_level` and so on where the name is one of these. What JSON cannot hold is written as text. Secrets are
    masked as they are everywhere else, in `extra` by the names of its values too.

    Example:
        >>> record = logging.LogRecord("shop", logging.INFO, "shop.py", 1, "%d orders", (3,), None)
        >>> json.loads(JsonFormatter().format(record))["message"]
        '3 orders'
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; never raises, whatever the record holds."""
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001 - arguments that do not fit are shown instead
            message = f"{record.msg!s} {record.args!r}"
        document: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": mask_secrets(message),
        }
        fields = telemetry.step_fields.get() or {}
        document |= {name: fields[name] for name in _STEP if name in fields}
        document |= _span()
        extra = {name: value for name, value in vars(record).items() if name not in _OWN}
        # fields that `StepLogFilter` leaves empty outside a step say nothing
        extra = {name: value for name, value in extra.items() if name not in _STEP or value != ""}
        document |= {(f"extra_{name}" if name in _RESERVED else name): one for name, one in _masked(extra).items()}
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        if record.exc_text:
            document["exception"] = mask_secrets(record.exc_text)
        if record.stack_info:
            document["stack"] = mask_secrets(self.formatStack(record.stack_info))
        return _line(document)


def _masked(extra: dict[str, Any]) -> dict[str, Any]:
    try:
        masked = masked_document(extra)
    except RecursionError:  # a document that holds itself is written as text
        return {name: _text(value) for name, value in extra.items()}
    assert isinstance(masked, dict)
    return masked


def _line(document: dict[str, Any]) -> str:
    try:
        return json.dumps(document, default=_text, allow_nan=False)
    except (TypeError, ValueError, RecursionError):  # keys, numbers or loops that JSON does not know
        plain = {
            str(name): value if isinstance(value, str | int) else _text(value) for name, value in document.items()
        }
        return json.dumps(plain)


def _text(value: object) -> str:
    try:
        return mask_secrets(str(value))
    except Exception:  # noqa: BLE001 - a value that cannot be written is no reason to lose the line
        return f"<{type(value).__name__}>"


def _span() -> dict[str, str]:
    """Return the span that is current here; nothing is imported for it."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return {}
    current = trace.get_current_span().get_span_context()
    if not current.is_valid:
        return {}
    return {"trace_id": f"{current.trace_id:032x}", "span_id": f"{current.span_id:016x}"}
