"""Exceptions on their way from one process to another."""

from __future__ import annotations

import copyreg
import io
import pickle
import traceback
from types import FunctionType
from typing import Any, NamedTuple

from flowstone.core.outcome import Outcome
from flowstone.core.output import type_name
from flowstone.engine.failures import user_traceback
from flowstone.errors import IsolatedFailureError

_PYTHON_REDUCERS = ("__reduce__", "__reduce_ex__", "__getnewargs__", "__getnewargs_ex__", "__new__")


class CarriedException(NamedTuple):
    """An exception as bytes, with what is left of it when the bytes cannot be read."""

    pickled: bytes | None
    type_name: str
    text: str
    trace: str


def carry(error: BaseException) -> CarriedException:
    """Return an exception in a form that travels; this never raises.

    Example:
        >>> restore(carry(KeyError("x")), "numbers", pid=7)
        KeyError('x')
    """
    try:
        buffer = io.BytesIO()
        _ExceptionPickler(buffer, protocol=5).dump(error)
        pickled: bytes | None = buffer.getvalue()
        if type(pickle.loads(buffer.getvalue())) is not type(error):  # noqa: S301 - pickled one line above
            pickled = None
    except Exception:  # noqa: BLE001 - classes of users may do anything when they are pickled
        pickled = None
    return CarriedException(pickled, type_name(error), _text(error), _trace(error))


def restore(carried: CarriedException, asset: str, *, pid: int, host: str = "") -> BaseException:
    """Return the exception again, with its original traceback as a note.

    Args:
        carried: from the child.
        asset: asset that raised it.
        pid: the child.
        host: its machine, when that is another one.
    """
    error: BaseException | None = None
    if carried.pickled is not None:
        try:
            error = pickle.loads(carried.pickled)  # noqa: S301 - written by our own process
        except Exception:  # noqa: BLE001 - see carry; here a module of the child may also be missing
            error = None
    if not isinstance(error, BaseException):
        error = IsolatedFailureError(asset, carried.type_name, carried.text)
    if carried.trace:
        where = f"pid {pid} on {host}" if host else f"pid {pid}"
        error.add_note(f"In the process of asset {asset!r} ({where}):\n{carried.trace.rstrip()}")
    return error


class _ExceptionPickler(pickle.Pickler):
    """Pickles exceptions whose `__init__` takes something else than `args`, which plain pickle cannot."""

    def reducer_override(self, obj: Any) -> Any:
        if not isinstance(obj, BaseException):
            return NotImplemented
        registered = copyreg.dispatch_table.get(type(obj))
        if registered is not None and not getattr(registered, "__module__", "").startswith("tblib"):
            return NotImplemented
        own = any(isinstance(getattr(type(obj), name, None), FunctionType) for name in _PYTHON_REDUCERS)
        if own or not isinstance(type(obj).__init__, FunctionType):
            # said here: importing Dask's `distributed` has tblib take over every class, and texts of some are lost
            return obj.__reduce_ex__(pickle.DEFAULT_PROTOCOL)
        reduced: Any = obj.__reduce__()
        return _rebuild, (type(obj), reduced[1], reduced[2] if len(reduced) > 2 else None)


def _rebuild(kind: type[BaseException], args: tuple[Any, ...], state: dict[str, Any] | None) -> BaseException:
    """Make an exception without its own `__init__`, which would be given the wrong arguments."""
    error = kind.__new__(kind, *args)
    # the first class written in C sets up what it keeps in C, such as errno and filename of an OSError
    builtin = next(base for base in kind.__mro__ if not isinstance(base.__dict__.get("__init__"), FunctionType))
    initialize: Any = builtin.__init__  # type: ignore[misc]
    initialize(error, *args)
    if state:
        error.__setstate__(state)
    return error


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:  # noqa: BLE001 - an exception whose own text raises still arrives
        return f"its description raised {type(broken).__qualname__}"


def _trace(error: BaseException) -> str:
    if isinstance(error, Outcome):
        return ""  # an answer, not an error
    try:
        lines = traceback.TracebackException(
            type(error), error, user_traceback(error.__traceback__), limit=-60, compact=True
        ).format()
        return "".join(lines)
    except Exception as broken:  # noqa: BLE001 - see _text
        return f"(the traceback cannot be shown: {type(broken).__qualname__})"
