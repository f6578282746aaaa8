"""Projects: separate sets of tables, queues and values on one database."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from functools import cache
from typing import LiteralString, Self

from flowstone.errors import ConfigurationError

DEFAULT_PROJECT = "default"

_NAME = re.compile(r"[a-z](?:_?[a-z0-9])*_?")
# with the schema's prefix and Oban's channel behind it, a name must stay below the 63 bytes of an identifier
_MAX_NAME = 41
# What our statements call by its schema: tables, sequences and functions of ours, and those of Oban. Within
# quotes only the arguments of functions that take such a name: keys and paths in JSON stay what they are.
_TAKES_A_NAME = (
    *("nextval('", "pg_get_serial_sequence('", "pg_notify('"),
    *("to_regclass('", "to_regtype('", "to_regprocedure('"),
)
_QUALIFIED = re.compile(
    rf"(?:^|(?<=[\s(:]){''.join(f'|(?<={re.escape(call)})' for call in _TAKES_A_NAME)})"
    r"(?:flowstone(?=\.[a-z_])|public(?=\.oban_))"
    r"|(?<=SCHEMA )flowstone(?![\w.])"
    r"|(?<=to_regnamespace\(')flowstone(?=')"
)


@dataclass(frozen=True, slots=True)
class Project:
    """One of the projects that share a database: it has a PostgreSQL schema, and Oban's tables, of its own.

    Statements are written for the default project, whose tables lie in the schema `flowstone` and whose jobs lie
    in Oban's tables in `public`; `sql` turns them into those of another project.

    Args:
        name: small letters, digits and single underscores, beginning with a letter, at most 41 characters.

    Raises:
        ConfigurationError: the name is none.

    Example:
        >>> Project("shop").sql("SELECT * FROM flowstone.steps JOIN public.oban_jobs AS j USING (id)")
        'SELECT * FROM flowstone_shop.steps JOIN flowstone_shop.oban_jobs AS j USING (id)'
    """

    name: str = DEFAULT_PROJECT

    def __post_init__(self) -> None:
        check_project(self.name)

    @property
    def is_default(self) -> bool:
        """Whether this is the project of those who name none."""
        return self.name == DEFAULT_PROJECT

    @property
    def schema(self) -> str:
        """PostgreSQL schema of our tables."""
        return "flowstone" if self.is_default else f"flowstone_{self.name}"

    @property
    def oban_schema(self) -> str:
        """PostgreSQL schema of Oban's tables, which Oban calls its prefix."""
        return "public" if self.is_default else self.schema

    @classmethod
    def of_schema(cls, schema: str) -> Project | None:
        """Return the project whose schema this is; None when it is no project's."""
        name = DEFAULT_PROJECT if schema == "flowstone" else schema.removeprefix("flowstone_")
        try:
            project = cls(name)
        except ConfigurationError:
            return None
        return project if project.schema == schema else None

    def sql(self, text: LiteralString) -> LiteralString:
        """Return a statement (or the name of a notification channel) that was written for the default project."""
        return text if self.is_default else _rewritten(text, self.schema)


def check_project(name: object) -> None:
    """Refuse what cannot be the name of a project.

    Double underscores are kept for branches of a project.

    Raises:
        ConfigurationError: says what a name looks like.
    """
    if not isinstance(name, str) or len(name) > _MAX_NAME or not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"project={name!r} cannot be the name of a project: use small letters, digits and single underscores, "
            f"begin with a letter, at most {_MAX_NAME} characters, such as project='shop_eu'."
        )


@cache
def _rewritten(text: LiteralString, schema: str) -> LiteralString:
    # the schema is made of a checked name, so nothing gets into a statement that anyone else wrote
    return _QUALIFIED.sub(schema, text)


class InProject:
    """A base of what several projects share, such as the storage of an IO manager: each sees what is its own.

    Example:
        >>> class Shelf(InProject):
        ...     pass
        >>> Shelf().in_project(Project("books"))._project.name
        'books'
    """

    _project = Project()

    def in_project(self, project: Project) -> Self:
        """Return this one for what belongs to a project; an app calls it with its own."""
        other = copy.copy(self)
        other._project = project  # noqa: SLF001 - of our own copy
        return other
