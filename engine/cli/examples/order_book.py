"""Plots an hour of an order book from the Parquet file that slipring has exported.

    cargo run --release --example order_book -- --journal ./rows
    slipring journal export ./rows --topic rows --format parquet -o rows.parquet
    python3 -m pip install pyarrow pandas matplotlib
    python3 order_book.py rows.parquet book.png

The file has a row for each order event: created, changed or deleted. The script rebuilds the book from them, and draws the best bid
and ask over time, with the volume that came and went in each ten seconds below.
"""

import heapq
import sys

try:
    import matplotlib
    import pandas
    import pyarrow.parquet as parquet
except ImportError as missing:
    sys.exit(f"{missing}: python3 -m pip install pyarrow pandas matplotlib")

matplotlib.use("agg")
from matplotlib import pyplot  # noqa: E402

BID, ASK = 0, 1
DELETED = 2
HOUR = pandas.Timedelta(hours=1)


class Book:
    """The orders by their ids, and for each side a heap with the best price on top, the oldest order first. Entries of orders that
    went or moved are taken off when they come up."""

    def __init__(self):
        self.orders = {}
        self.heaps = {BID: [], ASK: []}

    def take(self, row):
        old = self.orders.pop(row.id, None)
        if row.action == DELETED or not row.price or not row.volume:
            return
        from_snapshot = old[2] if old else row.snapshot
        self.orders[row.id] = (row.side, row.price, from_snapshot)
        heapq.heappush(self.heaps[row.side], (-row.price if row.side == BID else row.price, row.id))

    def best(self, side):
        """Price and order on top of this side; None if it is empty."""
        heap = self.heaps[side]
        while heap:
            price, order = abs(heap[0][0]), heap[0][1]
            if self.orders.get(order, (None, None))[:2] == (side, price):
                return price, order
            heapq.heappop(heap)
        return None

    def settle(self):
        """The best bid and ask. Orders of the opening snapshot that cross the book went before the feed began."""
        while (bid := self.best(BID)) and (ask := self.best(ASK)):
            oldest = min(bid[1], ask[1])
            if bid[0] < ask[0]:
                return bid[0], ask[0]
            if not self.orders[oldest][2]:
                break
            del self.orders[oldest]
        return None


def main(source, target):
    columns = ["offset", "time_ms", "id", "price", "volume", "action", "side", "snapshot", "ends_batch"]
    rows = parquet.read_table(source, columns=columns).to_pandas().sort_values("offset")
    rows["time"] = pandas.to_datetime(rows["time_ms"], unit="ms", utc=True)
    rows = rows[rows["time"] <= rows["time"].min() + HOUR]

    book, quotes = Book(), []
    for row in rows.itertuples(index=False):
        book.take(row)
        # The book is whole after the last row of a millisecond.
        if row.ends_batch and (best := book.settle()):
            quotes.append((row.time, *best))
    if not quotes:
        sys.exit(f"{source}: {len(rows)} rows, and no book in them")
    quotes = pandas.DataFrame(quotes, columns=["time", "bid", "ask"]).set_index("time") / 100

    figure, (prices, volumes) = pyplot.subplots(2, sharex=True, figsize=(10, 6), height_ratios=[3, 1])
    prices.step(quotes.index, quotes["bid"], where="post", label="best bid", linewidth=0.8)
    prices.step(quotes.index, quotes["ask"], where="post", label="best ask", linewidth=0.8)
    prices.set_ylabel("price")
    prices.legend()
    changes = rows.set_index("time")["volume"].resample("10s").sum() / 1e8
    volumes.bar(changes.index, changes, width=pandas.Timedelta(seconds=9))
    volumes.set_ylabel("volume of events")
    figure.autofmt_xdate()
    figure.savefig(target, dpi=120)
    spread = (quotes["ask"] - quotes["bid"]).median()
    print(f"{len(rows)} events, {len(quotes)} quotes, median spread {spread:.2f}: {target}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: order_book.py ROWS.parquet PICTURE.png")
    main(sys.argv[1], sys.argv[2])
