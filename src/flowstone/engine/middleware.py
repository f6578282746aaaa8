"""The middleware around every step: the hooks of the app, and those of a run by name.

A chain is made once for an asset (and once for each set of hooks that runs name) and ends at the call itself; a
link gets the request of the attempt as an argument, so that nothing private hangs on the context that users see.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from flowstone.core.config_type import ConfigError, ConfigSchema, config_schema
from flowstone.core.context import AssetContext
from flowstone.core.frozen import maker
from flowstone.core.outcome import AttemptOutcome
from flowstone.core.output import JsonValue
from flowstone.core.retry import RetryPolicy
from flowstone.core.run_details import RunDetails, check_document
from flowstone.core.step import CheckRecord
from flowstone.engine.values import ResolvedInputs
from flowstone.errors import ConfigurationError, OptionsError, did_you_mean
from flowstone.protocols import Hook, StepCall


@dataclass(slots=True)
class CallRequest:
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


make_request = maker(CallRequest)
"""Makes a request of the same arguments: every attempt has one."""


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
