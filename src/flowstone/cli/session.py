"""One call of the command line: which app is meant, how it is imported, the output, and the end of it all.

`load_app` imports a module that may fail in any way; it shows the frames of the user's code, none of ours.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING

import flowstone
from flowstone.cli.env_file import variables_of_env_file
from flowstone.cli.given import Given
from flowstone.cli.known_names import remember
from flowstone.cli.output import Output
from flowstone.config import Settings, distrust, read_settings_file
from flowstone.core.clean import mask_secrets
from flowstone.core.project import DEFAULT_PROJECT
from flowstone.engine.logs import prints_kept
from flowstone.errors import AppLoadError, ConfigurationError, DatabaseError, FlowStoneError, did_you_mean

if TYPE_CHECKING:
    from flowstone.app import FlowStone

DEFAULT_ATTRIBUTES = ("flow", "app")
_OWN_CODE = str(Path(flowstone.__file__).parent)


def load_app(target: str, *, directory: Path) -> FlowStone:
    """Import an app.

    Args:
        target: `module:attribute` or `path/to/file.py:attribute`; the attribute is an app or a function without
            arguments that returns one, by default `flow`, then `app`.
        directory: where modules are found and relative paths start.

    Raises:
        AppLoadError: there is no such app, or its module failed; says where and why.
        DatabaseError: the app was found, its database does not answer.
    """
    kind = _app_class()
    name, attribute = split_target(target)
    if not name or (name.startswith(".") and not name.endswith(".py")):
        raise AppLoadError(target, "it names no module; write module:attribute or path/to/file.py:attribute")
    roots = [directory.absolute()]
    if name.endswith(".py"):
        root, name = _module_of(directory / name, target)
        roots.insert(0, root)
    for root in reversed(roots):
        if str(root) in sys.path:
            sys.path.remove(str(root))
        sys.path.insert(0, str(root))
    module = _guarded(lambda: _import(name), target, name=name, roots=roots)
    found = _attribute(module, attribute, target)
    if not isinstance(found, kind) and callable(found):
        found = _guarded(found, target)
    if not isinstance(found, kind):
        raise AppLoadError(target, f"it is {type(found).__name__}, not a FlowStone or a function returning one")
    return found


def _app_class() -> type[FlowStone]:
    """Return `FlowStone`; loaded at its first use, because many commands come without it."""
    found: type[FlowStone] = importlib.import_module("flowstone.app").FlowStone
    return found


def refuse_strangers_module(target: str, directory: Path) -> None:
    """Refuse an app that a settings file names when another user may write to its module or the packages above it.

    Args:
        target: as in `load_app`.
        directory: where modules are found.

    Raises:
        AppLoadError: says which file, and who may write to it.
    """
    name, _ = split_target(target)
    parts = Path(name).with_suffix("").parts if name.endswith(".py") else tuple(name.split("."))
    place = directory.absolute()
    for part in parts:
        place = place / part
        for path in (place.with_name(f"{place.name}.py"), place / "__init__.py"):
            reason = distrust(path, runs_code=True) if path.is_file() else None
            if reason is not None:
                raise AppLoadError(
                    target,
                    f"{path} is not imported: {reason}. Make it yours alone (chown and chmod go-w), name it with "
                    f"--app, or, when you trust everybody who may write there, set "
                    f"FLOWSTONE_SAFE_DIRECTORY={directory}",
                )


def split_target(target: str) -> tuple[str, str | None]:
    r"""Return module (or file) and attribute of a target.

    Example:
        >>> split_target("shop.assets:flow"), split_target("flows/shop.py"), split_target("C:\\shop.py")
        (('shop.assets', 'flow'), ('flows/shop.py', None), ('C:\\shop.py', None))
    """
    name, colon, attribute = target.rpartition(":")
    if not colon or attribute.endswith(".py"):
        return target, None
    return name, attribute or None


def _module_of(path: Path, target: str) -> tuple[Path, str]:
    """Return the directory to import from and the dotted name of a file, which may lie in a package."""
    path = path.expanduser().absolute()
    if not path.is_file():
        raise AppLoadError(target, f"there is no file {str(path)!r}")
    parts, directory = [path.stem], path.parent
    if path.stem == "__init__":
        parts = []
    while (directory / "__init__.py").is_file():
        parts.insert(0, directory.name)
        directory = directory.parent
    name = ".".join(parts)
    loaded = sys.modules.get(name)
    if loaded is not None and not _same_file(loaded, path):
        if name in sys.stdlib_module_names or name.partition(".")[0] == "flowstone":
            raise AppLoadError(target, f"a module named {name!r} exists already; give the file another name")
        del sys.modules[name]
    return directory, name


def _same_file(module: ModuleType, path: Path) -> bool:
    return bool(module.__file__) and Path(str(module.__file__)).absolute() == path


def _import(name: str) -> ModuleType:
    importlib.invalidate_caches()
    return importlib.import_module(name)


def _attribute(module: ModuleType, requested: str | None, target: str) -> object:
    for name in (requested,) if requested else DEFAULT_ATTRIBUTES:
        found: object = module
        for part in name.split("."):
            found = getattr(found, part, None)
        if found is not None:
            return found
    apps = [name for name, value in vars(module).items() if isinstance(value, _app_class())]
    if requested:
        hint = did_you_mean(requested, apps or [name for name in vars(module) if not name.startswith("_")])
        raise AppLoadError(target, f"the module has no {requested!r}.{hint}")
    hint = f" Write {split_target(target)[0]}:{apps[0]}." if apps else ""
    raise AppLoadError(target, f"the module has neither 'flow' nor 'app'.{hint}")


def _guarded[T](call: Callable[[], T], target: str, *, name: str = "", roots: list[Path] | None = None) -> T:
    """Run code of the user; whatever goes wrong there is reported with its place and cause."""
    try:
        return call()
    except (KeyboardInterrupt, DatabaseError, AppLoadError):
        raise
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            searched = ", ".join(str(root) for root in roots or [])
            raise AppLoadError(
                target, f"there is no module {error.name!r} in {searched} or on the Python path; see --app-dir"
            ) from error
        raise AppLoadError(target, _cause(error), where=_place(error)) from error
    except BaseException as error:
        if isinstance(error, FlowStoneError) and getattr(error, "where", None):
            raise
        raise AppLoadError(target, _cause(error), where=_place(error)) from error


def _cause(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg}"
    if isinstance(error, FlowStoneError):
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _place(error: BaseException) -> str | None:
    """Return file and line of the innermost frame that is neither ours nor the import system's."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    place = None
    for frame in _frames(error.__traceback__):
        if not frame.filename.startswith((_OWN_CODE, "<frozen ")) and "importlib" not in frame.filename:
            if place and "site-packages" in frame.filename:
                break
            place = f"{frame.filename}:{frame.lineno}"
    return place


