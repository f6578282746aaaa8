"""`lineage`: what was read, not what is declared."""

from __future__ import annotations

from tests.cli.conftest import CommandLine

import flowstone


def test_upstream_downstream_and_impact(cli: CommandLine, database_url: str) -> None:
    @flowstone.asset
    def a() -> int:
        return 1

    @flowstone.asset
    def b(a: int) -> int:
        return a + 1

    @flowstone.asset
    def c(b: int) -> int:
        return b + 1

    with flowstone.FlowStone([a, b, c], database_url=database_url) as flow:
        first = {name: flow.materialize(name, executor="sync").step_id for name in "abc"}
        again = flow.materialize("a", executor="sync", force=True).step_id
    here = ("--database", database_url, "--json")  # no app: the assets are declared no more

    def names(*words: str) -> list[tuple[str, str, int]]:
        found = cli("lineage", *words, *here).json["versions"]
        return [(one["asset"], one["step_id"], one["depth"]) for one in found]

    assert names("c") == [("c", str(first["c"]), 0), ("b", str(first["b"]), 1), ("a", str(first["a"]), 2)]
    assert names("c", "--depth", "1") == [("c", str(first["c"]), 0), ("b", str(first["b"]), 1)]
    assert names("a") == [("a", str(again), 0)]
    assert names("b", "--downstream") == [("b", str(first["b"]), 0), ("c", str(first["c"]), 1)]
    assert names("b", "--impact") == [("c", str(first["c"]), 1)]
    assert cli("lineage", "c", "--limit", "1", *here).json["total"] == 3
    shown = cli("lineage", "c", "--limit", "2", "--database", database_url)
    assert "The nearest 2 of 3 versions" in shown.err
    assert cli("lineage", "nobody", *here).code == 2
    assert cli("lineage", "a", "--impact", "--depth", "2", *here).code == 2
    assert cli("lineage", "a", "--partition", "2024-01-01", *here).code == 2
