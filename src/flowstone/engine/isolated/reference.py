"""Names by which another process finds the function of an asset."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import pickle
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, NamedTuple

from flowstone.core.asset import Asset
from flowstone.errors import DefinitionError

_MAIN = "__main__"
_MAIN_COPY = "__mp_main__"  # the name that multiprocessing gives to a main module that it imports again

_not_carried = frozenset({"function", "__wrapped__"})
_loading_main = False


class Reference(NamedTuple):
    """Where the function of an asset is found.

    Args:
        asset: name of the asset.
        where: file and line of its declaration.
        module: module that holds it.
        path: attribute in the module, dotted.
        depth: how many decorators lie around what is meant.
        file: file of the module, which also finds modules that are not on `sys.path`.
        main: for `python -m`, the real name of the main module.
        declaration: pickled options of the asset, when the module holds only its plain function.
    """

    asset: str
    where: str
    module: str
    path: str
    depth: int
    file: str | None
    main: str | None
    declaration: bytes | None


class Place(NamedTuple):
    """Where else a function is called, in words for errors.

    Args:
        name: "in ...".
        remedy: what to declare when it cannot be called there.
    """

    name: str
    remedy: str


OWN_PROCESS = Place("in a process of its own", 'declare the asset with isolation="thread"')


def reference_to(asset: Asset, place: Place = OWN_PROCESS) -> Reference:
    """Return the reference by which another process finds an asset's function.

    Raises:
        DefinitionError: no module holds it under a name.
    """
    asset = asset.declared
    name = getattr(asset.function, "__module__", None) or ""
    module = sys.modules.get(name)
    if module is None or (name == _MAIN and not _main_can_be_imported(module)):
        raise _not_found(asset, place, "it was defined interactively or in a notebook, not in a file")
    for path in _paths(asset, module):
        for depth, layer in enumerate(_layers(module, path)):
            if layer is asset or layer is asset.function:
                return Reference(
                    asset=asset.name,
                    where=asset.where,
                    module=name,
                    path=path,
                    depth=depth,
                    file=getattr(module, "__file__", None),
                    main=getattr(module.__spec__, "name", None) if name == _MAIN else None,
                    declaration=None if layer is asset else _declaration(asset, place),
                )
    raise _not_found(asset, place, f"the module {name!r} does not hold it under a name")


def find(reference: Reference, place: Place = OWN_PROCESS) -> Asset:
    """Return the asset that a reference of another process means, importing its module.

    Raises:
        DefinitionError: its module cannot be imported here, or does not hold it.
    """
    try:
        found: Any = _attribute(_module(reference), reference.path)
        for _ in range(reference.depth):
            found = found.__wrapped__
    except BaseException as error:
        raise DefinitionError(
            f"Asset {reference.asset!r} cannot run {place.name}: importing {reference.module!r} "
            f"there raised {type(error).__name__}: {error}. A module that is imported again must not depend "
            f"on what the first process did before; or {place.remedy}.",
            where=reference.where,
        ) from error
    if isinstance(found, Asset):
        return found
    asset = Asset.__new__(Asset)
    vars(asset).update(pickle.loads(reference.declaration or b""))  # noqa: S301 - written by our own process
    asset.function = found
    return asset


def of_another_machine(reference: Reference) -> Reference:
    """Return a reference as it is to be followed here: by the name of the module, whatever its file is here.

    Where no module of that name can be imported, a file at the same path will do.
    """
    if reference.module == _MAIN:
        return reference
    try:
        known = importlib.util.find_spec(reference.module) is not None
    except (ImportError, ValueError):  # a package above it is missing, or was made by hand
        known = reference.module in sys.modules
    there = reference.file is not None and Path(reference.file).is_file()
    return reference if there and not known else reference._replace(file=None)


def digest_of(asset: Asset) -> str | None:
    """Return a digest of the compiled function of an asset; None when it has none of its own.

    Lines and files say nothing, docstrings do. Equal code of another version of Python has another digest.
    """
    code = getattr(inspect.unwrap(asset.function), "__code__", None)
    if not isinstance(code, CodeType):
        return None
    digest = hashlib.sha256()
    _add_code(digest.update, code)
    return digest.hexdigest()[:16]


def _add_code(add: Callable[[bytes], object], code: CodeType) -> None:
    add(code.co_code)
    add(repr((code.co_names, code.co_varnames, code.co_freevars)).encode())
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            _add_code(add, constant)
        elif isinstance(constant, frozenset):  # whose order is another one in each process
            add(repr(sorted(map(repr, constant))).encode("utf-8", "surrogatepass"))
        else:
            add(repr(constant).encode("utf-8", "surrogatepass"))


def check_not_loading(asset: Asset) -> None:
    """Refuse to run an asset while this child process still imports the main script.

    Raises:
        DefinitionError: names the `if __name__ == "__main__"` guard.
    """
    if _loading_main:
        raise DefinitionError(
            f"Asset {asset.name!r} runs in a process of its own, which imports the main script, which runs "
            'the asset again. Put what the script does behind: if __name__ == "__main__":',
            where=asset.where,
        )


def _paths(asset: Asset, module: ModuleType) -> Iterator[str]:
    qualname = getattr(asset.function, "__qualname__", "")
    if qualname and "<" not in qualname:
        yield qualname
    # made by a factory, but kept in a variable of the module
    yield from [name for name, value in vars(module).items() if value is asset]


def _attribute(module: ModuleType, path: str) -> object:
    found: object = module
    for name in path.split("."):
        found = getattr(found, name)
    return found


def _layers(module: ModuleType, path: str) -> Iterator[object]:
    try:
        layer: object | None = _attribute(module, path)
    except AttributeError:
        return
    while layer is not None:
        yield layer
        layer = getattr(layer, "__wrapped__", None)


def _declaration(asset: Asset, place: Place) -> bytes:
    options = {name: value for name, value in vars(asset).items() if name not in _not_carried}
    try:
        return pickle.dumps(options, protocol=5)
    except Exception as error:
        raise DefinitionError(
            f"Asset {asset.name!r} cannot run {place.name}, because its options cannot be pickled ({error}). "
            f"Assign the asset to the name of its function (@asset does), or {place.remedy}.",
            where=asset.where,
        ) from error


def _not_found(asset: Asset, place: Place, why: str) -> DefinitionError:
    timeout = " and without a timeout" if place is OWN_PROCESS else ""
    return DefinitionError(
        f"Asset {asset.name!r} cannot run {place.name}, which has to import its function by name: "
        f"{why}. Move the function to the top level of a module, or {place.remedy}{timeout}.",
        where=asset.where,
    )


def _main_can_be_imported(module: ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    return module.__spec__ is not None or (file is not None and Path(file).is_file())


def _module(reference: Reference) -> ModuleType:
    if reference.module == _MAIN:
        return _main(reference)
    module = sys.modules.get(reference.module)
    if module is None:
        try:
            module = importlib.import_module(reference.module)
        except ModuleNotFoundError as error:
            missing = error.name or ""
            if reference.file is None or not f"{reference.module}.".startswith(f"{missing}."):
                raise
    if module is None or (reference.file is not None and getattr(module, "__file__", None) != reference.file):
        module = _from_file(reference.module, str(reference.file))
    return module


def _from_file(name: str, file: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} cannot be imported", name=name, path=file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _main(reference: Reference) -> ModuleType:
    """Import the main script again, under a name at which its guard does not fire."""
    global _loading_main  # noqa: PLW0603 - a fact about this process
    if _MAIN_COPY in sys.modules:
        return sys.modules[_MAIN_COPY]
    module = ModuleType(_MAIN_COPY)
    _loading_main = True
    try:
        if reference.main is not None:
            content = runpy.run_module(reference.main, run_name=_MAIN_COPY, alter_sys=True)
        else:
            content = runpy.run_path(str(reference.file), run_name=_MAIN_COPY)
    finally:
        _loading_main = False
    vars(module).update(content)
    # under both names: pickles of either process mention the one or the other
    sys.modules[_MAIN] = sys.modules[_MAIN_COPY] = module
    return module
