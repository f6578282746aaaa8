"""What is committed becomes visible where others read it: in the committing transaction, or right after it.

Stores call this, and only when an IO manager of the app publishes. What cannot be published in the transaction is
noted by it; whoever committed it publishes it, and when that process dies or the other database is away, workers
do so with their next sweep (`ValuePublisher.catch_up`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Mapping, Sequence

from flowstone.core.clean import clean_text, plain_text
from flowstone.core.outcome import Succeeded
from flowstone.core.output import Publication, StoredOutput
from flowstone.core.step import AttemptResult, Target
from flowstone.errors import PublishingError, StorageError
from flowstone.protocols import IOManager, PublicationStore, PublishingIO

log = logging.getLogger("flowstone.publishing")

_PAUSES_SECONDS = (0.05, 0.5)
_PAGE = 100


class ValuePublisher:
    """Implements `flowstone.protocols.Publisher` for the IO managers of an app.

    Args:
        managers: those that publish, by name.
        noted: what is committed and not visible yet.
    """

    def __init__(self, managers: Mapping[str, PublishingIO], noted: PublicationStore) -> None:
        self._managers = managers
        self._noted = noted
        self._behind = False
        self._catching_up = threading.Lock()
        self._stopping = threading.Event()

    def publishes(self, completion: AttemptResult) -> bool:
        """Return whether committing the end of an attempt publishes something, which may take its time."""
        outcome = completion.outcome
        return isinstance(outcome, Succeeded) and self.concerns(outcome.stored)

    def concerns(self, stored: StoredOutput) -> bool:
        """Return whether readers outside see values of this IO manager."""
        return stored.io in self._managers

    def within(self, publications: Sequence[Publication], connection: object) -> list[Publication]:
        """Publish in the open transaction what lies in its database; return what is to be done after it."""
        later = []
        for one in publications:
            manager = self._managers[one.stored.io]
            if manager.in_transaction:
                try:
                    manager.publish(one, connection)
                except StorageError as error:  # an OSError, which says that the database is away
                    raise PublishingError(str(error)) from error
            else:
                later.append(one)
        return later

    def after(self, targets: Sequence[Target]) -> None:
        """Publish what was noted for some targets; what cannot be published now is tried again later."""
        if all(manager.in_transaction for manager in self._managers.values()):
            return
        try:
            self._publish(self._noted.pending(targets, limit=len(targets)))
            if self._behind:
                self.catch_up()
        except Exception as error:  # noqa: BLE001 - what is committed stays so
            self._behind = True
            log.warning("What was committed cannot be published for now: %s", clean_text(plain_text(error)))

    def catch_up(self) -> int:
        """Publish what others left behind, or was refused before; return how many publications that was.

        All that is noted is tried, so that what cannot be published holds nothing else up; of an IO manager whose
        storage does not answer the rest is left for the next time.
        """
        if not self._catching_up.acquire(blocking=False):
            return 0
        published, after = 0, 0
        away: set[str] = set()
        try:
            self._behind = False
            while page := self._noted.pending(limit=_PAGE, after=after):
                after = page[-1].token
                published += self._publish(page, again=True, away=away)
            return published
        finally:
            self._catching_up.release()

    def start(self, *, every_seconds: float) -> None:
        """Catch up now and then, on a worker: also with what processes left behind that died."""
        if all(manager.in_transaction for manager in self._managers.values()):
            return
        self._stopping.clear()
        threading.Thread(
            target=self._serve, args=(every_seconds,), name="flowstone-publishing", daemon=True
        ).start()

    def stop(self) -> None:
        """Catch up no more; what is noted is published by others."""
        self._stopping.set()

    def _serve(self, every_seconds: float) -> None:
        while not self._stopping.wait(every_seconds):
            try:
                self.catch_up()
            except Exception as error:  # noqa: BLE001 - tried again the next time
                log.warning("What was committed cannot be published for now: %s", clean_text(plain_text(error)))

    def _publish(
        self, publications: Iterable[Publication], *, again: bool = False, away: set[str] | None = None
    ) -> int:
        """Publish what is noted, each by itself; return how many that was.

        Args:
            publications: what is noted.
            again: whether it was tried before: then there is no haste.
            away: IO managers whose storage does not answer; more may be added.
        """
        away, published = set() if away is None else away, 0
        for one in publications:
            manager = self._managers.get(one.stored.io)
            if manager is None or manager.in_transaction or one.stored.io in away:
                continue  # an app that declares it does so, or a later try
            try:
                is_visible = self._try(manager, one, pauses=() if again else _PAUSES_SECONDS)
            except Exception as error:  # noqa: BLE001 - the others are published all the same
                self._behind = True
                if isinstance(error, StorageError) and error.kind == "unavailable":
                    away.add(one.stored.io)
                log.warning(
                    "%s %s is committed and not yet visible to other readers, and is tried again: %s",
                    one.asset,
                    one.partition_key,
                    clean_text(plain_text(error)),
                )
                continue
            self._noted.done(one)
            published += 1
            if not is_visible:
                log.warning(
                    "%s %s was not published: a newer publication of it is visible. After restoring the database "
                    "of the app from a backup, restore the version once more.",
                    one.asset,
                    one.partition_key,
                )
        return published

    def _try(self, manager: PublishingIO, publication: Publication, *, pauses: Sequence[float]) -> bool:
        for pause in pauses:
            try:
                return manager.publish(publication, None)
            except OSError:
                time.sleep(pause)
        return manager.publish(publication, None)


def publisher_of(managers: Mapping[str, IOManager], noted: PublicationStore) -> ValuePublisher | None:
    """Return what publishes the values of these IO managers; None when none of them does.

    Args:
        managers: by name.
        noted: what is committed and not visible yet.
    """
    found = {name: manager for name, manager in managers.items() if isinstance(manager, PublishingIO)}
    return ValuePublisher(found, noted) if found else None
