# SPDX-FileCopyrightText: 2026 The graft authors
# SPDX-License-Identifier: Apache-2.0
"""The mixture layer: transformers' OLMoE block (eager, grouped_mm, compiled), and ScatterMoE where it is installed."""

import math

import torch

from common import BF16_LIMIT, Stopwatch, cases, compiled, normal, peer, placed, print_line


def olmoe_block(settings, shape, experts_implementation):
    from transformers import OlmoeConfig
    from transformers.models.olmoe.modeling_olmoe import OlmoeSparseMoeBlock

    config = OlmoeConfig(
        hidden_size=shape["width"],
        intermediate_size=shape["hidden"],
        num_experts=shape["experts"],
        num_experts_per_tok=shape["slots"],
        norm_topk_prob=False,
        num_attention_heads=1,
        num_hidden_layers=1,
    )
    config._experts_implementation = experts_implementation
    with placed(settings):
        return OlmoeSparseMoeBlock(config).to(settings.device, torch.bfloat16)


class ScatterBlock(torch.nn.Module):
    """ScatterMoE's experts behind the same router. Not installed with anything: a peer to run beside."""

    def __init__(self, settings, shape):
        super().__init__()
        from scattermoe.mlp import GLUMLP

        self.slots = shape["slots"]
        with placed(settings):
            self.gate = torch.nn.Linear(shape["width"], shape["experts"], bias=False)
            self.experts = GLUMLP(shape["width"], shape["hidden"], shape["experts"], self.slots)
        self.to(settings.device, torch.bfloat16)

    def forward(self, x):
        scores = torch.softmax(self.gate(x).float(), dim=-1)
        weights, selected = torch.topk(scores, self.slots, dim=-1)
        shape = x.shape
        y = self.experts(x.view(-1, shape[-1]), weights.view(-1, self.slots).to(x.dtype), selected.view(-1, self.slots))
        return y.view(shape)


PEERS = {
    "transformers grouped_mm": lambda settings, shape: olmoe_block(settings, shape, "grouped_mm"),
    "transformers compiled": lambda settings, shape: compiled(olmoe_block(settings, shape, "grouped_mm")),
    "transformers eager": lambda settings, shape: olmoe_block(settings, shape, "eager"),
    "scattermoe": ScatterBlock,
}


def gate_weights(settings, shape):
    """Rows of the gate as in moe.cu: column 0, which meets ones, holds the logarithm of an expert's popularity."""
    experts, width = shape["experts"], shape["width"]
    gate = normal(settings, experts, width, deviation=1 / math.sqrt(width))
    popularity = [-math.log(1 + 7 * e % experts) if shape["routing"] == "zipf" else 0.0 for e in range(experts)]
    gate[:, 0] = torch.tensor(popularity, device=settings.device).to(gate.dtype)
    return gate


def draw_parameters(settings, shape, block):
    with torch.no_grad():
        for name, parameter in block.named_parameters():
            if "gate.weight" in name and "experts" not in name:
                parameter.copy_(gate_weights(settings, shape))
            else:
                parameter.normal_(0, 0.02)


def measure(settings, watch, shape, who, versions, d_out):
    block = PEERS[who](settings, shape)
    draw_parameters(settings, shape, block)
    state = {}

    def prepare(number):
        block.zero_grad(set_to_none=True)
        state["x"] = versions[number % len(versions)]
        state["x"].grad = None
        state.pop("out", None)

    def forward():
        state["out"] = block(state["x"])

    def backward():
        state["out"].backward(d_out)

    for name, ms in zip(("forward", "backward", "forward and backward"), watch(prepare, forward, backward)):
        print_line(part="moe", name=name, shape=shape, who=who, ms=ms)


def run(settings, shapes):
    watch = Stopwatch(settings)
    for shape in shapes:
        versions = []
        for _ in range(3):
            x = normal(settings, 1, shape["tokens"], shape["width"])
            x[..., 0] = 1
            versions.append(x.requires_grad_())
        d_out = normal(settings, 1, shape["tokens"], shape["width"])
        for who in PEERS:
            with peer(settings, "moe", shape, who):
                measure(settings, watch, shape, who, versions, d_out)


def reference(case):
    """The layer in fp64 with the experts that graft chose, and how many of those it would not have chosen itself."""
    x, gate = case["x"].requires_grad_(), case["gate"].requires_grad_()
    w13, w2, selected = case["w13"].requires_grad_(), case["w2"].requires_grad_(), case["selected"]
    scores = torch.softmax(x @ gate.t(), dim=-1)
    own = torch.topk(scores, selected.shape[1], dim=-1).indices
    other = float((torch.sort(own).values != torch.sort(selected).values).double().mean())
    weights = torch.gather(scores, 1, selected)
    out = torch.zeros_like(x)
    for e in range(w13.shape[0]):
        token, slot = torch.where(selected == e)
        if len(token) == 0:
            continue
        half_gate, up = (x[token] @ w13[e].t()).chunk(2, dim=-1)
        rows = (torch.nn.functional.silu(half_gate) * up) @ w2[e].t()
        out = out.index_add(0, token, weights[token, slot, None] * rows)
    out.backward(case["d_out"])
    results = {"out": out, "weights": weights}
    return results | {"d_x": x.grad, "d_gate": gate.grad, "d_w13": w13.grad, "d_w2": w2.grad}, other


def check(settings):
    for case in cases(settings, "moe"):
        expected, other = reference(case)
        print_line(
            part="moe",
            check="experts that fp64 would not choose",
            case=case.number,
            who="graft",
            error=other,
            limit=0.01,
            passed=other <= 0.01,
        )
        # The gradient of the gate is a difference of numbers larger than itself: twice the limit.
        for name, value in expected.items():
            limit = 2 * BF16_LIMIT if name == "d_gate" else BF16_LIMIT
            case.check(name, "graft", case[name], value.detach(), limit)
        experts, width = case["gate"].shape
        shape = {"width": width, "hidden": case["w2"].shape[2], "experts": experts, "slots": case["selected"].shape[1]}
        with peer(settings, "moe", {"case": case.number}, "transformers grouped_mm"):
            block = olmoe_block(settings, shape, "grouped_mm")
            with torch.no_grad():
                block.gate.weight.copy_(case["gate"])
                block.experts.gate_up_proj.copy_(case["w13"])
                block.experts.down_proj.copy_(case["w2"])
            x = case["x"].bfloat16()[None].requires_grad_()
            out = block(x)
            out.backward(case["d_out"].bfloat16()[None])
            results = {
                "out": out[0],
                "d_x": x.grad[0],
                "d_gate": block.gate.weight.grad,
                "d_w13": block.experts.gate_up_proj.grad,
                "d_w2": block.experts.down_proj.grad,
            }
            for name, value in results.items():
                case.check(name, "transformers grouped_mm", value.detach(), expected[name].detach(), 10 * BF16_LIMIT)
