"""Models as users write them."""

import datetime as dt
import enum
from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, RootModel

T = TypeVar("T")


class Kind(enum.Enum):
    A = "a"


class Inner(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)

    when: dt.datetime
    kind: Kind | None = None


class Outer(BaseModel):
    number: int = Field(alias="No", gt=0)
    inner: dict[str, Inner] = {}
    pair: tuple[int, str] = (1, "x")
    _note: int = PrivateAttr(default=3)


class Box(BaseModel, Generic[T]):  # noqa: UP046 - as code of others has it
    content: T


class Rows(RootModel[list[Inner]]):
    pass
