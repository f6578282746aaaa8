"""What Oban logs while the database is away: one line in a while instead of a traceback a second."""

from __future__ import annotations

import logging
import time

_LOGGERS = ("_leader", "_lifeline", "_notifier", "_producer", "_pruner", "_refresher", "_scheduler", "_stager")
_AGAIN_SECONDS = 60.0


class RepeatFilter(logging.Filter):
    """Passes the same message once a minute, without its traceback unless that is debugged.

    Example:
        >>> repeat_filter = RepeatFilter()
        >>> record = logging.makeLogRecord({"msg": "no connection", "levelno": logging.WARNING})
        >>> repeat_filter.filter(record), repeat_filter.filter(record)
        (True, False)
    """

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """See `logging.Filter`."""
        if record.levelno < logging.WARNING or logging.getLogger("oban").isEnabledFor(logging.DEBUG):
            return True
        key, now = (record.name, str(record.msg)), time.monotonic()
        if now - self._last.get(key, -_AGAIN_SECONDS) < _AGAIN_SECONDS:
            return False
        self._last[key] = now
        record.msg, record.args = " ".join(record.getMessage().split()), ()
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            if str(error) not in record.msg:
                record.msg = f"{record.msg}: {type(error).__name__}: {' '.join(str(error).split())}"
            record.exc_info = record.exc_text = None
        return True


_repeat_filter = RepeatFilter()


def filter_oban_logs() -> None:
    """Apply this to Oban's loops; doing so twice changes nothing."""
    for name in _LOGGERS:
        logging.getLogger(f"oban.{name}").addFilter(_repeat_filter)
