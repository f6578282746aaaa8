from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import hostile
import pytest
from hostile import Stream, modify, run_git

from git_history.errors import (
    EmptyRepositoryError,
    GitCommandError,
    GitUnavailableError,
    MissingCommitError,
    NotARepositoryError,
    ShallowRepositoryError,
)
from git_history.records import Commit, FileChange
from git_history.repository import Repository
from git_history.text import from_text


@pytest.fixture
def small(tmp_path: Path) -> Path:
    stream = Stream()
    stream.commit(modify(b"a.txt", b"1\n2\n"))
    stream.commit(modify(b"a.txt", b"1\n"), modify(b"b.txt", b"x\n"), date=b"1702592000 +0000")
    return stream.into(tmp_path / "small.git")


def all_commits(repository: Repository) -> list[Commit]:
    return [commit for month in repository.months() for commit in repository.commits(month)]


def all_changes(repository: Repository) -> list[FileChange]:
    return [change for month in repository.months() for change in repository.file_changes(month)]


def test_every_commit_is_in_exactly_one_month(hostile_path: Path) -> None:
    commits = all_commits(Repository.open(hostile_path))
    expected = run_git(hostile_path, "rev-list", "HEAD").decode().split()
    assert sorted(commit.id for commit in commits) == sorted(expected)


def test_months_of_strange_dates(hostile_path: Path) -> None:
    months = Repository.open(hostile_path).months()
    assert months[0] == date(1970, 1, 1)
    assert months[-3:] == [date(2038, 1, 1), date(2200, 1, 1), date(9999, 12, 1)]
    assert months == sorted(set(months))


def test_hostile_paths_arrive_unharmed(hostile_path: Path) -> None:
    changes = all_changes(Repository.open(hostile_path))
    seen = {from_text(change.path) for change in changes}
    odd = {hostile.SCRIPT_NAME, hostile.BIDI_PATH, hostile.LATIN1_PATH, hostile.NEWLINE_PATH, hostile.LONG_PATH}
    assert odd | {hostile.SHA_PATH, b"5\t5\tx", b"-\t-\t", b" lead"} <= seen
    renamed = [change for change in changes if change.previous_path is not None]
    assert [(from_text(e.previous_path or ""), from_text(e.path), e.added) for e in renamed] == [
        (hostile.RENAMED_FROM, hostile.RENAMED_TO, 0)
    ]
    assert [(change.added, change.deleted) for change in changes if change.path == "image.bin"] == [(None, None)]


def test_hostile_people_and_messages(hostile_path: Path) -> None:
    commits = all_commits(Repository.open(hostile_path))
    names = {commit.author_name for commit in commits}
    assert {"", "J\uf7f6rg", "René", "NoMail"} <= names
    assert "café" in {commit.subject for commit in commits}
    assert max(len(commit.subject) for commit in commits) <= 1000
    assert {commit.author_offset_minutes for commit in commits} == {0, 330, -720, 840, -420}
    octopus = next(commit for commit in commits if commit.subject == "octopus")
    assert octopus.parents == 5
    assert sum(commit.parents == 0 for commit in commits) == 4


def test_merges_have_no_changes_and_roots_have_all(hostile_path: Path) -> None:
    repository = Repository.open(hostile_path)
    changes = all_changes(repository)
    octopus = next(commit for commit in all_commits(repository) if commit.subject == "octopus")
    assert octopus.id not in {change.commit for change in changes}
    assert {"root0", "root1", "root2"} <= {change.path for change in changes}


@pytest.mark.parametrize(
    "dates", [(b"-1 +0000", b"-86400 +0000"), (b"", b""), (b"x", b"12 +0000 13"), (b"1 +x", b"1")]
)
def test_dates_that_git_cannot_read(small: Path, dates: tuple[bytes, bytes]) -> None:
    repository = Repository.open(hostile.with_raw_commit(small, dates))
    assert repository.months()[0] <= date(1970, 1, 1)
    assert len(all_commits(repository)) == 3


def test_a_month_without_commits_is_empty(small: Path) -> None:
    repository = Repository.open(small)
    assert list(repository.commits(date(1999, 1, 1))) == []
    assert list(repository.file_changes(date(1999, 1, 1))) == []


def test_parents_come_before_children_even_within_a_second(tmp_path: Path) -> None:
    stream = Stream()
    for number in range(50):
        stream.commit(modify(b"a", b"%d\n" % number), message=b"%d" % number)
    commits = all_commits(Repository.open(stream.into(tmp_path / "burst")))
    assert [commit.subject for commit in commits] == [str(number) for number in range(50)]


def test_opened_from_any_place_of_a_repository(small: Path, tmp_path: Path) -> None:
    clone, linked = tmp_path / "clone with space\n", tmp_path / "linked"
    run_git(tmp_path, "clone", "-q", str(small), str(clone))
    run_git(clone, "worktree", "add", "-q", "--detach", str(linked), "HEAD~1")
    (clone / "sub").mkdir()
    assert [
        len(all_commits(Repository.open(place))) for place in (clone, clone / "sub", clone / ".git", linked)
    ] == [
        *(2, 2, 2),
        1,  # the detached HEAD of the linked worktree is one commit behind
    ]
    assert Repository.open(clone / ".git").name == clone.name
    assert Repository.open(small).name == "small"


