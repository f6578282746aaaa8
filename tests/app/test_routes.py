from __future__ import annotations

import sys
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from drawn_routes import Drawn, routed_graphs

from flowstone import FlowStone, Route, State, asset, dep
from flowstone.config import Settings
from flowstone.errors import DefinitionError, DependencyNotReadyError, StepFailedError

_PREFIXES = count()


def check_run(flow: FlowStone, drawn: Drawn, executor: str = "sync") -> dict[str, State]:
    """Run everything; the states follow the rules, and everybody got exactly the inputs that were there."""
    result = flow.materialize_all(list(drawn.nodes), executor=executor)
    steps = {step.asset: step for step in flow.runs.steps(result.run_id)}
    states = {name: step.state for name, step in steps.items()}
    assert set(states) == set(drawn.nodes)
    for name, state in states.items():
        assert state in drawn.allowed(name, states), (name, states, drawn)
    called = [name for name in drawn.nodes if states[name] is State.COMPLETED]
    for name in called:
        there = sorted(read for read in drawn.nodes[name].reads if states[read] is State.COMPLETED)
        assert flow.load(name) == [name, there]
        assert sorted(one.asset for one in flow.history(name)[0].inputs) == there
    for name in drawn.nodes:
        assert drawn.calls[name] <= 1
        assert not drawn.calls[name] or states[name] in (State.COMPLETED, State.SKIPPED, State.FAILED)
    assert not any(step.waiting_on for step in steps.values() if step.state is State.COMPLETED)
    return states


def check_again(flow: FlowStone, drawn: Drawn, states: dict[str, State]) -> None:
    """A second run asks no router that has decided, and starts nothing that a decision excludes."""
    before = drawn.calls.copy()
    result = flow.materialize_all(list(drawn.nodes), executor="sync", force=True)
    assert all(step.state.is_terminal for step in flow.runs.steps(result.run_id))
    for name in drawn.nodes:
        again = drawn.calls[name] - before[name]
        if states[name] is State.COMPLETED and name not in drawn.leaves():
            assert not again
        if any(states[read] is State.COMPLETED and drawn.excludes(read, name) for read in drawn.nodes[name].reads):
            assert not again or name in drawn.leaves()


@given(routed_graphs())
def test_every_run_follows_the_rules(drawn: Drawn) -> None:
    flow = FlowStone.for_testing(drawn.assets())
    states = check_run(flow, drawn)
    check_again(flow, drawn, states)


@given(routed_graphs())
@settings(max_examples=15)
def test_side_by_side_too(drawn: Drawn) -> None:
    check_run(FlowStone.for_testing(drawn.assets()), drawn, executor="async")


@given(data=st.data())
@settings(max_examples=12, suppress_health_check=list(HealthCheck))
def test_on_postgresql_as_well(database_url: str, data: st.DataObject) -> None:
    # names of their own instead of a database of their own: a clone takes longer than the test
    drawn = data.draw(routed_graphs(prefix=f"e{next(_PREFIXES)}_"))
    settings = Settings(database_url=database_url, executor="sync")
    with FlowStone(drawn.assets(), settings=settings) as flow:
        states = check_run(flow, drawn)
        check_again(flow, drawn, states)


# --- single cases ---------------------------------------------------------------------------------------------


@asset(routes=["small", "large"])
def size():
    return Route("small", value=3, reason="3 rows")


@asset
def small(size):
    return size


@asset
def prices():
    return {"a": 1}


@asset
def large(size, prices):
    return size * 100


@asset(deps=[dep("small", optional=True), dep("large", optional=True)])
def report(small, large):
    return [small, large]


ASSETS = [size, small, prices, large, report]


def make() -> FlowStone:
    return FlowStone.for_testing(ASSETS)


def test_a_plan_knows_decisions_and_leaves_out_what_only_others_need() -> None:
    flow = make()
    assert {step.asset for step in flow.plan("report").steps} == {step.name for step in ASSETS}
    flow.materialize("size")
    plan = flow.plan("report")
    assert [(step.asset, step.skip) for step in plan.steps if not step.runs] == [
        ("large", "not chosen by size: 3 rows")
    ]
    assert {step.asset for step in plan.steps if step.runs} == {"small", "report"}
    assert (plan.runs, plan.reuses) == (2, 0)
    assert flow.why("large") == ["nobody has asked for it, and it is not chosen by size: 3 rows"]


def test_one_asset_below_a_decision() -> None:
    flow = make()
    flow.materialize("size")
    with pytest.raises(DependencyNotReadyError) as caught:
        flow.materialize("report")
    assert caught.value.missing == (("small", ""),)
    flow.materialize("small")
    assert flow.materialize("report").value == [3, None]
    job = flow.schedule("large")
    assert flow.job_status(job) is State.SKIPPED
    with pytest.raises(DependencyNotReadyError) as caught:  # prices; by force nobody asks the router
        flow.materialize("large", force=True)
    assert caught.value.missing == (("prices", ""),)


def test_a_decision_is_void_with_its_version() -> None:
    flow = make()
    flow.materialize("size")
    flow.invalidate("size")
    assert flow.plan("report").runs == 5


def test_a_branch_that_was_declared_since_runs_only_when_chosen() -> None:
    before = FlowStone.for_testing([asset(name="size", routes=["small"])(lambda: Route("small", value=1)), small])
    before.materialize_all("small")
    decision = before.history("size")[0].route
    assert decision is not None
    assert (decision.chosen, decision.not_chosen) == (("small",), ())


def test_the_value_of_a_result_with_a_skipped_target() -> None:
    flow = make()
    result = flow.materialize_all(["small", "large"])
    assert (result.ok, set(result.materializations)) == (True, {("small", "")})
    with pytest.raises(StepFailedError, match="it has no value"):
        _ = flow.materialize_all("large").value


@pytest.mark.parametrize(
    ("routes", "text"),
    [
        (["smal"], "Did you mean 'small'"),
        (["report"], "not directly downstream of it"),
    ],
)
def test_routes_are_checked_when_the_app_is_built(routes: list[str], text: str) -> None:
    wrong = asset(name="size", routes=routes)(lambda: Route("small"))
    with pytest.raises(DefinitionError, match=text) as caught:
        FlowStone.for_testing([wrong, small, prices, large, report])
    assert "test_routes.py:" in str(caught.value)


def test_routes_are_a_list() -> None:
    with pytest.raises(DefinitionError, match="must be a list"):
        asset(name="size", routes="small")(lambda: None)


def test_a_function_may_not_write_a_decision_itself() -> None:
    @asset
    def writes(context):
        context.metadata["flowstone.route"] = {"chosen": [], "not_chosen": ["reads"], "reason": ""}
        return 1

    @asset
    def reads(writes):
        return writes

    flow = FlowStone.for_testing([writes, reads])
    assert flow.materialize_all("reads").value == 1
    assert flow.history("writes")[0].route is None
