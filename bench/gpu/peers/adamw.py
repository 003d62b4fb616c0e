# SPDX-FileCopyrightText: 2026 The graft authors
# SPDX-License-Identifier: Apache-2.0
"""AdamW: torch's fused update alone, and with what graft's update does beside it (norm, clipping, bf16 copy, zeros)."""

import torch

from common import BF16_LIMIT, FP32_LIMIT, Stopwatch, cases, peer, print_line

PIECES = 16  # a model's parameters are many tensors


class Update:
    def __init__(self, settings, count, everything):
        sizes = [count // PIECES + (count % PIECES if i == 0 else 0) for i in range(PIECES)]
        self.parameters = [torch.randn(size, device=settings.device) * 0.02 for size in sizes]
        for parameter in self.parameters:
            parameter.requires_grad_()
            parameter.grad = torch.empty_like(parameter)
        self.narrow = [parameter.detach().bfloat16() for parameter in self.parameters] if everything else None
        cuda = settings.device.type == "cuda"
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=1e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, **({"fused": True} if cuda else {})
        )

    def prepare(self, number):
        for parameter in self.parameters:
            parameter.grad.normal_(0, 1e-3)

    def __call__(self):
        if self.narrow is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        if self.narrow is not None:
            with torch.no_grad():
                torch._foreach_copy_(self.narrow, self.parameters)
                torch._foreach_zero_([parameter.grad for parameter in self.parameters])


PEERS = {"torch fused": False, "torch fused, clip, copy, zero": True}


def run(settings, shapes):
    watch = Stopwatch(settings)
    for shape in shapes:
        for who, everything in PEERS.items():
            with peer(settings, "adamw", shape, who):
                update = Update(settings, shape["parameters"], everything)
                print_line(part="adamw", name="update", shape=shape, who=who, ms=watch(update.prepare, update)[-1])
                del update


def check(settings):
    """p -= rate (m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps) + decay p), g scaled to a norm of at most 1."""
    for case in cases(settings, "adamw"):
        p, m, v = case["before"], 0.0, 0.0
        for step in range(3):
            g = case[f"gradient{step}"]
            g = g * min(1.0, 1.0 / float(torch.linalg.vector_norm(g)))
            m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g * g
            update = m / (1 - 0.9 ** (step + 1)) / ((v / (1 - 0.95 ** (step + 1))).sqrt() + 1e-8)
            p = p - 1e-3 * (update + 0.1 * p)
        case.check("after", "graft", case["after"], p, FP32_LIMIT)
        case.check("narrow", "graft", case["narrow"], p, BF16_LIMIT)
