# SPDX-FileCopyrightText: 2026 The graft authors
# SPDX-License-Identifier: Apache-2.0
"""Grouped products: torch.nn.functional.grouped_mm, and a loop of matrix products."""

import torch
import torch.nn.functional as F

from common import BF16_LIMIT, FP32_LIMIT, Stopwatch, cases, needs, normal, peer, print_line
from routing import group_offsets


def grouped_mm(a, b, ends):
    if hasattr(F, "grouped_mm"):
        return F.grouped_mm(a, b, offs=ends)
    needs(torch, "_grouped_mm")
    return torch._grouped_mm(a, b, offs=ends)


class Products:
    """x (M,K), w (E,N,K), dy (M,N); offsets as a list, and their ends on the device."""

    def __init__(self, x, w, dy):
        self.x, self.w, self.dy = x, w, dy
        self.y, self.dx, self.dw = torch.empty_like(dy), torch.empty_like(x), torch.zeros_like(w)

    def route(self, offsets):
        self.offsets = offsets
        self.ends = torch.tensor(offsets[1:], dtype=torch.int32, device=self.x.device)

    def groups(self):
        for e, (begin, end) in enumerate(zip(self.offsets, self.offsets[1:])):
            if end > begin:
                yield e, slice(begin, end)


class GroupedMm(Products):
    def forward(self):
        self.y = grouped_mm(self.x, self.w.transpose(-2, -1), self.ends)

    def input_gradient(self):
        self.dx = grouped_mm(self.dy, self.w, self.ends)

    def weight_gradient(self):
        self.dw = grouped_mm(self.dy.t(), self.x, self.ends)


class Loop(Products):
    def forward(self):
        for e, rows in self.groups():
            torch.mm(self.x[rows], self.w[e].t(), out=self.y[rows])

    def input_gradient(self):
        for e, rows in self.groups():
            torch.mm(self.dy[rows], self.w[e], out=self.dx[rows])

    def weight_gradient(self):
        for e, rows in self.groups():
            torch.mm(self.dy[rows].t(), self.x[rows], out=self.dw[e])


PEERS = {"grouped_mm": GroupedMm, "loop of mm": Loop}


def run(settings, shapes):
    watch = Stopwatch(settings)
    # Last what older versions hang on: a weight gradient with empty groups.
    for shape in sorted(shapes, key=lambda s: s["routing"] == "empty"):
        m, n, k, e = shape["rows"], shape["n"], shape["k"], shape["groups"]
        tensors = [normal(settings, m, k), normal(settings, e, n, k, deviation=0.02), normal(settings, m, n)]
        for who, kind in PEERS.items():
            with peer(settings, "grouped", shape, who):
                products = kind(*tensors)
                times = watch(
                    lambda number: products.route(group_offsets(m, e, shape["routing"], number)),
                    products.forward,
                    products.input_gradient,
                    products.weight_gradient,
                )
                for name, ms in zip(("forward", "input gradient", "weight gradient"), times):
                    print_line(part="grouped", name=name, shape=shape, who=who, ms=ms)


def check(settings):
    for case in cases(settings, "grouped"):
        x, w, dy, offsets = case["x"], case["w"], case["dy"], case["offsets"].tolist()
        reference = Loop(x, w, dy)
        reference.route(offsets)
        reference.forward()
        reference.input_gradient()
        reference.weight_gradient()
        case.check("y", "graft", case["y"], reference.y, BF16_LIMIT)
        case.check("dx", "graft", case["dx"], reference.dx, BF16_LIMIT)
        case.check("dw", "graft", case["dw"], reference.dw, FP32_LIMIT)
        with peer(settings, "grouped", {"case": case.number}, "grouped_mm"):
            products = GroupedMm(x.bfloat16(), w.bfloat16(), dy.bfloat16())
            products.route(offsets)
            products.forward()
            products.input_gradient()
            case.check("y", "grouped_mm", products.y, reference.y, BF16_LIMIT)
            case.check("dx", "grouped_mm", products.dx, reference.dx, BF16_LIMIT)
            products.weight_gradient()
            case.check("dw", "grouped_mm", products.dw, reference.dw, BF16_LIMIT)
