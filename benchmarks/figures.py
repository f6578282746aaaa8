"""The figures: who competes in each, how often, and what FlowStone aims at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.measurement import Contestant

ASSETS = 100
LIMIT = 50
CHAIN = 50


@dataclass(frozen=True, slots=True)
class Target:
    """Something FlowStone aims at: a peer's cost for one item, divided by that of a contestant of ours.

    Args:
        ours: name of FlowStone's contestant.
        theirs: name of the peer's.
        at_least: the ratio aimed at; above 1 means cheaper than the peer.
    """

    ours: str
    theirs: str
    at_least: float


@dataclass(frozen=True, slots=True)
class Figure:
    """One table.

    Args:
        group: `inline`, `durable`, `shapes`, `import` or `start`.
        title: its heading.
        item: what the seconds are divided by.
        contestants: its lines; the first is the one that the others are compared with.
        rounds: how often everything is measured.
        targets: what is aimed at.
    """

    group: str
    title: str
    item: str
    contestants: tuple[Contestant, ...]
    rounds: int
    targets: tuple[Target, ...] = ()


def figures(*, quick: bool) -> list[Figure]:
    """Return all figures; `quick` makes them small enough to see that everything works."""
    rounds = 1 if quick else 3
    return [
        _graph("chain", "Chain of 100 no-op assets, inline", rounds),
        _graph("layers", "10 layers of 10 no-op assets, each reading the whole layer before, inline", rounds),
        _partitions(rounds, quick),
        _imports(2 if quick else 11),
        _commands(1 if quick else 3, 2 if quick else 7),
        _ready(1 if quick else 3, 1 if quick else 5),
        _backfill(1 if quick else 3, 1_000 if quick else 10_000),
        _planning(1 if quick else 3, 2_000 if quick else 100_000, 1_000 if quick else 20_000),
        _durable_chain(1 if quick else 3),
        _dag(1 if quick else 5, 400 if quick else 10_000),
        _orchestrators(rounds, 20 if quick else 100),
        _fan(rounds, 50 if quick else 1_000),
        _durable_fan(rounds, 50 if quick else 1_000),
        _wide(rounds),
        _latency(rounds, 5 if quick else CHAIN),
    ]


def _graph(shape: str, title: str, rounds: int) -> Figure:
    def entry(name: str, environment: str, repetitions: int, **more: Any) -> Contestant:
        options = {"shape": shape, "repetitions": repetitions} | more
        return Contestant(name, environment, f"{environment}_graph", ASSETS, options)

    contestants = (
        entry("FlowStone", "flowstone", 20),
        entry("loop of function calls", "plain", 20),
        entry("Hamilton", "hamilton", 20),
        entry("Dagster", "dagster", 2, log=True),
        entry("Dagster, log off", "dagster", 2, log=False),
    )
    targets = (
        Target("FlowStone", "Dagster", 500),
        Target("FlowStone", "Dagster, log off", 500),
        Target("FlowStone", "Hamilton", 1 / 5),
    )
    return Figure("inline", title, "asset", contestants, rounds, targets)


def _partitions(rounds: int, quick: bool) -> Figure:
    ours, theirs = 1_000, 10 if quick else 100
    options: Mapping[str, Any] = {"partitions": theirs, "repetitions": 1}
    contestants = (
        Contestant("FlowStone", "flowstone", "flowstone_partitions", ours, {"partitions": ours, "repetitions": 5}),
        Contestant("Dagster", "dagster", "dagster_partitions", theirs, options | {"log": True}),
        Contestant("Dagster, log off", "dagster", "dagster_partitions", theirs, options | {"log": False}),
    )
    targets = (Target("FlowStone", "Dagster", 500), Target("FlowStone", "Dagster, log off", 500))
    return Figure(
        "inline",
        f"One `materialize` for each of {ours:,} partitions ({theirs} for Dagster), inline",
        "partition",
        contestants,
        rounds,
        targets,
    )


def _imports(rounds: int) -> Figure:
    contestants = (
        Contestant("import flowstone", "flowstone", "import_time", 1, {"module": "flowstone"}),
        Contestant("import dagster", "dagster", "import_time", 1, {"module": "dagster"}),
    )
    return Figure(
        "import",
        "Import in a fresh process, bytecode compiled",
        "import",
        contestants,
        rounds,
        (Target("import flowstone", "import dagster", 10),),
    )


def _commands(rounds: int, repetitions: int) -> Figure:
    def entry(program: str, environment: str) -> Contestant:
        options = {"command": [program, "--help"], "repetitions": repetitions}
        return Contestant(f"{program} --help", environment, "command_time", 1, options)

    contestants = (
        entry("flowstone", "flowstone"),
        Contestant(
            "python -c pass",
            "plain",
            "command_time",
            1,
            {"command": ["python", "-c", "pass"], "repetitions": repetitions},
        ),
        entry("dagster", "dagster"),
    )
    return Figure(
        "start",
        "Help of the command line",
        "call",
        contestants,
        rounds,
        (Target("flowstone --help", "dagster --help", 10),),
    )


def _ready(rounds: int, repetitions: int) -> Figure:
    app = ["--app", "benchmarks.peers.flowstone_start_app:flow"]

    def entry(name: str, environment: str, command: list[str], ready: str, **more: Any) -> Contestant:
        options = {"command": command, "ready": ready, "repetitions": repetitions} | more
        return Contestant(name, environment, "until_ready", 1, options, database=True)

    upgrade = {"prepare": ["-m", "flowstone", "db", "upgrade", *app]}
    oban = ["-m", "benchmarks.peers.oban_start"]
    install = {"prepare": [*oban, "install"]}
    contestants = (
        entry("flowstone worker", "flowstone", ["-m", "flowstone", "worker", *app], "is ready", **upgrade),
        entry("Oban, bare", "oban", oban, "ready", **install),
        entry(
            "flowstone web serve, first page",
            "flowstone",
            ["-m", "flowstone", "web", "serve", "--port", "0", *app],
            "Dashboard:",
            page=True,
            **upgrade,
        ),
    )
    return Figure(
        "start",
        "From the start of a process until it is ready: a worker acquires jobs, a first page has come",
        "start",
        contestants,
        rounds,
        (Target("flowstone worker", "Oban, bare", 1 / 2),),
    )


def _backfill(rounds: int, jobs: int) -> Figure:
    def entry(name: str, environment: str, module: str, workers: int) -> Contestant:
        options = {"jobs": jobs, "workers": workers, "limit": LIMIT}
        label = f"{name}, {workers} process{'es' if workers > 1 else ''}"
        return Contestant(label, environment, module, jobs, options, database=True)

    contestants = tuple(
        one
        for workers in (1, 2)
        for one in (
            entry("FlowStone backfill", "flowstone", "flowstone_backfill", workers),
            *_drains(jobs, workers),
        )
    )
    one, two = "FlowStone backfill, 1 process", "FlowStone backfill, 2 processes"
    return Figure(
        "durable",
        f"Durable backfill of {jobs:,} no-op partitions, from call to return, beside draining {jobs:,} no-op jobs "
        f"that were inserted before (limit {LIMIT} a process)",
        "job",
        contestants,
        rounds,
        (
            Target(one, "Oban drain, 1 process", 1.5),
            Target(two, "Oban drain, 2 processes", 1.5),
            Target(two, one, 1.6),
        ),
    )


def _planning(rounds: int, ours: int, theirs: int) -> Figure:
    contestants = (
        Contestant("FlowStone", "flowstone", "flowstone_plan", ours, {"jobs": ours}, database=True),
        Contestant(
            "FlowStone, a tenth of it",
            "flowstone",
            "flowstone_plan",
            ours // 10,
            {"jobs": ours // 10},
            database=True,
        ),
        Contestant("Oban enqueue_many", "oban", "oban_insert", theirs, {"jobs": theirs}, database=True),
    )
    return Figure(
        "durable",
        f"Planning and inserting a backfill of {ours:,} partitions, beside `enqueue_many` of {theirs:,} jobs",
        "job",
        contestants,
        rounds,
        (Target("FlowStone", "Oban enqueue_many", 10),),
    )


def _durable_chain(rounds: int) -> Figure:
    latency = {"repetitions": 5, "length": CHAIN, "limit": 10}
    contestants = (
        Contestant(
            "FlowStone", "flowstone", "flowstone_chain", CHAIN, {"repetitions": 5, "limit": 10}, database=True
        ),
        Contestant(
            "FlowStone, on two workers in turn",
            "flowstone",
            "flowstone_handover",
            CHAIN,
            {"repetitions": 5, "limit": 10},
            database=True,
        ),
        Contestant("Oban, bare", "oban", "oban_latency", CHAIN, latency, database=True),
    )
    return Figure(
        "durable",
        f"Chain of {CHAIN} assets on idle workers, from call to return, or from the end of each function to the "
        f"start of the next one on another worker, beside {CHAIN} bare latencies of Oban, `enqueue` to start",
        "step",
        contestants,
        rounds,
        (Target("FlowStone", "Oban, bare", 1 / 1.5), Target("FlowStone, on two workers in turn", "Oban, bare", 1)),
    )


def _dag(rounds: int, jobs: int) -> Figure:
    def ours(
        label: str, workers: int = 1, *, edges: bool = True, rows: int = 20, io: str = "postgres"
    ) -> Contestant:
        options = {"jobs": jobs, "workers": workers, "limit": LIMIT, "edges": edges, "rows": rows, "io": io}
        return Contestant(f"FlowStone, {label}", "flowstone", "flowstone_dag", jobs, options, database=True)

    contestants = (
        ours("dag"),
        ours("dag, 2 processes", 2),
        ours("dag, values in files", io="filesystem"),
        ours("edges, tiny values", rows=0),
        ours("no edges, tiny values", edges=False, rows=0),
        *_drains(jobs, 1),
        *_drains(jobs, 2),
    )
    return Figure(
        "shapes",
        f"Durable backfill of 4 daily assets with edges, 20 rows a value and a mapping over three days "
        f"({jobs:,} steps), from call to return, beside draining as many no-op jobs that were inserted before",
        "step",
        contestants,
        rounds,
        (
            Target("FlowStone, dag", "Oban drain, 1 process", 2),
            Target("FlowStone, dag, 2 processes", "Oban drain, 2 processes", 1.5),
        ),
    )


def _orchestrators(rounds: int, jobs: int) -> Figure:
    """The shape `dag` beside what records steps as well; they keep their records in SQLite, as by default."""
    options = {"jobs": jobs, "workers": 1, "limit": LIMIT, "edges": True, "rows": 20, "io": "filesystem"}
    contestants = (
        Contestant("FlowStone, values in files", "flowstone", "flowstone_dag", jobs, options, database=True),
        Contestant("Dagster, in this process", "dagster", "dagster_dag", jobs, {"jobs": jobs}),
        Contestant("Prefect, one flow", "prefect", "prefect_dag", jobs, {"jobs": jobs, "limit": LIMIT}),
    )
    return Figure(
        "shapes",
        f"{jobs} steps of the same 4 daily assets, recorded, values in files, beside Dagster and Prefect",
        "step",
        contestants,
        rounds,
    )


def _fan(rounds: int, width: int) -> Figure:
    def entry(name: str, environment: str, repetitions: int) -> Contestant:
        options = {"width": width, "repetitions": repetitions}
        return Contestant(name, environment, f"{environment}_fan", width + 2, options)

    contestants = (
        entry("FlowStone", "flowstone", 3),
        entry("Hamilton, Parallelizable", "hamilton", 3),
        entry("Dagster, dynamic outputs, log off", "dagster", 1),
    )
    return Figure(
        "inline",
        f"1 → {width:,} → 1, inline: partitions in FlowStone, dynamic nodes elsewhere",
        "node",
        contestants,
        rounds,
        (Target("FlowStone", "Hamilton, Parallelizable", 1 / 5),),
    )


def _shape(shape: str, steps: int, workers: int, **app: Any) -> Contestant:
    options = {"shape": shape, "app": app, "steps": steps, "workers": workers, "repetitions": 3, "limit": LIMIT}
    name = f"FlowStone, {workers} process{'es' if workers > 1 else ''}"
    return Contestant(name, "flowstone", "flowstone_shapes", steps, options, database=True)


def _drains(jobs: int, workers: int) -> tuple[Contestant, ...]:
    """Return the queues that drain no-op jobs; procrastinate gets at most 1,000: each takes it milliseconds."""
    processes = f"{workers} process{'es' if workers > 1 else ''}"
    return tuple(
        Contestant(
            f"{name} drain, {processes}",
            name.lower(),
            f"{name.lower()}_drain",
            number,
            {"jobs": number, "workers": workers, "limit": LIMIT},
            database=True,
        )
        for name, number in (("Oban", jobs), ("PgQueuer", jobs), ("procrastinate", min(jobs, 1_000)))
    )


def _durable_fan(rounds: int, width: int) -> Figure:
    return Figure(
        "shapes",
        f"1 → {width:,} → 1 on workers, from call to return, beside draining as many no-op jobs",
        "step",
        (_shape("fan", width + 2, 1, width=width), *_drains(width + 2, 1)),
        rounds,
    )


def _wide(rounds: int) -> Figure:
    steps = 300 * 30
    return Figure(
        "shapes",
        "300 assets × 30 partitions in ten layers, each reading three of the layer before, on workers, from call "
        "to return, beside draining as many no-op jobs",
        "step",
        (_shape("wide", steps, 1), _shape("wide", steps, 2), *_drains(steps, 1), *_drains(steps, 2)),
        rounds,
    )


def _latency(rounds: int, length: int) -> Figure:
    def ours(name: str, *, approval: bool) -> Contestant:
        options = {"approval": approval, "length": length, "repetitions": 3}
        return Contestant(f"FlowStone, {name}", "flowstone", "flowstone_latency", length, options, database=True)

    bare = {"repetitions": 3, "length": length, "limit": 10}
    return Figure(
        "durable",
        "What a caller waits for on an idle worker, beside the bare latency of Oban, `enqueue` to start",
        "time",
        (
            ours("call to value of one step", approval=False),
            ours("approval to value", approval=True),
            Contestant("Oban, bare", "oban", "oban_latency", length, bare, database=True),
        ),
        rounds,
    )
