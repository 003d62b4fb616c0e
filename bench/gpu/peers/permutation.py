# SPDX-FileCopyrightText: 2026 The graft authors
# SPDX-License-Identifier: Apache-2.0
"""Permutation of tokens with torch: argsort, index_select, index_add."""

import torch

from common import BF16_LIMIT, FP32_LIMIT, Stopwatch, cases, normal, peer, print_line


class Permutation:
    """Row r works for slot order[r], which belongs to token order[r] // K. Rows are sorted by expert, ties by slot."""

    def __init__(self, settings, shape):
        tokens, width, slots = shape["tokens"], shape["width"], shape["slots"]
        self.slots, self.experts = slots, shape["experts"]
        self.x, self.d_out = normal(settings, tokens, width), normal(settings, tokens, width)
        self.weights = normal(settings, tokens, slots, dtype=torch.float)
        scores = [torch.rand(tokens, self.experts, device=settings.device) for _ in range(3)]
        self.versions = [torch.topk(s, slots, dim=-1).indices.flatten() for s in scores]
        self.out, self.d_x = torch.empty_like(self.x), torch.empty_like(self.x)
        self.enter(0)
        self.plan()
        self.gather()
        self.d_rows = self.rows.clone()

    def enter(self, number):
        self.selected = self.versions[number % len(self.versions)]

    def plan(self):
        self.order = torch.argsort(self.selected, stable=True)
        self.token = torch.div(self.order, self.slots, rounding_mode="floor")
        self.counts = torch.bincount(self.selected, minlength=self.experts)

    def gather(self):
        self.rows = torch.index_select(self.x, 0, self.token)

    def combine(self):
        weight = self.weights.flatten()[self.order, None].to(self.rows.dtype)
        self.out.zero_().index_add_(0, self.token, self.rows * weight)

    def combine_backward(self):
        upstream = torch.index_select(self.d_out, 0, self.token)
        d_weights = torch.empty(len(self.order), dtype=torch.float, device=self.x.device)
        d_weights[self.order] = (upstream.float() * self.rows.float()).sum(dim=-1)
        self.d_weights = d_weights
        self.d_rows = upstream * self.weights.flatten()[self.order, None].to(upstream.dtype)

    def gather_backward(self):
        self.d_x.zero_().index_add_(0, self.token, self.d_rows)


def run(settings, shapes):
    watch = Stopwatch(settings)
    for shape in shapes:
        with peer(settings, "permutation", shape, "torch"):
            work = Permutation(settings, shape)
            names = ("plan", "gather", "combine", "combine_backward", "gather_backward")
            for name in names:
                stages = [getattr(work, name)] if name == "plan" else [work.plan, getattr(work, name)]
                ms = watch(work.enter, *stages)[len(stages) - 1]
                print_line(part="permutation", name=name.replace("_", " "), shape=shape, who="torch", ms=ms)


def check(settings):
    for case in cases(settings, "permutation"):
        x, weights, d_out = case["x"], case["weights"], case["d_out"]
        tokens, slots = weights.shape
        selected = case["selected"].flatten()
        order = torch.argsort(selected, stable=True)
        token = torch.div(order, slots, rounding_mode="floor")
        weight = weights.flatten()[order, None]
        rows = x[token]
        case.check("rows", "graft", case["rows"], rows, 0)  # a copy
        case.check("out", "graft", case["out"], torch.zeros_like(x).index_add(0, token, weight * rows), BF16_LIMIT)
        d_weights = torch.empty(tokens * slots, dtype=torch.double, device=x.device)
        d_weights[order] = (d_out[token] * rows).sum(dim=-1)
        case.check("d_weights", "graft", case["d_weights"], d_weights.view(tokens, slots), FP32_LIMIT)
        d_rows = weight * d_out[token]
        case.check("d_rows", "graft", case["d_rows"], d_rows, BF16_LIMIT)
        case.check("d_x", "graft", case["d_x"], torch.zeros_like(x).index_add(0, token, d_rows), BF16_LIMIT)
