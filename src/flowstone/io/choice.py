"""Which serializer a value gets when nobody chose one, and which one reads a stored value."""

from __future__ import annotations

from flowstone.errors import ConfigurationError, UnsafePickleError, did_you_mean
from flowstone.io.arrays import NumpySerializer
from flowstone.io.json_serializer import JsonSerializer
from flowstone.io.raw_serializers import BytesSerializer, TextSerializer
from flowstone.io.tables import ParquetSerializer
from flowstone.protocols import Serializer

_JSON = JsonSerializer()
_AUTOMATIC: tuple[Serializer, ...] = (
    BytesSerializer(),
    TextSerializer(),
    NumpySerializer(),
    ParquetSerializer(),
    _JSON,
)
_ONLY_JSON = frozenset({type(None), bool, int, float, list, dict, tuple})
"""Types that no other serializer wants, so that none is asked."""
_BY_NAME = {serializer.name: serializer for serializer in _AUTOMATIC}


def choose_serializer(value: object) -> Serializer:
    """Return the natural format of a value: bytes, text, NumPy array, table, else JSON.

    Pickle is never chosen. A value that nothing can hold gets JSON, whose error names the path and a remedy.

    Args:
        value: what an asset returned.

    Example:
        >>> choose_serializer(b"raw").name, choose_serializer("text").name, choose_serializer([1]).name
        ('bytes', 'text', 'json')
    """
    if type(value) in _ONLY_JSON:
        return _JSON
    for serializer in _AUTOMATIC:
        if serializer.accepts(value):
            return serializer
    return _JSON


def find_serializer(name: str, chosen: Serializer | None = None) -> Serializer:
    """Return the serializer that reads values written under `name`.

    The built-in ones are always found, so values stay readable after an IO manager got another serializer.

    Args:
        name: name recorded with the value.
        chosen: the serializer given to the IO manager, if any; wins when it carries the name.

    Raises:
        UnsafePickleError: a pickle, and the IO manager was given no PickleSerializer.
        ConfigurationError: no serializer carries the name.

    Example:
        >>> find_serializer("json").extension
        '.json'
    """
    if chosen is not None and chosen.name == name:
        return chosen
    if name in _BY_NAME:
        return _BY_NAME[name]
    if name == "pickle":
        raise UnsafePickleError("the value was stored as a pickle and this IO manager was given no key")
    raise ConfigurationError(
        f"The value was stored by the serializer {name!r}, which is not known here."
        f"{did_you_mean(name, _BY_NAME)} Pass it to the IO manager as serializer=..."
    )
