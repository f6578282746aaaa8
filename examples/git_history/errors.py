"""What can be wrong with the repository that a user points the demo at; one clear line each."""

from __future__ import annotations

from pathlib import Path


class RepositoryError(ValueError):
    """Base of all errors about the analysed repository."""


class GitUnavailableError(RepositoryError):
    """There is no usable git program."""

    def __init__(self) -> None:
        super().__init__("The program 'git' was not found: install git 2.38 or newer and put it on PATH.")


class NotARepositoryError(RepositoryError):
    """The path is not, and is not inside, a git repository that git can read."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        super().__init__(f"{str(path)!r} is not a git repository ({reason}): give the path of a clone.")


class EmptyRepositoryError(RepositoryError):
    """The repository has no commit that HEAD reaches."""

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(
            f"The git repository {str(path)!r} has no commits on HEAD yet: "
            "commit something or check out a branch that has commits."
        )


class ShallowRepositoryError(RepositoryError):
    """The clone was made with `--depth`: its history is cut off and every number would be wrong."""

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(
            f"The git repository {str(path)!r} is a shallow clone with a cut history: run "
            "'git fetch --unshallow' in it first."
        )


class GitCommandError(RepositoryError):
    """Git failed while the history was being read; often a partial clone or a damaged object."""

    def __init__(self, command: str, *, code: int, message: str) -> None:
        self.command = command
        self.code = code
        super().__init__(
            f"'git {command}' failed with code {code} ({message or 'no message'}): run 'git fsck' in the "
            "repository; if it is a partial clone, run 'git fetch --refetch --no-filter' first."
        )


class MissingCommitError(RepositoryError):
    """Git passed over a commit, because its object is gone or damaged."""

    def __init__(self, commit: str) -> None:
        self.commit = commit
        super().__init__(f"Commit {commit} could not be read: run 'git fsck' in the repository.")