def _frames(trace: TracebackType | None) -> list[traceback.FrameSummary]:
    return list(traceback.extract_tb(trace))


@dataclass(slots=True)
class Session:
    """What commands work with; the app is imported at its first use.

    A command that needs the declarations uses `flow`. One that only reads or steers what is recorded uses
    `records`, which works without an app, and also while the app cannot be imported.

    Args:
        given: the common options.
        out: where to write.
    """

    given: Given
    out: Output
    _flow: FlowStone | None = field(default=None, init=False)
    _without_app: FlowStone | None = field(default=None, init=False)
    _environment: dict[str, str | None] = field(default_factory=dict, init=False)
    _kept: AbstractContextManager[None] | None = field(default=None, init=False)

    def use_env_file(self) -> None:
        """Set, for this call, the variables of the file `.env` that are not set yet."""
        for name, value in variables_of_env_file(os.environ).items():
            self._environment.setdefault(name, None)
            os.environ[name] = value

    @property
    def flow(self) -> FlowStone:
        """The app.

        Raises:
            ConfigurationError: nobody said which app, or it cannot be loaded.
        """
        if self._flow is None:
            target, directory = self.target, self.app_dir
            self._pass_on()
            if not self.given.app and not os.environ.get("FLOWSTONE_APP"):
                refuse_strangers_module(target, directory)
            flow = load_app(target, directory=directory)
            self._flow = flow
            self._kept = prints_kept()
            self._kept.__enter__()
            self._check_given(flow.settings)
            _remember(flow)
        return self._flow

    def _pass_on(self) -> None:
        """Let the app that is imported next, and processes that it starts, read the options as settings."""
        options = {"FLOWSTONE_DATABASE_URL": self.given.database, "FLOWSTONE_PROJECT": self.given.project}
        for name, value in options.items():
            if value is not None:
                self._environment.setdefault(name, os.environ.get(name))
                os.environ[name] = value

    def _check_given(self, found: Settings) -> None:
        """Refuse to work elsewhere than the options say: an app may name its database itself."""
        for option, given, used in (
            ("--database", self.given.database, found.database_url),
            ("--project", self.given.project, found.project),
        ):
            if given is not None and given != used:
                raise ConfigurationError(
                    f"{option} has no effect: the app {self.target} names its own in FlowStone(...). Leave the "
                    "option out, or have the app read its settings."
                )

    @property
    def records(self) -> FlowStone:
        """What is recorded: through the app that is named, else through the database of the settings alone.

        `--database` goes past the app. An app that cannot be imported is no obstacle where the settings name a
        database: whoever steers runs at night has to be able to while the code is broken.

        Raises:
            ConfigurationError: neither an app nor a database is named.
            AppLoadError: the app cannot be imported, and there is no database to go on with.
        """
        opened = self._flow or self._without_app
        if opened is not None:
            return opened
        settings = self.settings
        if self.given.app or (settings.app and self.given.database is None):
            try:
                return self.flow
            except AppLoadError as error:
                if settings.database_url is None:
                    raise
                self.trace(error)
                self.out.note(
                    f"{error} This answer is from the database of the settings, without the app: partitions are "
                    "shown as they are recorded.",
                    style="yellow",
                )
        elif settings.database_url is None:
            raise ConfigurationError(
                "Where are the records? Pass --database, set FLOWSTONE_DATABASE_URL, or write database_url into "
                "flowstone.toml; or name the app: --app module:attribute, FLOWSTONE_APP, or app in flowstone.toml."
            )
        return self.without_app()

    @property
    def names_an_app(self) -> bool:
        """Whether the options, the environment or a settings file name an app."""
        return bool(self.given.app or self.settings.app)

    def without_app(self) -> FlowStone:
        """Return what stands in for an app: no assets, and the database of the settings, or none."""
        if self._without_app is None:
            self._without_app = _app_class()([], settings=self.settings)
        return self._without_app

    @property
    def settings(self) -> Settings:
        """The settings of file and environment, with those that were given as options."""
        return Settings.load(database_url=self.given.database, project=self.given.project)

    @property
    def target(self) -> str:
        """Where the app is, as `module:attribute`.

        Raises:
            ConfigurationError: nobody said which app.
        """
        target = self.given.app or self.settings.app
        if not target:
            raise ConfigurationError(
                "Which app? Pass --app module:attribute or path/to/file.py:attribute, set FLOWSTONE_APP, or write "
                'app = "module:attribute" into flowstone.toml or under [tool.flowstone] of pyproject.toml.'
            )
        return target

    @property
    def app_dir(self) -> Path:
        """Where modules are found: `--app-dir`, else the directory of the settings file that names the app."""
        if self.given.app_dir is not None:
            if not self.given.app_dir.is_dir():
                raise ConfigurationError(f"--app-dir: there is no directory {str(self.given.app_dir)!r}.")
            return self.given.app_dir
        path, found = read_settings_file(Path.cwd())
        from_file = path is not None and found.get("app") == self.target
        return path.parent if path is not None and (from_file or not self._is_file()) else Path.cwd()

    def trace(self, error: BaseException) -> None:
        """With --verbose, show the whole traceback."""
        if self.given.verbose:
            self.out.note("".join(traceback.format_exception(error)).rstrip())

    def warn_of_memory_store(self) -> None:
        """Say that an app in memory remembers nothing from one command to the next."""
        if not (self._without_app or self.flow).parts.store.shared:
            self.out.note(
                "This app records in memory, so nothing is known from earlier commands. Give it a database: "
                "FLOWSTONE_DATABASE_URL=embedded or postgresql://...",
                style="yellow",
            )

    def note_project(self, settings: Settings) -> None:
        """Say which project the answer is about, when it is not the one of those who name none."""
        if settings.project != DEFAULT_PROJECT:
            self.out.note(f"Project {settings.project}.")

    def close(self) -> None:
        """Close what was opened."""
        opened = (self._flow, self._without_app)
        self._flow = self._without_app = None
        if self._kept is not None:
            self._kept.__exit__(None, None, None)
            self._kept = None
        for flow in opened:
            if flow is not None:
                flow.close()
        while self._environment:
            name, value = self._environment.popitem()
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    def _is_file(self) -> bool:
        return ".py" in self.target


