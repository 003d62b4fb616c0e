# SPDX-FileCopyrightText: 2026 The graft authors
# SPDX-License-Identifier: Apache-2.0
"""How rows fall to groups: the integers of shapes.hpp, so that both sides have groups of the same sizes."""


def hash_number(x):
    """SplitMix64, as shapes.hpp."""
    mask = (1 << 64) - 1
    x = (x + 0x9E3779B97F4A7C15) & mask
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
    return x ^ (x >> 31)


def group_offsets(rows, groups, routing, repetition):
    """Group e holds rows [offsets[e], offsets[e+1]).

    >>> group_offsets(1000, 4, "empty", 1)[0], group_offsets(1000, 4, "empty", 1)[-1]
    (0, 1000)
    >>> sizes = [b - a for a, b in zip(group_offsets(1000, 8, "empty", 0), group_offsets(1000, 8, "empty", 0)[1:])]
    >>> [e for e, size in enumerate(sizes) if size == 0]
    [0, 4]
    """
    weights = []
    for group in range(groups):
        turn = group + 5 * repetition
        weight = 900000 + 1000 * (hash_number(turn + 4096 * repetition) % 201)
        if routing == "zipf":
            weight //= 1 + turn % groups
        if routing == "empty" and turn % 4 == 0:
            weight = 0
        weights.append(weight)
    total, running, offsets = sum(weights), 0, [0]
    for weight in weights:
        running += weight
        offsets.append(rows * running // total)
    return offsets
