"""Orders of many rows: integers are sorted ten times as fast as positions are, so rows travel in their own keys."""

import numpy as np
from jaxtyping import Float64, Int64

_MOST_BITS = 48
"""Of a value in a key: with fewer than a double holds, rounding cannot carry into the group."""

_FEWEST_BITS = 16
"""With fewer, too many values would share a key."""


def sorted_rows(
    group: Int64[np.ndarray, "rows"], value: Float64[np.ndarray, "rows"], *, groups: int
) -> Int64[np.ndarray, "rows"]:
    """Rows by group, then value, then row: `np.lexsort((value, group))`, in a fraction of its time.

    A key holds the group, the value in whole steps between the least and the largest, and the row. Values that share
    a step are put right afterwards, where they came out wrong.

    Args:
        group: From 0 up to `groups`, excluded.
    """
    row_bits = max(len(group) - 1, 0).bit_length()
    value_bits = min(63 - row_bits - max(groups - 1, 0).bit_length(), _MOST_BITS)
    low, high = value.min(initial=np.inf), value.max(initial=-np.inf)
    span = float(high) - float(low)
    if len(group) < 2 or value_bits < _FEWEST_BITS or not np.isfinite(span):
        return np.lexsort((value, group))
    steps = (2.0**value_bits - 1) / span if span > 0 else 0.0
    if not np.isfinite(steps):
        return np.lexsort((value, group))
    key = ((value - low) * steps).astype(np.int64)
    key |= group << value_bits
    key <<= row_bits
    key |= np.arange(len(key))
    key.sort()
    rows = key & ((1 << row_bits) - 1)
    key >>= row_bits
    ordered = value[rows]
    shared = key[1:] == key[:-1]
    if (shared & (ordered[1:] < ordered[:-1])).any():
        touched = np.zeros(len(key), dtype=bool)
        touched[1:] |= shared
        touched[:-1] |= shared
        places = np.flatnonzero(touched)
        rows[places] = rows[places[np.lexsort((ordered[places], key[places]))]]
    return rows