def _remember(flow: FlowStone) -> None:
    """Keep the names of an app for the completion of the shell."""
    assets = list(flow.graph.assets)
    remember(
        assets=assets,
        schedules=[one.id.name for one in flow.schedules.evaluators],
        sensors=[one.id.name for one in flow.sensors.evaluators],
        queues=[*flow.settings.queues, *(asset.queue for asset in flow.graph)],
        executors=["auto", *flow.parts.executors.own_names()],  # TAB adds those of installed packages
        partitions=flow.partitions.names(),
    )


def configure_logging(*, verbose: bool) -> None:
    """Send log records to standard error; warnings, or with `verbose` what goes on.

    Steps keep records of INFO all the same: in this process nobody else configures logging.
    """
    handler = logging.StreamHandler(sys.stderr)
    if logging.getLogger().hasHandlers():
        return
    handler.setLevel(logging.INFO if verbose else logging.WARNING)
    handler.setFormatter(_MaskingFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    if not verbose:
        for name in ("flowstone", "oban", "psycopg"):  # their records would be made for nobody
            logging.getLogger(name).setLevel(logging.WARNING)


class _MaskingFormatter(logging.Formatter):
    """Masks secrets in everything that is logged, tracebacks and other people's records included."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        return mask_secrets(super().format(record))
