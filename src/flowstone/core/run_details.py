"""What a run is about, beyond what runs: config, tags, metadata, and the parts it uses by name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from flowstone.core.clean import mask_secrets
from flowstone.core.config_type import MAX_CONFIG_BYTES, ConfigError, Place, is_secret_name, to_json
from flowstone.core.frozen import maker
from flowstone.core.output import JsonValue
from flowstone.errors import OptionsError

MASK = "***"
_MAX_TAGS = 100
_MAX_TAG = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDetails:
    """What a request says of its run: JSON, the same on every node and for every attempt.

    Args:
        tags: for finding runs.
        metadata: facts for people.
        config: config of each asset that takes one, by name, with the defaults filled in.
        io: IO managers that the targets use in this run, by asset.
        resources: resources that stand in for others in this run: required name to the name of what is used.
        hooks: named hooks around the steps of this run, after those of the app.
        hooks_config: config of the named hooks, by name.
        secrets: places in `config` whose values are not shown, beside those with a name such as `password`.
        traceparent: the span that placed the run, as W3C Trace Context writes it, when traces are made.
    """

    tags: tuple[str, ...] = ()
    metadata: Mapping[str, JsonValue] = field(default_factory=dict)
    config: Mapping[str, Mapping[str, JsonValue]] = field(default_factory=dict)
    io: Mapping[str, str] = field(default_factory=dict)
    resources: Mapping[str, str] = field(default_factory=dict)
    hooks: tuple[str, ...] = ()
    hooks_config: Mapping[str, Mapping[str, JsonValue]] = field(default_factory=dict)
    secrets: tuple[Place, ...] = ()
    traceparent: str | None = None

    def to_json(self) -> dict[str, Any] | None:
        """Return what is said as JSON; None when nothing is."""
        if self is NO_DETAILS:
            return None
        return {one.name: value for one in fields(RunDetails) if (value := getattr(self, one.name))} or None

    @classmethod
    def from_json(cls, document: Mapping[str, Any] | None) -> RunDetails:
        """Return what `to_json` made a document of.

        Example:
            >>> RunDetails.from_json(RunDetails(tags=("nightly",)).to_json()).tags
            ('nightly',)
        """
        if not document:
            return NO_DETAILS
        found = {one.name: document[one.name] for one in fields(RunDetails) if one.name in document}
        found.update({name: tuple(found[name]) for name in ("tags", "hooks") if name in found})
        if "secrets" in found:
            found["secrets"] = tuple(tuple(place) for place in found["secrets"])
        return cls(**found)

    def masked(self) -> RunDetails:
        """Return the same without secrets, for showing."""
        if not (self.config or self.metadata or self.hooks_config):
            return self
        return replace(
            self,
            metadata=_masked(self.metadata),
            config=_masked(self.config, self.secrets),
            hooks_config=_masked(self.hooks_config),
        )

    def config_hash(self, asset: str, requires: Iterable[str]) -> str | None:
        """Return what stands for the way in which a step of this run computes its value; None for nothing special.

        Hooks do not count: they stand around a step and do not say what it computes.

        Args:
            asset: name of the asset, for an item that of its scatter.
            requires: names of the resources that it requires.
        """
        used = {name: self.resources[name] for name in sorted(requires) if name in self.resources}
        document = {"config": self.config.get(asset), "resources": used, "io": self.io.get(asset)}
        if not any(document.values()) and document["config"] is None:
            return None
        text = json.dumps(document, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


NO_DETAILS = RunDetails()


class HasDetails:
    """What a run was given with its request, read from its `details`."""

    __slots__ = ()

    details: RunDetails

    @property
    def tags(self) -> tuple[str, ...]:
        """Names to find the run by."""
        return self.details.tags

    @property
    def metadata(self) -> Mapping[str, JsonValue]:
        """Facts for people."""
        return self.details.metadata

    @property
    def config(self) -> Mapping[str, Mapping[str, JsonValue]]:
        """Config of each asset of the run that takes one."""
        return self.details.config


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class RunInfo(HasDetails):
    """The run that a step belongs to: `context.run`; a step that other requests joined shows the one it began in.

    Args:
        id: the run.
        kind: the verb that asked for it, such as `backfill`.
        details: what was said of it.
    """

    id: str
    kind: str = ""
    details: RunDetails = NO_DETAILS

    @classmethod
    def from_json(cls, document: Mapping[str, Any] | None, *, id: str, kind: str) -> RunInfo:  # noqa: A002
        """Return the run with the details that `RunDetails.to_json` made a document of."""
        return cls(id=id, kind=kind, details=RunDetails.from_json(document))

    @property
    def hooks(self) -> tuple[str, ...]:
        """Names of the hooks that the run uses."""
        return self.details.hooks

    def __repr__(self) -> str:
        shown = self.details.masked()
        document = {"id": self.id, "kind": self.kind}
        document |= {one.name: value for one in fields(shown) if (value := getattr(shown, one.name))}
        for hidden in ("secrets", "traceparent"):
            document.pop(hidden, None)
        return f"RunInfo({', '.join(f'{name}={value!r}' for name, value in document.items())})"


make_run_info = maker(RunInfo)
"""Makes the run of steps, of the same arguments."""


def check_tags(tags: object) -> tuple[str, ...]:
    """Return the tags of a run, each once.

    Raises:
        OptionsError: they are something else than a list of short texts.

    Example:
        >>> check_tags(["nightly", "nightly"])
        ('nightly',)
    """
    if isinstance(tags, str):
        raise OptionsError(f"tags={tags!r}: give a list of names, such as tags=[{tags!r}].")
    if isinstance(tags, Mapping):
        raise OptionsError("tags: give a list of names; pairs of names and values go into metadata={...}.")
    if not isinstance(tags, Iterable):
        raise OptionsError(f"tags={tags!r}: give a list of names, such as tags=['nightly'].")
    found: dict[str, None] = {}
    for tag in tags:
        if not isinstance(tag, str) or not 0 < len(tag) <= _MAX_TAG or not tag.isprintable() or tag != tag.strip():
            shown = repr(tag)[:80]
            raise OptionsError(
                f"tags: {shown} is no tag: give 1 to {_MAX_TAG} printable characters without space around."
            )
        found[str.__str__(tag)] = None  # that of a member of an enumeration may be its name
    if len(found) > _MAX_TAGS:
        raise OptionsError(f"tags: {len(found):,} tags are more than {_MAX_TAGS}; facts go into metadata={{...}}.")
    return tuple(found)


def check_document(option: str, given: object) -> dict[str, JsonValue]:
    """Return a JSON object that a request carries, as plain JSON.

    Args:
        option: what it is called, for the error.
        given: what was passed.

    Raises:
        OptionsError: it is no JSON object, holds what a database cannot keep, or is too large.

    Example:
        >>> check_document("metadata", {"ticket": 7, "by": ("ann", "bob")})
        {'ticket': 7, 'by': ['ann', 'bob']}
    """
    if not isinstance(given, Mapping):
        raise OptionsError(f"{option}: give a dict of names to JSON values, not {type(given).__qualname__}.")
    try:
        document = to_json(given, ())
    except ConfigError as error:
        raise OptionsError(f"{'.'.join((option, *error.place))}: {error.problem}.") from None
    assert isinstance(document, dict)
    check_size(option, document)
    return document


def check_size(option: str, document: object) -> None:
    """Refuse a document that is too large to travel with every step of a run.

    Raises:
        OptionsError: says how large it is and may be.
    """
    size = len(json.dumps(document, ensure_ascii=False).encode())
    if size > MAX_CONFIG_BYTES:
        raise OptionsError(
            f"{option} takes {size:,} bytes as JSON, more than {MAX_CONFIG_BYTES:,}. Store it and pass its name."
        )


def _masked(document: Any, secrets: Sequence[Place] = ()) -> Any:
    hidden = set(secrets)

    def mask(value: Any, at: Place) -> Any:
        if at in hidden or (isinstance(value, str | list) and at and is_secret_name(at[-1])):
            return MASK
        if isinstance(value, Mapping):
            return {name: mask(one, (*at, str(name))) for name, one in value.items()}
        if isinstance(value, list):
            return [mask(one, (*at, str(index))) for index, one in enumerate(value)]
        return mask_secrets(value) if isinstance(value, str) else value

    return mask(document, ())