def test_the_environment_of_git_is_ignored(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = hostile.long_repository(tmp_path / "other", 5)
    expected = all_changes(Repository.open(small))
    for name, value in {
        "GIT_DIR": str(other),
        "GIT_OBJECT_DIRECTORY": str(other / "objects"),
        "GIT_EXTERNAL_DIFF": "false",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "diff.external",
        "GIT_CONFIG_VALUE_0": "false",
        "LANG": "de_DE.UTF-8",
    }.items():
        monkeypatch.setenv(name, value)
    assert all_changes(Repository.open(small)) == expected


def test_nothing_of_the_repository_runs_or_changes_the_output(small: Path, tmp_path: Path) -> None:
    clone, trace = tmp_path / "clone", tmp_path / "trace"
    run_git(tmp_path, "clone", "-q", str(small), str(clone))
    expected = all_changes(Repository.open(clone))
    script = tmp_path / "evil.sh"
    script.write_text(f"#!/bin/sh\necho ran >> '{trace}'\ncat\n")
    script.chmod(0o755)
    programs = (
        "diff.external core.fsmonitor diff.evil.textconv diff.evil.command filter.evil.clean core.sshCommand"
    )
    for key in programs.split():
        run_git(clone, "config", key, str(script))
    for key, value in {
        "diff.renames": "false",
        "log.showSignature": "true",
        "log.follow": "true",
        "i18n.logOutputEncoding": "UTF-16",
        "diff.orderFile": str(script),
        "format.pretty": "raw",
        "color.ui": "always",
    }.items():
        run_git(clone, "config", key, value)
    attributes = "* diff=evil filter=evil -text\na.txt binary\n"
    (clone / ".gitattributes").write_text(attributes)
    (clone / ".git" / "info" / "attributes").write_text(attributes)
    for hook in ("post-checkout", "reference-transaction", "fsmonitor-watchman"):
        (clone / ".git" / "hooks" / hook).write_text(script.read_text())
        (clone / ".git" / "hooks" / hook).chmod(0o755)
    assert all_changes(Repository.open(clone)) == expected
    assert not trace.exists()


def test_a_broken_head_with_a_promisor_remote_fetches_nothing(small: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    run_git(small, "config", "remote.evil.url", str(tmp_path))
    run_git(small, "config", "remote.evil.promisor", "true")
    run_git(small, "config", "remote.evil.uploadpack", f"touch '{trace}'; false")
    run_git(small, "config", "extensions.partialClone", "evil")
    (small / "HEAD").write_text("1" * 40 + "\n")
    with pytest.raises(GitCommandError, match="git fsck"):
        Repository.open(small).months()
    assert not trace.exists()


def test_replace_refs_and_grafts_are_ignored(small: Path) -> None:
    expected = all_commits(Repository.open(small))
    first, last = expected[0].id, expected[-1].id
    run_git(small, "replace", last, first)
    (small / "info").mkdir(exist_ok=True)
    (small / "info" / "grafts").write_text(f"{last}\n")
    assert all_commits(Repository.open(small)) == expected


def test_sha256_repositories(tmp_path: Path) -> None:
    stream = Stream()
    stream.commit(modify(b"a", b"1\n"))
    repository = Repository.open(stream.into(tmp_path / "sha256", options=("--object-format=sha256",)))
    assert [len(commit.id) for commit in all_commits(repository)] == [64]
    assert [change.path for change in all_changes(repository)] == ["a"]


def test_new_commits_are_seen(small: Path) -> None:
    repository = Repository.open(small)
    before = repository.months()
    hostile.with_raw_commit(small, (b"1800000000 +0000", b"1800000000 +0000"))
    assert repository.months() == [*before, date(2027, 1, 1)]


def test_many_threads_share_one_walk(small: Path) -> None:
    repository = Repository.open(small)
    barrier = threading.Barrier(8)

    def read(_: int) -> list[date]:
        barrier.wait(10)
        return repository.months()

    with ThreadPoolExecutor(8) as pool:
        assert {tuple(months) for months in pool.map(read, range(8))} == {(date(2023, 11, 1), date(2023, 12, 1))}


def test_reading_may_stop_early(tmp_path: Path) -> None:
    repository = Repository.open(hostile.long_repository(tmp_path / "long", 5000, per_day=1000))
    commits = repository.commits(date(2005, 1, 1))
    assert next(commits).subject == "change 0"
    commits.close()  # type: ignore[attr-defined]


class TestErrors:
    def test_no_directory(self, tmp_path: Path) -> None:
        with pytest.raises(NotARepositoryError, match="no such directory"):
            Repository.open(tmp_path / "missing")

    def test_not_a_repository(self, tmp_path: Path) -> None:
        with pytest.raises(NotARepositoryError, match="not a git repository") as caught:
            Repository.open(tmp_path)
        assert "\n" not in str(caught.value)

    def test_empty(self, tmp_path: Path) -> None:
        run_git(tmp_path, "init", "-q")
        with pytest.raises(EmptyRepositoryError, match="no commits on HEAD yet"):
            Repository.open(tmp_path)

    def test_shallow(self, small: Path, tmp_path: Path) -> None:
        run_git(tmp_path, "clone", "-q", "--depth=1", f"file://{small}", "shallow")
        with pytest.raises(ShallowRepositoryError, match="git fetch --unshallow"):
            Repository.open(tmp_path / "shallow")

    def test_git_is_missing(self, small: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        repository = Repository.open(small)
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(GitUnavailableError, match="install git"):
            repository.months()

    @pytest.mark.parametrize("lost", ["HEAD", "HEAD^{tree}", "HEAD:b.txt"])
    def test_a_missing_object_is_never_passed_over(self, small: Path, lost: str) -> None:
        repository = Repository.open(small)
        month = repository.months()[-1]
        name = run_git(small, "rev-parse", lost).decode()
        (small / "objects" / name[:2] / name[2:]).unlink()
        with pytest.raises((GitCommandError, MissingCommitError), match="git fsck"):
            list(repository.file_changes(month))
