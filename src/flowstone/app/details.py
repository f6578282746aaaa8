"""What a request says of its run, checked against the app: config, tags, metadata, parts by name."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from flowstone.core.asset import Asset
from flowstone.core.check import CheckSet
from flowstone.core.config_type import ConfigError, ConfigSchema, Place, config_problem, config_schema
from flowstone.core.graph import AssetGraph
from flowstone.core.output import JsonValue
from flowstone.core.run_details import NO_DETAILS, RunDetails, check_document, check_size, check_tags
from flowstone.engine.middleware import HookSet
from flowstone.engine.resources import ResourcePool
from flowstone.engine.run_spec import RunSpec
from flowstone.engine.values import ValueStore
from flowstone.errors import OptionsError, did_you_mean
from flowstone.errors.root import join_names

NOTHING_GIVEN: Mapping[str, str | None] = MappingProxyType({})


class DetailsReader:
    """Reads what requests say of their runs.

    Args:
        graph: the assets.
        checks: their checks, which may require resources.
        resources: the declared resources.
        values: the declared IO managers.
        hooks: the declared hooks.
    """

    def __init__(
        self,
        graph: AssetGraph,
        *,
        checks: CheckSet,
        resources: ResourcePool,
        values: ValueStore,
        hooks: HookSet,
    ) -> None:
        self._graph = graph
        self._checks = checks
        self._resources = resources
        self._values = values
        self._hooks = hooks
        self.configured = any(asset.config is not None for asset in graph)
        """Whether any asset takes a config."""

    def read(self, spec: RunSpec) -> RunDetails:
        """Check what a request says of its run.

        Raises:
            OptionsError: something is unknown or does not fit; names option and value.
        """
        if spec.details is not None:
            return spec.details
        if spec.is_plain:
            return NO_DETAILS
        names = spec.assets
        scope = self._scope(names, spec.expand)
        config, secrets = self._config(spec.config, scope)
        hooks, hooks_config = self._hook_names(spec.hooks, spec.hooks_config)
        return RunDetails(
            tags=check_tags(spec.tags),
            metadata={} if spec.metadata is None else check_document("metadata", spec.metadata),
            config=config,
            io=self._io(spec.io, names),
            resources=self._substitutes(spec.resources, scope),
            hooks=hooks,
            hooks_config=hooks_config,
            secrets=secrets,
        )

    def same_config(self, spec: RunSpec, details: RunDetails) -> Mapping[str, str | None]:
        """Return the `config_hash` of each asset that has to be computed in just this way.

        What was made with another one, or is under way with it, does not serve.
        """
        if not (details.config or details.io or details.resources):
            return NOTHING_GIVEN
        found = {}
        for name in self._scope(spec.assets, spec.expand):
            asset = self._graph[name]
            has_own = asset.owner in details.config or asset.owner in details.io
            if has_own or any(one in details.resources for one in self._required(asset)):
                found[name] = self.config_hash(details, asset)
        return found

    def complete(self, details: RunDetails, names: Iterable[str]) -> RunDetails:
        """Return details with the defaults of all assets that will run.

        Raises:
            OptionsError: an asset needs a config that was not given.
        """
        config = dict(details.config)
        for name in names:
            for asset in (self._graph[name], *self._graph[name].companions):
                if asset.config is not None and asset.owner not in config:
                    config[asset.owner] = _document(asset.owner, config_schema(asset.config), {})
        return details if len(config) == len(details.config) else replace(details, config=config)

    def config_hash(self, details: RunDetails, asset: Asset) -> str | None:
        """Return what stands for how a run computes an asset; see `RunDetails.config_hash`."""
        if details is NO_DETAILS:
            return None
        return details.config_hash(asset.owner, self._required(asset))

    # --- config -------------------------------------------------------------------------------------------

    def _scope(self, targets: Iterable[str], expand: Collection[str] | None) -> list[str]:
        """Return the assets that may run, upstream first."""
        found = set(targets)
        if expand is None:
            found.update(*(self._graph.upstream(name) for name in list(found)))
        else:
            found.update(expand)
        return [name for name in self._graph.order if name in found]

    def _config(
        self, given: object, scope: Collection[str]
    ) -> tuple[dict[str, dict[str, JsonValue]], tuple[Place, ...]]:
        if given is None:
            return {}, ()
        takers = {name: config_schema(asset.config) for name in scope if (asset := self._graph[name]).config}
        found = {
            name: _document(name, takers[name], one) for name, one in self._by_asset(given, takers, scope).items()
        }
        check_size("config", found)
        return found, tuple((name, secret) for name in found for secret in takers[name].secrets)

    def _by_asset(
        self, given: object, takers: Mapping[str, ConfigSchema], scope: Collection[str]
    ) -> Mapping[str, object]:
        """Return a config by asset: as it is, or what was given flat, for the one asset that takes a config."""
        if isinstance(given, Mapping) and not given:
            return {}
        if not takers:
            raise OptionsError(
                f"config={_short(given)}: none of {join_names(scope)} takes a config. Declare what it takes: "
                "@asset(config=MyConfig), with a dataclass, a TypedDict, a pydantic model or dict."
            )
        only = next(iter(takers)) if len(takers) == 1 else None
        if not isinstance(given, Mapping):
            if only is None:
                raise OptionsError(
                    f"config={_short(given)}: {join_names(takers)} take a config in this run; say whose it is, "
                    f"such as config={{{next(iter(takers))!r}: ...}}."
                )
            return {only: given}
        by_asset = all(name in takers for name in given)
        if only is not None and not (by_asset and only not in (takers[only].fields or ())):
            self._refuse_other_assets(given, takers, scope)
            return {only: given}
        for name in given:
            if name not in takers:
                raise OptionsError(self._no_taker(name, takers, scope))
        return given

    def _refuse_other_assets(
        self, given: Mapping[Any, object], takers: Mapping[str, ConfigSchema], scope: Collection[str]
    ) -> None:
        """Refuse a config by asset that names assets which take none, or do not run."""
        schema = next(iter(takers.values()))
        for name, one in given.items():
            if isinstance(one, Mapping) and name in self._graph and name not in (schema.fields or (name,)):
                raise OptionsError(self._no_taker(name, takers, scope))

    def _no_taker(self, name: object, takers: Mapping[str, ConfigSchema], scope: Collection[str]) -> str:
        listed = f"Assets of this run that take one: {join_names(takers)}."
        if name in scope:
            return f"config={{{name!r}: ...}}: {name!r} takes no config; declare @asset(config=...). {listed}"
        if name in self._graph:
            return f"config={{{name!r}: ...}}: asset {name!r} is no part of this run. {listed}"
        hint = did_you_mean(str(name), takers)
        return f"config={{{_short(name)}: ...}}: there is no such asset in this run.{hint} {listed}"

    # --- parts by name ------------------------------------------------------------------------------------

    def _io(self, given: object, targets: Collection[str]) -> dict[str, str]:
        if given is None:
            return {}
        chosen = given if isinstance(given, Mapping) else dict.fromkeys(targets, given)
        for name, manager in chosen.items():
            if name not in targets:
                raise OptionsError(
                    f"io={{{name!r}: ...}}: io= chooses where the targets are kept, and {name!r} is none of them."
                    f"{did_you_mean(str(name), targets)} Targets: {join_names(targets)}."
                )
            if not isinstance(manager, str) or manager not in self._values.names:
                raise OptionsError(_unknown("io", manager, self._values.names, "IO manager", "io={...}"))
        return dict(chosen)

    def _substitutes(self, given: object, scope: Collection[str]) -> dict[str, str]:
        if given is None:
            return {}
        if not isinstance(given, Mapping):
            raise OptionsError(
                f"resources={_short(given)}: give the names of resources that stand in for required ones, such as "
                'resources={"db": "test_db"}.'
            )
        required = {one for name in scope for asset in self._all(name) for one in self._required(asset)}
        for name, other in given.items():
            if name not in required:
                raise OptionsError(
                    f"resources={{{name!r}: ...}}: nothing in this run requires a resource {name!r}."
                    f"{did_you_mean(str(name), required)} Required: {join_names(sorted(required)) or 'none'}."
                )
            if not isinstance(other, str) or other not in self._resources.names:
                option = f"resources={{{name!r}: ...}}"
                raise OptionsError(_unknown(option, other, self._resources.names, "resource", "resources={...}"))
        return dict(given)

    def _hook_names(
        self, given: object, configs: object
    ) -> tuple[tuple[str, ...], dict[str, dict[str, JsonValue]]]:
        if isinstance(given, str) or not isinstance(given, Iterable):
            raise OptionsError(f"hooks={_short(given)}: give a list of names, such as hooks=['timed'].")
        listed = tuple(given)
        for name in listed:
            if not isinstance(name, str) or name not in self._hooks.names:
                raise OptionsError(_unknown("hooks", name, self._hooks.names, "named hook", "hooks={...}"))
        names = tuple(dict.fromkeys(listed))
        if configs is None:
            configs = {}
        if not isinstance(configs, Mapping):
            raise OptionsError(f'hooks_config={_short(configs)}: give a dict, such as {{"timed": {{...}}}}.')
        for name in configs:
            if name not in names:
                raise OptionsError(
                    f"hooks_config={{{name!r}: ...}}: this request does not use a hook {name!r}."
                    f"{did_you_mean(str(name), names)} Name it as well: hooks=[{name!r}]."
                )
        # what a hook needs and does not get is missed here, not on a worker
        documents = {name: self._hooks.document(name, configs.get(name, {})) for name in names}
        return names, {name: document for name, document in documents.items() if document}

    def _all(self, name: str) -> tuple[Asset, ...]:
        return self._graph[name], *self._graph[name].companions

    def _required(self, asset: Asset) -> set[str]:
        checks = (one for check in self._checks.of(asset.name) for one in check.requires)
        return {*asset.requires, *checks}


def _document(asset: str, schema: ConfigSchema, given: object) -> dict[str, JsonValue]:
    try:
        return schema.document(given)
    except ConfigError as error:
        raise config_problem(asset, error) from None


def _unknown(option: str, name: object, known: Collection[str], what: str, where: str) -> str:
    if not isinstance(name, str):
        return (
            f"{option}: {_short(name)} is an object, and a request carries names, so that it can run anywhere. "
            f"Declare it under a name, FlowStone(..., {where}), and pass that name."
        )
    declared = join_names(sorted(known)) or "none"
    return (
        f"{option}: there is no {what} {name!r}.{did_you_mean(name, known)} Declared: {declared}. Declare it with "
        f"FlowStone(..., {where})."
    )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
