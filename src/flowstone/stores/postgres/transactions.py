"""Transactions that are repeated when the database asks for it, or when the plan went stale."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from flowstone.errors import DatabaseError, PlanOutdatedError
from flowstone.stores.postgres.database import Database

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow

log = logging.getLogger(__name__)

_TRIES = 8
_RETRY_SECONDS = 30.0
_FIRST_PAUSE_SECONDS = 0.005
_MAX_PAUSE_SECONDS = 1.0


def in_transaction[T](
    database: Database, work: Callable[[Connection[TupleRow]], T], *, outdated_tries: int | None = None
) -> T:
    """Run one transaction, again after a deadlock or when the plan went stale meanwhile, with growing pauses.

    Args:
        database: where.
        work: does everything on the connection it is given; called once for each try.
        outdated_tries: how often a stale plan is tried; None as often as anything else.

    Raises:
        DatabaseError: it was refused time and again.
        PlanOutdatedError: the plan went stale time and again.
    """
    from psycopg import errors

    started, pause, tries, outdated = time.monotonic(), _FIRST_PAUSE_SECONDS, 0, 0
    while True:
        tries += 1
        try:
            with database.transaction() as connection:
                return work(connection)
        except (errors.DeadlockDetected, errors.SerializationFailure, PlanOutdatedError) as error:
            took = time.monotonic() - started
            is_outdated = isinstance(error, PlanOutdatedError)
            outdated += is_outdated
            if is_outdated and outdated == outdated_tries:
                raise
            if tries >= _TRIES and took >= _RETRY_SECONDS:
                raise DatabaseError(
                    f"A transaction was refused {tries} times in {took:.0f} s, the last time because of: {error}"
                ) from error
            log.debug("Transaction is repeated: %s", error)
            time.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - spreads those that were refused together
            pause = min(_MAX_PAUSE_SECONDS, pause * 2)
