"""Transactions that are repeated when the database asks for it, or when the plan went stale."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from flowstone.errors import DatabaseError
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.placing import PlanOutdatedError

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow

log = logging.getLogger(__name__)

_TRIES = 8


def in_transaction[T](database: Database, work: Callable[[Connection[TupleRow]], T]) -> T:
    """Run one transaction, again after a deadlock or when the plan went stale meanwhile.

    Args:
        database: where.
        work: does everything on the connection it is given; called once for each try.

    Raises:
        DatabaseError: it was refused time and again.
    """
    from psycopg import errors

    again = (errors.DeadlockDetected, errors.SerializationFailure, PlanOutdatedError)
    for _ in range(_TRIES - 1):
        try:
            with database.transaction() as connection:
                return work(connection)
        except again as error:
            log.debug("Transaction is repeated: %s", error)
    try:
        with database.transaction() as connection:
            return work(connection)
    except again as error:
        raise DatabaseError(f"A transaction was refused {_TRIES} times: {error}") from error
