"""Launch: a form, the plan of what it would do, and a button that places exactly that plan."""

from __future__ import annotations

import json
import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass, field, fields, replace
from typing import Any

from flowstone.app.launch import LaunchPlan, LaunchRequest
from flowstone.errors import LaunchChangedError, LaunchError
from flowstone.web.fields import number, text
from flowstone.web.registry import ActionCall, Confirm, Done, PageRequest, Role, action, page, url

_MAX_CONFIG = 20_000
_MAX_DRAFTS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchFields:
    """What the form has.

    Args:
        selection: which assets.
        partitions: partitions, separated by commas.
        first: first one of a range.
        last: last one of a range.
        every: all complete partitions.
        config: config of the run, a JSON object.
        tags: tags, separated by commas.
        force: compute although it is committed.
        executor: where it runs.
        max_concurrency: most steps at once.
    """

    selection: str = ""
    partitions: str = text("", maximum=20_000)
    first: str = ""
    last: str = ""
    every: bool = False
    config: str = text("", maximum=_MAX_CONFIG)
    tags: str = ""
    force: bool = False
    executor: str = "auto"
    max_concurrency: int | None = number(None, minimum=1, maximum=1_000_000)

    def request(self) -> LaunchRequest:
        """Return the request.

        Raises:
            LaunchError: the config is no JSON object.
        """
        return LaunchRequest(
            selection=self.selection,
            partitions=self.partitions,
            first=self.first,
            last=self.last,
            every=self.every,
            config=_config(self.config),
            tags=tuple(one.strip() for one in self.tags.split(",") if one.strip()),
            force=self.force,
            executor=self.executor,
            max_concurrency=self.max_concurrency,
        )


def _config(given: str) -> dict[str, Any]:
    if not given.strip():
        return {}
    try:
        found = json.loads(given)
    except (ValueError, RecursionError) as error:
        raise LaunchError(
            {"config": f'This is no JSON ({error}). Write an object, such as {{"rows": 10}}.'}
        ) from error
    if not isinstance(found, dict):
        raise LaunchError({"config": 'Write a JSON object, such as {"rows": 10} or {"orders": {"rows": 10}}.'})
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchQuery(LaunchFields):
    """The form, and whether its plan is to be shown.

    Args:
        plan: show what it would do.
        draft: a form that was kept because its plan changed.
    """

    plan: bool = False
    draft: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchModel:
    """The form as it was sent, what is wrong with it, and its plan.

    Args:
        form: the fields.
        errors: what is wrong, by the name of the field; of the whole under the empty name.
        plan: what it would do; None when that was not asked for or cannot work.
        suggestions: texts that are selections.
        executors: names that the field of the executor takes.
        workers: how many workers are alive; None when there cannot be any.
    """

    form: LaunchFields
    errors: dict[str, str] = field(default_factory=dict)
    plan: LaunchPlan | None = None
    suggestions: tuple[str, ...] = ()
    executors: tuple[str, ...] = ()
    workers: int | None = None

    @property
    def refused(self) -> bool:
        """Whether the form cannot work as it is."""
        return bool(self.errors)


@page(
    "/launch",
    template="launch.html",
    query=LaunchQuery,
    role=Role.OPERATOR,
    title="Launch",
    rail="Runs",
    personal=True,
    posts=True,
)
def launch(request: PageRequest[LaunchQuery]) -> LaunchModel:
    """Return the form, with its plan when that is asked for. Nothing is placed."""
    flow, query = request.flow, request.query
    kept = _drafts.get(query.draft, request.person.name) if query.draft else None
    form = kept or LaunchFields(**{one.name: getattr(query, one.name) for one in fields(LaunchFields)})
    errors: dict[str, str] = {}
    plan = None
    if query.draft and kept is None:
        errors[""] = "What was entered is kept for a while only, and is gone by now. Enter it again."
    elif query.plan or kept is not None:
        try:
            _config(form.config)
        except LaunchError as error:
            errors = error.problems
            form = replace(form, config="")  # what else is wrong is said at once
        try:
            plan = flow.launch.plan(form.request())
        except LaunchError as error:
            errors = {**error.problems, **errors}
        if "config" in errors:
            plan, form = None, replace(form, config=query.config if kept is None else kept.config)
    return LaunchModel(
        form=form,
        errors=errors,
        plan=plan,
        suggestions=tuple(flow.launch.suggestions()),
        executors=tuple(flow.launch.executors()),
        workers=request.insights.workers().alive if flow.parts.store.durable else None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceForm(LaunchFields):
    """The form, and the plan that was agreed to.

    Args:
        digest: of the plan; without it, whatever the plan is now is placed.
    """

    digest: str = ""


def _confirm(call: ActionCall[PlaceForm]) -> Confirm:
    plan = call.flow.launch.plan(call.form.request())
    return Confirm(
        f"Run {plan.runs:,} steps?",
        f"Run {plan.runs:,} steps",
        details=(f"{plan.reuses:,} are served by what is committed, {plan.joins:,} are under way already.",),
        form=replace(call.form, digest=plan.digest),
    )


@action("/launch/place", title="Launch a run", form=PlaceForm, role=Role.OPERATOR, confirm=_confirm)
def place(call: ActionCall[PlaceForm]) -> Done:
    """Place what was planned; a plan that changed is shown again instead."""
    form = call.form
    try:
        handle = call.flow.launch.place(form.request(), digest=form.digest or None)
    except LaunchChangedError as error:
        kept = LaunchFields(**{one.name: getattr(form, one.name) for one in fields(LaunchFields)})
        key = _drafts.put(kept, call.person.name)
        changed = f"The plan changed meanwhile: now {error.plan.runs:,} steps would run. Nothing was started."
        return Done(changed, url("launch", draft=key), error.plan)
    return Done(f"Run {handle.id} is placed.", url("run", id=handle.id), _Placed(handle.id))


@dataclass(frozen=True, slots=True)
class _Placed:
    """What the JSON API answers.

    Args:
        run_id: the run.
    """

    run_id: str


class _Drafts:
    """Forms that are to be shown again; their config must not stand in an address."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[str, LaunchFields]] = OrderedDict()

    def put(self, form: LaunchFields, person: str) -> str:
        """Keep a form for a person; return its key."""
        key = secrets.token_urlsafe(16)
        with self._lock:
            self._kept[key] = (person, form)
            while len(self._kept) > _MAX_DRAFTS:
                self._kept.popitem(last=False)
        return key

    def get(self, key: str, person: str) -> LaunchFields | None:
        """Return the form of a key, to the person who entered it."""
        found = self._kept.get(key)
        return found[1] if found is not None and found[0] == person else None


_drafts = _Drafts()
