"""Fast stable sorting of many rows: integer keys are sorted ten times as fast as indices, so keys contain the rows."""

import numpy as np
from jaxtyping import Float64, Int64

_MOST_BITS = 48
"""Most bits of a value in a key: fewer than those of a double, so that rounding cannot reach the group."""

_FEWEST_BITS = 16
"""Fewest bits of a value in a key; with fewer, too many values would share one."""


def sorted_rows(
    group: Int64[np.ndarray, "rows"], value: Float64[np.ndarray, "rows"], *, groups: int
) -> Int64[np.ndarray, "rows"]:
    """Rows by group, then value, then row: `np.lexsort((value, group))`, in a fraction of its time.

    A key consists of the group, the value quantised between the least and the largest, and the row. Values that share
    a quantisation step are sorted again afterwards, where needed.

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
