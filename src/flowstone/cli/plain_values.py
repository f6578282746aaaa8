"""Takes the values of options as they are typed, without the library that typer converts them with.

That library (pydantic) takes longer to import than Python takes to start, and nearly every value is text that
stays text, a flag, or a number. Anything else, and whatever is wrong, is left to typer, with its errors.
"""

from __future__ import annotations

import re
from typing import Any

_WHOLE = re.compile(r"-?[0-9]{1,15}")
_DECIMAL = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,15})?")
_NUMBERS = {int: _WHOLE, float: _DECIMAL}


def take_plain_values(parameter: Any) -> Any:
    """Let a parameter of a command take plain values itself, and return it.

    Args:
        parameter: as typer made it; one of a version that converts otherwise stays as it is.
    """
    descriptor = getattr(parameter, "type_descriptor", None)
    original = getattr(parameter, "get_runtime_param", None)
    if original is None or descriptor is None or "get_runtime_param" in vars(parameter):
        return parameter
    if getattr(descriptor.parameter_info, "parser", None) is None:
        plain = _PlainValues(parameter, descriptor.annotation, original)
        parameter.get_runtime_param = lambda: plain
    return parameter


class _PlainValues:
    """Stands before the conversion of typer, under the name of its method."""

    def __init__(self, parameter: Any, kind: Any, original: Any) -> None:
        self._kind = kind
        self._original = original
        info = parameter.type_descriptor.parameter_info
        self._limits = info.min, info.max

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the value of a parameter.

        Args:
            value: a text or several, the default, or None.
            param: the parameter.
            ctx: the call.
        """
        if value is None:
            return () if param.multiple or param.nargs == -1 else None
        if self._kind is str and type(value) is str and not param.multiple and param.nargs == 1:
            return value
        if self._kind == list[str] and isinstance(value, list | tuple) and all(type(one) is str for one in value):
            return list(value)
        if self._kind in _NUMBERS:
            number = self._number(value)
            if number is not None:
                return number
        return self._original().coerce(value, param=param, ctx=ctx)

    def _number(self, value: Any) -> int | float | None:
        """Return a number that is one beyond doubt, and within its limits."""
        if type(value) is str and _NUMBERS[self._kind].fullmatch(value):
            value = self._kind(value)
        if type(value) is not self._kind:
            return None
        minimum, maximum = self._limits
        if (minimum is not None and value < minimum) or (maximum is not None and value > maximum):
            return None
        number: int | float = value
        return number
