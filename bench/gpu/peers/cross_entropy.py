# SPDX-FileCopyrightText: 2026 The graft authors
# SPDX-License-Identifier: Apache-2.0
"""The head and its cross entropy, eager and compiled: loss, gradients of x and of the head."""

import torch
import torch.nn.functional as F

from common import BF16_LIMIT, Stopwatch, cases, compiled, normal, peer, print_line


def loss_of(x, head, targets):
    return F.cross_entropy((x @ head.t()).float(), targets)


PEERS = {"torch eager": lambda: loss_of, "torch compiled": lambda: compiled(loss_of)}


def run(settings, shapes):
    watch = Stopwatch(settings)
    for shape in shapes:
        x = normal(settings, shape["tokens"], shape["width"]).requires_grad_()
        head = normal(settings, shape["vocabulary"], shape["width"], deviation=0.02).requires_grad_()
        targets = torch.randint(shape["vocabulary"], (shape["tokens"],), device=settings.device)
        for who, make in PEERS.items():
            with peer(settings, "cross_entropy", shape, who):
                function = make()
                values = {}
                if settings.device.type == "cuda":
                    torch.cuda.synchronize()
                    before = torch.cuda.memory_allocated()
                    torch.cuda.reset_peak_memory_stats()

                def prepare(number):
                    x.grad = head.grad = None

                def both():
                    function(x, head, targets).backward()

                values["ms"] = watch(prepare, both)[-1]
                if settings.device.type == "cuda":
                    # Without the gradients that stay: 2 bytes an element each.
                    kept = 2 * (x.numel() + head.numel())
                    values["workspace_gb"] = (torch.cuda.max_memory_allocated() - before - kept) * 1e-9
                print_line(part="cross_entropy", name="loss and gradients", shape=shape, who=who, **values)
        x.grad = head.grad = None


def check(settings):
    for case in cases(settings, "cross_entropy"):
        expected = {}
        for who in ("reference", "torch eager"):
            with peer(settings, "cross_entropy", {"case": case.number}, who):
                dtype = torch.double if who == "reference" else torch.bfloat16
                x, head = case["x"].to(dtype).requires_grad_(), case["head"].to(dtype).requires_grad_()
                logits = x @ head.t()
                logits = logits if who == "reference" else logits.float()
                losses = F.cross_entropy(logits, case["targets"], reduction="none")
                losses.mean().backward()
                if who == "reference":
                    expected = {"losses": losses.detach(), "d_x": x.grad, "d_head": head.grad}
                    for name, value in expected.items():
                        case.check(name, "graft", case[name], value, BF16_LIMIT)
                else:
                    case.check("d_x", who, x.grad, expected["d_x"], BF16_LIMIT)
                    case.check("d_head", who, head.grad, expected["d_head"], BF16_LIMIT)
