"""A git repository, read only: which months have commits, and the commits and file changes of one month."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from git_history import git
from git_history.errors import (
    EmptyRepositoryError,
    NotARepositoryError,
    ShallowRepositoryError,
)
from git_history.records import (
    COMMIT_FORMAT,
    Commit,
    FileChange,
    first_of_month,
    moment,
    parse_commits,
    parse_numstat,
)

_METADATA = (
    "log",
    "--no-walk=unsorted",
    "--stdin",
    "-z",
    "--encoding=UTF-8",
    "--date=raw",
    "--no-show-signature",
)
_CHANGES = ("diff-tree", "--stdin", "--always", "-r", "-z", "--root", "--numstat", "-M", "-l1000")
_QUIET = ("--no-textconv", "--no-ext-diff", "--no-color")


class _MonthIndex:
    """Commit ids by month for the newest head that was asked for; several threads may ask at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._head = ""
        self._months: dict[date, bytes] = {}

    def of(self, objects: Path, head: str) -> dict[date, bytes]:
        with self._lock:  # held while git runs, so that eight threads do not walk the history eight times
            if self._head != head:
                self._months = _walk(objects, head)
                self._head = head
            return self._months


@dataclass(frozen=True, slots=True)
class Repository:
    """A git repository whose history can be read month by month.

    Cheap to open and safe to share between threads. HEAD is looked up on each use; the walk over all
    commits, which maps months to commit ids (about a second for 100,000 commits), is done once for each new
    HEAD. Reading a month then touches only the commits of that month.

    A month is that of the *committer* date in UTC: author dates survive a rebase and would move old months.
    Dates beyond the year 9999 count as 9999-12, dates that git cannot read as 1970-01.

    Args:
        path: where the repository was found, for messages.
        objects: its object store.

    Example:
        >>> repository = Repository.open("path/of/a/clone")  # doctest: +SKIP
        >>> for month in repository.months():  # doctest: +SKIP
        ...     print(month, sum(1 for _ in repository.commits(month)))
    """

    path: Path
    objects: Path
    _index: _MonthIndex = field(default_factory=_MonthIndex, repr=False, compare=False)

    @classmethod
    def open(cls, path: str | Path) -> Repository:
        """Find the repository at or around a path.

        Args:
            path: a work tree or a directory in it, a bare repository, or a linked worktree. `GIT_DIR` is
                ignored.

        Returns:
            The repository, which has at least one commit.

        Raises:
            NotARepositoryError: there is none, or git cannot read it.
            EmptyRepositoryError: HEAD has no commit.
            ShallowRepositoryError: the history is cut off.
            GitUnavailableError: git is not installed.
        """
        place = Path(path).expanduser().absolute()
        if not place.is_dir():
            raise NotARepositoryError(place, "no such directory")
        code, objects, problem = git.ask(place, ["rev-parse", "--path-format=absolute", "--git-path", "objects"])
        if code:
            raise NotARepositoryError(place, problem)
        repository = cls(path=place, objects=Path(objects.decode("utf-8", "surrogateescape")))
        repository.head()
        if git.ask(place, ["rev-parse", "--is-shallow-repository"])[1] == b"true":
            raise ShallowRepositoryError(place)
        return repository

    @property
    def name(self) -> str:
        """The directory's name, for titles; `project` for `project/.git` and `project.git`."""
        place = self.path.parent if self.path.name == ".git" else self.path
        return place.name.removesuffix(".git") or "repository"

    def head(self) -> str:
        """Return the id of the commit that HEAD names now, detached or not.

        Raises:
            EmptyRepositoryError: there is none.
        """
        code, head, _ = git.ask(self.path, ["rev-parse", "--verify", "--quiet", "HEAD"])
        if code or not head:
            raise EmptyRepositoryError(self.path)
        return head.decode("ascii")

    def months(self) -> list[date]:
        """Return the months that have commits reachable from HEAD, in order, each as its first day.

        Raises:
            GitCommandError: the history could not be read.
        """
        return sorted(self._by_month())

    def fingerprints(self) -> dict[date, str]:
        """Return, for each month, a hash of its commit ids: it changes exactly when the month's commits do.

        Raises:
            GitCommandError: the history could not be read.
        """
        return {month: hashlib.sha256(ids).hexdigest() for month, ids in self._by_month().items()}

    def commits(self, month: date) -> Iterator[Commit]:
        """Yield the commits of a month, parents before children.

        Args:
            month: its first day; a month without commits yields nothing.

        Raises:
            GitCommandError: the history could not be read.
        """
        if ids := self._by_month().get(month):
            yield from parse_commits(
                git.stream(self.objects, [*_METADATA, f"--format={COMMIT_FORMAT}"], given=ids)
            )

    def file_changes(self, month: date) -> Iterator[FileChange]:
        """Yield the file changes of a month, in the order of `commits`, paths in the order of git.

        Merges yield nothing: what they bring in was counted where it was written. Renames are detected at 50
        % similarity; beyond 1000 candidates in one commit only exact ones are.

        Args:
            month: its first day; a month without commits yields nothing.

        Raises:
            GitCommandError: the history could not be read.
            MissingCommitError: a commit could not be read.
        """
        if ids := self._by_month().get(month):
            output = git.stream(self.objects, [*_CHANGES, *_QUIET], given=ids)
            yield from parse_numstat(output, ids.splitlines())

    def _by_month(self) -> dict[date, bytes]:
        return self._index.of(self.objects, self.head())


def _walk(objects: Path, head: str) -> dict[date, bytes]:
    """Map each month to the ids of its commits, one in a line, ready to be fed to git."""
    months: dict[date, list[bytes]] = {}
    arguments = ["log", "--stdin", "--topo-order", "--reverse", "--format=%H %ct", "--no-show-signature"]
    for line in git.stream(objects, arguments, given=f"{head}\n".encode(), separator=b"\n"):
        commit, _, seconds = line.partition(b" ")
        months.setdefault(first_of_month(moment(seconds)), []).append(commit)
    return {month: b"\n".join([*commits, b""]) for month, commits in months.items()}
