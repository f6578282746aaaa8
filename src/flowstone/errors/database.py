"""Errors of the database."""

from __future__ import annotations

from flowstone.errors.root import FlowStoneError, command


class DatabaseError(FlowStoneError, RuntimeError):
    """The database cannot be used as it is."""


class DatabaseUnavailableError(DatabaseError, ConnectionError):
    """The database does not answer."""

    def __init__(self, target: str, why: str) -> None:
        self.target = target
        self.why = why
        _, fatal, reason = why.partition("FATAL: ")
        answer = f"refuses the connection: {reason.strip()}" if fatal else f"does not answer: {why}"
        super().__init__(
            f"PostgreSQL at {target} {answer}. Check that the server runs and that "
            "FLOWSTONE_DATABASE_URL is right; `flowstone doctor` checks each part."
        )

    def while_waiting_for(self, what: str, seconds: float) -> DatabaseUnavailableError:
        """Return this error as one that names what was waited for when the database went away and stayed away."""
        kind, _, identifier = what.partition(" ")
        remedy = f"{kind} {identifier} goes on by itself: ask again with `{command('status', identifier)}`"
        return DatabaseUnavailableError(
            self.target, f"{self.why}. It has been away for {seconds:.0f} s while this waited for {what}; {remedy}"
        )


class PlanOutdatedError(DatabaseError):
    """A plan could not be placed: others committed or ended its steps all the while; planning again sees that."""

    def __init__(self, asset: str, partition: str) -> None:
        self.asset = asset
        self.partition = partition
        target = f"{asset} {partition}".rstrip()
        super().__init__(
            "The request could not be placed: each time that it was planned, others committed or ended a step of "
            f"it meanwhile, the last time {target}. Ask again, with fewer requests for the "
            "same targets at once."
        )


class SchemaVersionError(DatabaseError):
    """The tables are older or newer than this version of FlowStone."""

    def __init__(self, problem: str, *, remedy: str = "Run `flowstone db upgrade`.") -> None:
        super().__init__(f"{problem} {remedy}")


class MigrationChangedError(DatabaseError):
    """A migration that was applied differs from the one in this version."""

    def __init__(self, name: str, applied: str, found: str) -> None:
        self.name = name
        super().__init__(
            f"Migration {name} was applied with checksum {applied} but this version carries {found}. "
            "An applied migration must never change: install the version that applied it, or restore the file."
        )


class EmbeddedDatabaseError(DatabaseError):
    """The embedded PostgreSQL could not be started or joined."""
