"""The type variables of assets and of what is made from them.

They have defaults, so that `Asset`, `Job` and `Materialization` may also be written without brackets. Python 3.12
has no syntax for that (PEP 696), and only type checkers need to know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import ParamSpec, TypeVar

    P = ParamSpec("P", default=...)
    T_co = TypeVar("T_co", covariant=True, default=Any)
    Value = TypeVar("Value", default=Any)
else:
    from typing import ParamSpec, TypeVar

    P = ParamSpec("P")  # how the function of an asset is called
    T_co = TypeVar("T_co", covariant=True)  # the type of its value
    Value = TypeVar("Value")  # the same in a verb that takes an asset; Any when it is given by its name

__all__ = ["P", "T_co", "Value"]
