# %% [markdown]
# The best prices of an order book, live, from a topic that another process shares.
#
# In one terminal (Rust; half an hour of a real feed, a hundred times as fast):
#
#     cargo run --release --example order_book -- --speed 100x --share best-prices
#
# In another one, at any time, cell by cell in an editor that knows `# %%`, or as a whole:
#
#     python3 order_book_live.py best-prices book.png
#
# Nothing is copied on the way: a batch's arrays are the memory that the engine's thread wrote.

# %%
import sys
import time

import numpy as np
import slipring

name = sys.argv[1] if len(sys.argv) > 1 else "best-prices"
picture = sys.argv[2] if len(sys.argv) > 2 else None

# %% Open the ring. The layout is in it, so this script declares no type.
begun = time.monotonic()
while True:
    try:
        ring = slipring.open(name)
        break
    except slipring.NotFound:
        if time.monotonic() - begun > 120:
            sys.exit(f"there is no ring {name!r}: start the order book with --share {name}")
        time.sleep(0.1)
print(ring, ring.dtype.names)

# %% Read. A script that comes late begins with what the ring keeps.
kept, shown = [], time.monotonic()
with ring.consumer("research", start="earliest") as tape:
    for batch in tape:                                # waits; ends when the other side closes the ring
        prices = batch.array
        both = prices[(prices["bid"] > 0) & (prices["ask"] > 0)]
        kept.append(both.copy())                      # the batch is void after this turn
        if len(both) and time.monotonic() - shown > 1:
            shown, last = time.monotonic(), both[-1]
            print(f"{last['time_ms']}: bid {last['bid'] / 100:.2f}, ask {last['ask'] / 100:.2f}")

# %% What came, in the units of the exchange: cents are a hundredth, volumes 1e-8.
quotes = np.concatenate(kept) if kept else np.empty(0, ring.dtype)
if not len(quotes):
    sys.exit("no prices came: the ring was closed, and its events were gone")
gaps = np.diff(quotes["index"].astype(np.int64))
spread = (quotes["ask"].astype(np.int64) - quotes["bid"].astype(np.int64)) / 100
volumes = quotes["bid_volume"].astype(float), quotes["ask_volume"].astype(float)
imbalance = (volumes[0] - volumes[1]) / (volumes[0] + volumes[1])
print(f"{len(quotes)} quotes from {quotes['index'][0]} to {quotes['index'][-1]}, in order: {bool((gaps > 0).all())}")
print(f"median spread {np.median(spread):.2f}, mean imbalance {imbalance.mean():+.3f}")

# %% The picture.
if picture:
    try:
        import matplotlib
    except ImportError:
        sys.exit("no picture: python3 -m pip install matplotlib")
    matplotlib.use("agg")
    from matplotlib import pyplot

    minutes = (quotes["time_ms"] - quotes["time_ms"][0]) / 60_000
    figure, (prices, below) = pyplot.subplots(2, sharex=True, figsize=(10, 6), gridspec_kw={"height_ratios": [3, 1]})
    prices.step(minutes, quotes["bid"] / 100, where="post", label="best bid", linewidth=0.8)
    prices.step(minutes, quotes["ask"] / 100, where="post", label="best ask", linewidth=0.8)
    prices.set_ylabel("price")
    prices.legend()
    below.plot(minutes, imbalance, linewidth=0.5)
    below.set_ylabel("imbalance")
    below.set_xlabel("minutes of the feed")
    figure.savefig(picture, dpi=120)
    print(f"picture: {picture}")
