from __future__ import annotations

import json
import os
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest

from flowstone.config import DEFAULT_OBAN, DEFAULT_QUEUES, Settings, read_settings, settings_schema, variable_of
from flowstone.core.clean import mask_secrets
from flowstone.errors import ConfigurationError


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in os.environ:
        if name.startswith("FLOWSTONE_"):
            monkeypatch.delenv(name)
    (tmp_path / ".git").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_documented_defaults() -> None:
    settings = Settings.load()
    assert settings == Settings()
    assert (settings.database_url, settings.executor) == (None, "auto")
    assert (settings.beat_seconds, settings.lease_seconds, settings.grace_seconds) == (5, 30, 30)
    assert (settings.deps_timeout_seconds, settings.snooze_seconds, settings.sweep_seconds) == (3600, 30, 15)
    assert (
        settings.queues
        == DEFAULT_QUEUES
        == {
            "assets": 10,
            "priority": 5,
            "backfill": 20,
            "checkpoints": 2,
            "sensors": 3,
        }
    )


def test_file_then_environment_then_arguments(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "flowstone.toml").write_text('executor = "serial"\nstorage = "file"\napp = "file:app"\n')
    monkeypatch.setenv("FLOWSTONE_STORAGE", "environment")
    monkeypatch.setenv("FLOWSTONE_APP", "environment:app")
    monkeypatch.setenv("FLOWSTONE_EXECUTOR", "")
    settings = Settings.load(app="argument:app", database_url=None)
    assert (settings.executor, settings.storage, settings.app) == ("serial", "environment", "argument:app")


def test_the_nearest_file_counts_and_the_project_is_the_limit(place: Path) -> None:
    (place / "pyproject.toml").write_text('[project]\nname = "x"\n[tool.flowstone]\nexecutor = "async"\n')
    below = place / "a" / "b"
    below.mkdir(parents=True)
    assert Settings.load(directory=below).executor == "async"
    (place / "a" / "pyproject.toml").write_text('[project]\nname = "y"\n')
    assert Settings.load(directory=below).executor == "async"
    (place / "a" / "flowstone.toml").write_text('executor = "sync"\n')
    assert Settings.load(directory=below).executor == "sync"
    project = place / "other"
    (project / ".git").mkdir(parents=True)
    assert Settings.load(directory=project).executor == "auto"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('exekutor = "sync"', r"there is no setting 'exekutor'. Did you mean 'executor'"),
        ("beat_seconds = 0", "beat_seconds=0 must be"),
        ("beat_seconds = true", "beat_seconds=True must be"),
        ('beat_seconds = "5"', "beat_seconds='5' must be"),
        ("sweep_seconds = nan", "sweep_seconds=nan must be"),
        ("beat_seconds = 20", "at least twice beat_seconds"),
        ("[queues]", "queues="),
        ("queues = 5", "queues=5"),
        ("[queues]\nassets = 0", "queues="),
        ('[queues]\nassets = "10"', "queues="),
        ("executor = 5", "executor=5 must be text"),
        ("storage = 5", "storage=5 must be text"),
        ("not toml", "cannot be read"),
    ],
)
def test_bad_files_are_named_with_the_problem(place: Path, text: str, complaint: str) -> None:
    (place / "flowstone.toml").write_text(text)
    with pytest.raises(ConfigurationError, match=complaint) as caught:
        Settings.load()
    assert "flowstone.toml" in str(caught.value)


def test_unknown_arguments_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="Did you mean 'executor'"):
        Settings.load(executr="sync")


def test_a_broken_pyproject_of_another_else_does_not_matter(place: Path) -> None:
    (place / "pyproject.toml").write_text("not toml")
    assert Settings.load() == Settings()


def test_settings_are_frozen_and_keep_passwords_to_themselves() -> None:
    settings = Settings(database_url="postgresql://me:hunter2@host/db")
    assert "hunter2" not in repr(settings)
    with pytest.raises(FrozenInstanceError):
        settings.executor = "sync"  # type: ignore[misc]


