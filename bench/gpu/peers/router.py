# SPDX-FileCopyrightText: 2026 The graft authors
# SPDX-License-Identifier: Apache-2.0
"""OLMoE's router with the Switch and z losses, eager and compiled.

s = softmax(l), weights = the K largest s;   loss = 0.01 E sum_e f_e P_e + 0.001 mean lse^2,
f_e = share of the slots that go to e, P_e = mean s_e.
"""

import torch

from common import FP32_LIMIT, Stopwatch, cases, compiled, normal, peer, print_line


def route(logits, slots, selected=None):
    experts = logits.shape[1]
    scores = torch.softmax(logits, dim=-1)
    if selected is None:
        weights, selected = torch.topk(scores, slots, dim=-1)
    else:
        weights = torch.gather(scores, 1, selected)
    counts = torch.nn.functional.one_hot(selected, experts).sum(dim=(0, 1)).to(scores.dtype)
    balance = experts * torch.sum(counts / counts.sum() * scores.mean(dim=0))
    loss = 0.01 * balance + 0.001 * torch.logsumexp(logits, dim=-1).square().mean()
    return weights, selected, loss


PEERS = {"torch eager": lambda: route, "torch compiled": lambda: compiled(route)}


def run(settings, shapes):
    watch = Stopwatch(settings)
    for shape in shapes:
        tokens, experts, slots = shape["tokens"], shape["experts"], shape["slots"]
        versions = [normal(settings, tokens, experts, dtype=torch.float).requires_grad_() for _ in range(3)]
        d_weights = normal(settings, tokens, slots, dtype=torch.float)
        one = torch.ones((), device=settings.device)
        for who, make in PEERS.items():
            with peer(settings, "router", shape, who):
                function, state = make(), {}

                def prepare(number):
                    state["logits"] = versions[number % len(versions)]
                    state["logits"].grad = None

                def forward():
                    state["weights"], _, state["loss"] = function(state["logits"], slots)

                def backward():
                    torch.autograd.backward([state["weights"], state["loss"]], [d_weights, one])

                times = watch(prepare, forward, backward)
                for name, ms in zip(("forward", "backward", "forward and backward"), times):
                    print_line(part="router", name=name, shape=shape, who=who, ms=ms)


def check(settings):
    for case in cases(settings, "router"):
        logits, selected = case["logits"].requires_grad_(), case["selected"]
        _, own, _ = route(logits, selected.shape[1])
        case.check("selected", "graft", torch.sort(selected).values, torch.sort(own).values, 0)
        weights, _, loss = route(logits, selected.shape[1], selected)
        torch.autograd.backward([weights, loss], [case["d_weights"], torch.ones_like(loss)])
        case.check("weights", "graft", case["weights"], weights.detach(), FP32_LIMIT)
        case.check("loss", "graft", case["loss"], loss.detach()[None], FP32_LIMIT)
        case.check("d_logits", "graft", case["d_logits"], logits.grad, FP32_LIMIT)
