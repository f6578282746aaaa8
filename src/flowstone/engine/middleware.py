"""The middleware around every step, and where values are stored: the hooks of the app, those of a run by name."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, Protocol

from flowstone.core.asset import Asset
from flowstone.core.config_type import ConfigError, ConfigSchema, config_schema
from flowstone.core.context import AssetContext
from flowstone.core.outcome import AttemptOutcome
from flowstone.core.output import PLAIN, JsonValue, OutputAddress, StoredOutput, is_read_once, type_name
from flowstone.core.project import DEFAULT_PROJECT
from flowstone.core.retry import RetryPolicy
from flowstone.core.run_details import RunDetails, check_document
from flowstone.core.step import CheckRecord
from flowstone.core.value_types import ValueTypes, value_types
from flowstone.engine.inputs import ResolvedInputs
from flowstone.errors import ConfigurationError, OptionsError, SerializationError, did_you_mean
from flowstone.protocols import Hook, IOManager, StepCall

_STORE_PAUSES_SECONDS = (0.05, 0.5)
_NOTHING: Mapping[str, str] = {}


class CallRequest(NamedTuple):
    """How the function of one attempt is called.

    Args:
        inputs: the versions that it reads.
        timeout_seconds: limit of its running time when the asset declares none.
        stoppable: see `Invoker.call`.
        policy: which exceptions are worth another attempt; None for the default classes.
        checks: what the checks of the asset found so far.
    """

    inputs: ResolvedInputs
    timeout_seconds: float | None
    stoppable: bool
    policy: RetryPolicy | None
    checks: list[CheckRecord]


class AttemptCall(Protocol):
    """A link of the chain around a function: made once for an asset, called for each attempt."""

    def __call__(self, context: AssetContext, request: CallRequest) -> AttemptOutcome:
        """Run what is left of the attempt."""


def chain(hooks: Sequence[Hook], call: AttemptCall) -> AttemptCall:
    """Return `call` with hooks around it, the first one outermost; itself when there are none.

    Example:
        >>> from flowstone.core.outcome import Skipped
        >>> chain([], lambda context, request: Skipped("done"))(None, None)
        Skipped(reason='done')
    """
    for hook in reversed(hooks):
        call = partial(_through, hook.call, call)
    return call


def _through(
    hook: Callable[[AssetContext, StepCall], AttemptOutcome],
    inner: AttemptCall,
    context: AssetContext,
    request: CallRequest,
) -> AttemptOutcome:
    return hook(context, partial(inner, request=request))


class HookSet:
    """The hooks of an app: those around every step, and those that a run uses by name.

    Args:
        declared: hooks, the first one outermost; mappings hold those that stand around steps only when a run
            names them. A mapping alone will do.

    Raises:
        ConfigurationError: something is no hook.

    Example:
        >>> class Timed:
        ...     def call(self, context, step):
        ...         return step(context)
        >>> HookSet({"timed": Timed()}).names
        ['timed']
    """

    def __init__(self, declared: Sequence[Hook | Mapping[str, Hook]] | Mapping[str, Hook] = ()) -> None:
        given: object = declared
        if not isinstance(given, Mapping | Sequence) or isinstance(given, str):
            raise ConfigurationError(
                f"hooks={given!r}: give a list of hooks, objects with a method call(context, step), or a "
                "mapping of names to them."
            )
        parts = [declared] if isinstance(declared, Mapping) else list(declared)
        self.always: list[Hook] = []
        self._named: dict[str, Hook] = {}
        for part in parts:
            if isinstance(part, Mapping):
                self._named.update(part)
            else:
                self.always.append(part)
        for name, hook in (*self._named.items(), *((None, one) for one in self.always)):
            if not callable(getattr(hook, "call", None)) or isinstance(hook, type):
                what = f"hooks={{{name!r}: ...}}" if name is not None else "hooks=[...]"
                raise ConfigurationError(
                    f"{what}: {hook!r} is no hook; give an object with a method call(context, step)."
                )

    @property
    def names(self) -> list[str]:
        """Names that a run may use."""
        return list(self._named)

    def named(self, names: Sequence[str]) -> list[Hook]:
        """Return hooks by name.

        Raises:
            ConfigurationError: this app does not declare one of them.
        """
        for name in names:
            if name not in self._named:
                raise ConfigurationError(
                    f"The run uses the hook {name!r}, which this app does not declare."
                    f"{did_you_mean(name, self._named)} Pass FlowStone(..., hooks={{{name!r}: ...}})."
                )
        return [self._named[name] for name in names]

    def document(self, name: str, given: object) -> dict[str, JsonValue]:
        """Return a run's config for a hook, as JSON, checked against the type in the hook's attribute `config`.

        Raises:
            OptionsError: it does not fit.
        """
        option = f"hooks_config[{name!r}]"
        schema = self._schema(name)
        if schema is None:
            return check_document(option, given)
        try:
            return schema.document(given)
        except ConfigError as error:
            raise OptionsError(f"{'.'.join((option, *error.place))}: {error.problem}.") from None

    def configs(self, run: RunDetails) -> Mapping[str, Any]:
        """Return the config of the named hooks of a run, as objects of the types that they declare."""
        found: dict[str, Any] = {}
        for name in run.hooks:
            schema, config = self._schema(name), run.hooks_config.get(name, {})
            found[name] = config if schema is None else schema.build(config)
        return found

    def _schema(self, name: str) -> ConfigSchema | None:
        declared = getattr(self._named.get(name), "config", None)
        return None if declared is None else config_schema(declared)


class ValueStore:
    """Finds the IO manager of an asset, stores with retries of the storing alone, loads.

    Args:
        managers: IO managers by name.
        default: name of the one used by assets that name none.
        project: project of the app.
        types: the classes that assets declare; objects of no others are stored as JSON, or built of it.
    """

    def __init__(
        self,
        managers: Mapping[str, IOManager],
        default: str,
        *,
        project: str = DEFAULT_PROJECT,
        types: ValueTypes | None = None,
    ) -> None:
        self._types = types
        self._managers = managers
        self._default = default
        self._project = project

    @property
    def names(self) -> Collection[str]:
        """Names of the IO managers that may be chosen."""
        return [name for name, manager in self._managers.items() if not getattr(manager, "internal", False)]

    def manager(self, asset: Asset, chosen: Mapping[str, str] = _NOTHING) -> IOManager:
        """Return the IO manager of an asset.

        Args:
            asset: the asset.
            chosen: IO managers that a run uses instead of the declared ones, by asset.

        Raises:
            ConfigurationError: this app does not declare the one that the run names.
        """
        other = chosen.get(asset.owner) if chosen and asset.has_own_io else None
        if other is None:
            return self._managers[asset.io or self._default]
        if other not in self._managers:
            raise ConfigurationError(
                f"The run keeps {asset.owner!r} with the IO manager {other!r}, which this app does not declare."
                f"{did_you_mean(other, self.names)} Pass FlowStone(..., io={{{other!r}: ...}})."
            )
        return self._managers[other]

    def load(self, stored: StoredOutput) -> object:
        """Load a value that any process stored.

        Raises:
            StorageError: its IO manager is not declared here, or cannot load it.
        """
        try:
            manager = self._managers[stored.io]
        except KeyError:
            raise LookupError(
                f"The value was stored by the IO manager {stored.io!r}, which this app does not declare "
                f"(declared: {', '.join(sorted(self._managers))}). Pass FlowStone(..., io={{{stored.io!r}: ...}})."
            ) from None
        token = value_types.set(self._types)
        try:
            return manager.load(stored)
        finally:
            value_types.reset(token)

    def store(self, context: AssetContext, value: object) -> StoredOutput:
        """Store the value of a step; a passing fault is retried without running the function again.

        Raises:
            SerializationError: the value cannot be represented; names the asset.
            OSError: storing failed repeatedly.
        """
        asset, chosen = context.asset, context.run.details.io
        manager = self.manager(asset, chosen) if chosen else self._managers[asset.io or self._default]
        if type(value) not in PLAIN and is_read_once(value):
            raise SerializationError(
                f"Asset {asset.name!r} returned something that can be read only once",
                path="$",
                type_name=type_name(value),
                remedy="Return a list (or a table, or a path) instead of a generator, iterator or open file.",
            )
        address = OutputAddress(
            asset.name,
            context.key,
            context.run_id,
            context.step_id,
            context.attempt,
            context.token,
            self._project,
        )
        token = value_types.set(self._types)
        try:
            stored = self._stored(manager, value, address)
        finally:
            value_types.reset(token)
        return replace(stored, metadata=stored.metadata | context.metadata) if context.metadata else stored

    def _stored(self, manager: IOManager, value: object, address: OutputAddress) -> StoredOutput:
        for pause in _STORE_PAUSES_SECONDS:
            try:
                return manager.store(value, address)
            except (OSError, ExceptionGroup):
                with suppress(OSError):  # what else a group holds is raised
                    raise
            time.sleep(pause)
        return manager.store(value, address)