def give_away(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a file or folder that of another user, by becoming another user where root is needed for more."""
    if os.geteuid() == 0:
        os.chown(path, 12_345, 12_345)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12_345)


@pytest.mark.parametrize("name", ["flowstone.toml", "pyproject.toml"])
@pytest.mark.parametrize("how", ["stranger", "everybody", "group", "folder"])
def test_a_file_that_another_user_may_write_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch, name: str, how: str
) -> None:
    path = place / name
    path.write_text(("[tool.flowstone]\n" if name == "pyproject.toml" else "") + 'app = "evil:flow"\n')
    assert Settings.load().app == "evil:flow"
    match how:
        case "stranger":
            give_away(path, monkeypatch)
        case "everybody":
            path.chmod(0o646)
        case "group" if os.geteuid() == 0:
            os.chown(path, 0, 12_345)
            path.chmod(0o664)
        case "group":
            pytest.skip("needs a group of several users")
        case "folder":
            place.chmod(0o1777)
    with pytest.raises(ConfigurationError, match=f"{name} is not used: .*FLOWSTONE_SAFE_DIRECTORY={place}"):
        Settings.load()
    monkeypatch.setenv("FLOWSTONE_SAFE_DIRECTORY", f"/elsewhere{os.pathsep}{place}")
    assert Settings.load().app == "evil:flow"


def test_nothing_from_a_shared_folder_above_counts(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shared = place / "shared"
    below = shared / "mine" / "deep"
    below.mkdir(parents=True)
    (shared / "flowstone.toml").write_text('app = "evil:flow"\n')
    assert Settings.load(directory=below).app == "evil:flow"
    shared.chmod(0o1777)
    assert Settings.load(directory=below).app is None
    assert f"{shared / 'flowstone.toml'} is ignored" in caplog.text
    shared.chmod(0o755)
    monkeypatch.setenv("HOME", str(shared))
    assert Settings.load(directory=below).app is None
    monkeypatch.delenv("HOME")
    give_away(shared, monkeypatch)
    if os.geteuid() == 0:
        assert Settings.load(directory=below).app is None


def test_a_symbolic_link_is_followed_to_who_may_write(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = place / "elsewhere.toml"
    target.write_text('app = "evil:flow"\n')
    (place / "flowstone.toml").symlink_to(target)
    assert Settings.load().app == "evil:flow"
    target.chmod(0o666)
    with pytest.raises(ConfigurationError, match=r"everybody may write to .*elsewhere\.toml"):
        Settings.load()


def test_secrets_of_settings_and_environment_are_masked_wherever_they_stand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SHOP_API_TOKEN", "tok-planted-7")
    monkeypatch.setenv("CACHE_URL", "redis://:cache%21planted@h/0")
    monkeypatch.setenv("LICENSE_PASSWORD_FILE", "/run/secrets/planted")
    Settings(database_url="postgresql://me:p%40ss-planted@h/x?sslpassword=ssl-planted")
    Settings(database_url="host=h password='two words \\' planted' user=me")
    for value in (
        "tok-planted-7",
        "cache!planted",
        "cache%21planted",
        "p@ss-planted",
        "p%40ss-planted",
        "ssl-planted",
        "two words ' planted",
    ):
        assert mask_secrets(f"it said <{value}> twice: {value}!") == "it said <***> twice: ***!"
    assert mask_secrets("see /run/secrets/planted") == "see /run/secrets/planted"


def test_what_is_set_for_oban_comes_from_file_environment_and_arguments(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Settings().oban == {"prune_after_seconds": 86_400, "metrics": False, "name": "flowstone"}
    (place / "flowstone.toml").write_text('[oban]\nprune_after_seconds = 7\nname = "shop"\n')
    monkeypatch.setenv("FLOWSTONE_OBAN_METRICS", "yes")
    monkeypatch.setenv("FLOWSTONE_OBAN_NAME", "night")
    assert Settings.load().oban == {"prune_after_seconds": 7, "metrics": True, "name": "night"}
    assert Settings.load(oban={"metrics": False}).oban["name"] == "night"
    for never in ("0", "none"):
        monkeypatch.setenv("FLOWSTONE_OBAN_PRUNE_AFTER_SECONDS", never)
        assert Settings.load().oban["prune_after_seconds"] is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"prune_after": 1}, "no setting 'prune_after'. Did you mean 'prune_after_seconds'"),
        ({"prune_after_seconds": -1}, "prune_after_seconds=-1 must be a number of seconds, 0 or None for never"),
        ({"prune_after_seconds": "1 day"}, "prune_after_seconds='1 day'"),
        ({"prune_after_seconds": True}, "prune_after_seconds=True"),
        ({"prune_after_seconds": float("nan")}, "prune_after_seconds=nan"),
        ({"metrics": 1}, "metrics=1 must be true or false"),
        ({"name": ""}, "name='' must be text"),
        (["name"], "must map names to values"),
    ],
)
def test_what_cannot_be_set_for_oban_is_named(place: Path, given: object, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Settings(oban=given)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=message):
        Settings.load(oban=given)


def test_what_the_environment_or_the_file_says_wrong_of_oban_names_the_place(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "flowstone.toml").write_text("[oban]\nprunes = 7\n")
    with pytest.raises(ConfigurationError, match=r"flowstone\.toml: oban: there is no setting 'prunes'"):
        Settings.load()
    (place / "flowstone.toml").write_text("oban = 7\n")
    with pytest.raises(ConfigurationError, match=r"flowstone\.toml: oban=7 must map"):
        Settings.load()
    (place / "flowstone.toml").unlink()
    monkeypatch.setenv("FLOWSTONE_OBAN_METRICS", "maybe")
    with pytest.raises(ConfigurationError, match="FLOWSTONE_OBAN_METRICS='maybe' must be true or false"):
        Settings.load()


@pytest.mark.parametrize(
    "url", ["flow.example.com", "ftp://flow.example.com", "https://", "https://a b", "https://x\n"]
)
def test_the_address_of_the_dashboard_is_one(url: str) -> None:
    with pytest.raises(ConfigurationError, match="dashboard_url"):
        Settings(dashboard_url=url).check("Settings(...)")


def test_every_setting_has_a_variable_and_a_file(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {
        "queues": "assets=3, backfill=4",
        "previews": "yes",
        "notifications": "off",
        "dashboard_url": "https://flow.example.com/x",
        "memory_steps": "7",
        "secrets": "A,B",
        "executor": "sync",
    }
    expected = {
        "queues": {"assets": 3, "backfill": 4},
        "previews": True,
        "notifications": False,
        "memory_steps": 7,
        "secrets": ("A", "B"),
    }
    for item in fields(Settings):
        if item.name == "oban":
            continue
        text = texts.get(item.name, "60" if item.name.endswith(("_seconds", "_days")) else "text")
        value = expected.get(item.name, 60.0 if item.name.endswith(("_seconds", "_days")) else text)
        with monkeypatch.context() as patch:
            patch.setenv(variable_of("lease_seconds"), "200")
            patch.setenv(variable_of(item.name), text if item.name != "lease_seconds" else "60")
            assert getattr(Settings.load(), item.name) == value
            patch.delenv(variable_of(item.name))
            (place / "secret").write_text(f"{text}\n")  # hedgedoc#31, podman#21257: nobody means the line break
            patch.setenv(f"{variable_of(item.name)}_FILE", str(place / "secret"))
            assert getattr(Settings.load(), item.name) == value


def test_parts_of_oban_from_files(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "name").write_text("ours")
    monkeypatch.setenv("FLOWSTONE_OBAN_NAME_FILE", str(place / "name"))
    assert Settings.load().oban["name"] == "ours"


@pytest.mark.parametrize(
    ("variable", "text", "says"),
    [
        ("FLOWSTONE_QUEUES", "assets", "assets=10,backfill=20"),
        ("FLOWSTONE_QUEUES", "assets=1,assets=2", "each name once"),
        ("FLOWSTONE_QUEUES", "=3", "FLOWSTONE_QUEUES: queues={'': 3} must map names"),
        (
            "FLOWSTONE_RETENTION_DAYS",
            "nan",
            "FLOWSTONE_RETENTION_DAYS: retention_days=nan must be a number of days",
        ),
        ("FLOWSTONE_RETENTION_DAYS", "-1", "from 0 to"),
        ("FLOWSTONE_LEASE_SECONDS", "1e400", "FLOWSTONE_LEASE_SECONDS: lease_seconds=inf must be"),
        ("FLOWSTONE_BEAT_SECONDS", "20", "FLOWSTONE_BEAT_SECONDS: beat_seconds=20.0 does not fit"),
        ("FLOWSTONE_STORAGE", "here\nthere", "text of one line"),
        ("FLOWSTONE_EXECUTOR", "\udcff", "text of one line"),
        ("FLOWSTONE_QUEUES", "assets=0", "limits of at least 1"),
        ("FLOWSTONE_PREVIEWS", "perhaps", "true or false"),
        ("FLOWSTONE_GRACE_SECONDS", "1m", "FLOWSTONE_GRACE_SECONDS='1m' must be a number"),
        ("FLOWSTONE_GRACE_SECONDS", "-1", "above 0"),
        ("FLOWSTONE_MEMORY_STEPS", "1.5", "a whole number"),
        ("FLOWSTONE_DATABASE_URL_FILE", "/gone/away", "cannot be read: No such file"),
        ("FLOWSTONE_DATABASE_URL_FILE", "/", "cannot be read: Is a directory"),
        ("FLOWSTONE_DATABASE_URL_FILE", "/dev/null", "the file is empty"),
        ("FLOWSTONE_DATABASE_URL_FILE", "/dev/zero", "larger than"),
    ],
)
def test_variables_that_cannot_be_read_are_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str, says: str
) -> None:
    monkeypatch.setenv(variable, text)
    with pytest.raises(ConfigurationError, match=says):
        Settings.load()


@pytest.mark.parametrize("name", [item.name for item in fields(Settings) if item.name != "secrets"])
@pytest.mark.parametrize("content", [b"postgresql://me:hunter2@db\n\nmore", b"x\0hunter2"])
def test_what_lies_in_a_file_is_not_shown(
    place: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes
) -> None:
    """A secret that was mounted for another variable; nothing is repeated, whatever it is taken for."""
    (place / "secret").write_bytes(content)
    variable = variable_of(name) if name != "oban" else "FLOWSTONE_OBAN_METRICS"
    monkeypatch.setenv(f"{variable}_FILE", "secret")
    with pytest.raises(ConfigurationError, match=f"{variable}_FILE='secret'") as caught:
        Settings.load()
    assert "hunter2" not in str(caught.value)


def test_white_space_around_a_value_is_meant_by_nobody(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "url").write_text("\ufeff  postgresql://me@db/data \r\n\n")
    monkeypatch.setenv("FLOWSTONE_DATABASE_URL_FILE", "url")
    monkeypatch.setenv("FLOWSTONE_PROJECT", " shop ")
    monkeypatch.setenv("FLOWSTONE_GRACE_SECONDS", " ")
    settings = Settings.load()
    assert settings.database_url == "postgresql://me@db/data"
    assert (settings.project, settings.grace_seconds) == ("shop", 30)


def test_a_home_directory_is_found_where_no_shell_is(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a settings file, a unit of systemd or a Compose file: else there is a directory named '~'."""
    monkeypatch.setenv("HOME", str(place))
    (place / "value").write_text("~/values")
    monkeypatch.setenv("FLOWSTONE_STORAGE_FILE", "~/value")
    assert Settings.load().storage == str(place / "values")
    assert Settings(storage="~/x").storage == str(place / "x")


def test_errors_name_where_a_setting_was_set(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "flowstone.toml").write_text("grace_seconds = 60\nlog_days = -1\n[oban]\nmetrics = true\n")
    with pytest.raises(ConfigurationError, match=r"flowstone\.toml: log_days=-1"):
        Settings.load()
    monkeypatch.setenv("FLOWSTONE_LOG_DAYS", "3")
    monkeypatch.setenv("FLOWSTONE_GRACE_SECONDS", "0")
    with pytest.raises(ConfigurationError, match=r"^FLOWSTONE_GRACE_SECONDS: grace_seconds"):
        Settings.load()
    with pytest.raises(ConfigurationError, match=r"^arguments: grace_seconds"):
        Settings.load(grace_seconds=-1)
    monkeypatch.delenv("FLOWSTONE_GRACE_SECONDS")
    monkeypatch.setenv("FLOWSTONE_OBAN_NAME", "x" * 101)
    with pytest.raises(ConfigurationError, match=r"^FLOWSTONE_OBAN_NAME, .*flowstone\.toml: oban: name"):
        Settings.load()
    assert read_settings()[1]["log_days"] == "FLOWSTONE_LOG_DAYS"


def test_a_pyproject_that_is_no_toml_is_not_passed_over(place: Path) -> None:
    """Else a misplaced quote would be an app without a database."""
    (place / "pyproject.toml").write_text('[tool.flowstone]\ndatabase_url = "postgresql://x\n')
    with pytest.raises(ConfigurationError, match=r"pyproject\.toml cannot be read"):
        Settings.load()
    (place / "pyproject.toml").write_text('[tool]\nflowstone = "x"\n')
    with pytest.raises(ConfigurationError, match="flowstone='x' must map names"):
        Settings.load()


def test_a_variable_and_its_file_are_one_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWSTONE_STORAGE", "here")
    monkeypatch.setenv("FLOWSTONE_STORAGE_FILE", "/dev/null")
    with pytest.raises(ConfigurationError, match="FLOWSTONE_STORAGE and FLOWSTONE_STORAGE_FILE are both set"):
        Settings.load()


def test_misspelt_variables_are_warned_of_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The service links of Kubernetes, and variables of others, are none of our business."""
    monkeypatch.setenv("FLOWSTONE_GRACE_SECOND", "5")
    monkeypatch.setenv("flowstone_app", "shop:flow")
    for other in (
        "FLOWSTONE_STORAGE_PORT",
        "FLOWSTONE_STORAGE_SERVICE_HOST",
        "FLOWSTONE_DEMO_REPO",
        "FLOWSTONE_APP_X",
    ):
        monkeypatch.setenv(other, "tcp://10.0.0.1")
    Settings.load()
    Settings.load()
    warnings = [record.getMessage() for record in caplog.records if "FLOWSTONE_" in record.getMessage()]
    assert sorted(warnings) == [
        "The environment variable FLOWSTONE_GRACE_SECOND is no setting. Did you mean FLOWSTONE_GRACE_SECONDS?",
        "The environment variable flowstone_app is no setting. Did you mean FLOWSTONE_APP?",
    ]


def test_named_variables_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LICENCE_OF_SHOP", "tr0ub4dor-license")
    monkeypatch.setenv("FLOWSTONE_SECRETS", "LICENCE_OF_SHOP, NOT_SET")
    Settings.load()
    assert mask_secrets("it is tr0ub4dor-license") == "it is ***"
    with pytest.raises(ConfigurationError, match="list of names"):
        Settings.load(secrets="LICENCE_OF_SHOP")


def test_the_schema_for_editors_is_current_and_agrees_with_the_settings() -> None:
    kept = Path(__file__).parents[1] / "docs" / "flowstone.schema.json"
    schema = json.loads(kept.read_text(encoding="utf-8"))
    assert schema == settings_schema(), "python -m flowstone.config > docs/flowstone.schema.json"
    assert set(schema["properties"]) == {item.name for item in fields(Settings)}
    assert set(schema["properties"]["oban"]["properties"]) == set(DEFAULT_OBAN)
    assert all(len(one["description"]) > 30 for one in schema["properties"].values())
    defaults = {name: one["default"] for name, one in schema["properties"].items() if "default" in one}
    assert all(getattr(Settings(), name) == value for name, value in defaults.items())
