"""Partitions that come and go: customers sign up and leave while the app runs."""

from __future__ import annotations

from flowstone import AllPartitions, AssetContext, DynamicPartitions, FlowStone, asset, dep
from flowstone.errors import UnknownPartitionError

customers = DynamicPartitions("customers")
ORDERS = {"acme": [120, 80], "globex": [300], "initech": [40, 40, 40]}


@asset(partitions=customers)
def orders(context: AssetContext) -> list[int]:
    return ORDERS[str(context.partition)]


@asset(partitions=customers)
def revenue(orders: list[int]) -> int:
    return sum(orders)


@asset(deps={"revenues": dep(revenue, mapping=AllPartitions())})
def ranking(revenues: dict[str, int]) -> list[str]:
    return sorted(revenues, key=lambda customer: -revenues[customer])


def main() -> None:
    """Sign customers up, rank them, and let one go."""
    with FlowStone([orders, revenue, ranking]) as flow:
        flow.partitions.add(customers, ["acme", "globex"], by="ann")
        print(flow.materialize_all("ranking").value)

        new = flow.partitions.add(customers, ["globex", "initech"], by="bob", reason="signed up")
        print("new:", *new)
        flow.materialize_all("revenue")
        print(flow.materialize("ranking", force=True).value)

        flow.partitions.remove(customers, ["acme"], by="bob", reason="left us")
        print(flow.materialize("ranking", force=True).value)
        print("acme had", flow.load("revenue", partition="acme"))
        try:
            flow.materialize("revenue", partition="acme", force=True)
        except UnknownPartitionError as error:
            print(str(error).partition(":")[0])
        for change in flow.partitions.history(customers, "acme"):
            print("removed" if change.removed else "added", "by", change.by)


if __name__ == "__main__":
    main()
