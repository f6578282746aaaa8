"""Finding and importing the app that the command line works on."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, TracebackType

import flowstone
from flowstone.app import FlowStone
from flowstone.config import distrust
from flowstone.errors import AppLoadError, DatabaseError, FlowStoneError, did_you_mean

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
    if not isinstance(found, FlowStone) and callable(found):
        found = _guarded(found, target)
    if not isinstance(found, FlowStone):
        raise AppLoadError(target, f"it is {type(found).__name__}, not a FlowStone or a function returning one")
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
    apps = [name for name, value in vars(module).items() if isinstance(value, FlowStone)]
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
