# SPDX-FileCopyrightText: 2026 The graft authors
# SPDX-License-Identifier: Apache-2.0
"""Causal attention: torch's scaled_dot_product_attention with cuDNN and with its flash kernels."""

import math

import torch
import torch.nn.functional as F

from common import BF16_LIMIT, Stopwatch, cases, normal, peer, print_line


def split(qkv, shape):
    """Packed rows (T, (H+2G)d) as q (B,H,S,d), k and v (B,G,S,d): views."""
    b, s, h, g, d = (shape[name] for name in ("sequences", "positions", "heads", "kv_heads", "head_dim"))
    rows = qkv.view(b, s, (h + 2 * g) * d)
    q, k, v = rows.split((h * d, g * d, g * d), dim=-1)
    return q.view(b, s, h, d).transpose(1, 2), k.view(b, s, g, d).transpose(1, 2), v.view(b, s, g, d).transpose(1, 2)


BACKENDS = {"SDPA cuDNN": "CUDNN_ATTENTION", "SDPA flash": "FLASH_ATTENTION"}


def sdpa(q, k, v, who):
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel(getattr(SDPBackend, BACKENDS[who])):
        grouped = {"enable_gqa": True} if k.shape[1] != q.shape[1] else {}
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, **grouped)


def run(settings, shapes):
    watch = Stopwatch(settings)
    for shape in shapes:
        tokens = shape["sequences"] * shape["positions"]
        width = (shape["heads"] + 2 * shape["kv_heads"]) * shape["head_dim"]
        qkv = normal(settings, tokens, width).requires_grad_()
        q, k, v = (part.detach().requires_grad_() for part in split(qkv, shape))
        d_out = normal(settings, shape["sequences"], shape["positions"], shape["heads"], shape["head_dim"])
        d_out = d_out.transpose(1, 2)  # as a projection behind attention gives it
        for who in BACKENDS:
            with peer(settings, "attention", shape, who):
                state = {}

                def prepare(number):
                    q.grad = k.grad = v.grad = None
                    state.pop("out", None)

                def forward():
                    state["out"] = sdpa(q, k, v, who)

                def backward():
                    state["out"].backward(d_out)

                for name, ms in zip(("forward", "backward"), watch(prepare, forward, backward)):
                    print_line(part="attention", name=name, shape=shape, who=who, ms=ms)


def reference(q, k, v):
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    s = scores.shape[-1]
    future = torch.ones(s, s, dtype=torch.bool, device=q.device).triu(1)
    return torch.softmax(scores.masked_fill(future, -math.inf), dim=-1) @ v


def check(settings):
    for case in cases(settings, "attention"):
        names = ("sequences", "positions", "heads", "kv_heads", "head_dim")
        shape, expected = dict(zip(names, case["shape"].tolist())), {}
        for who in ("reference", *BACKENDS):
            with peer(settings, "attention", {"case": case.number}, who):
                dtype = torch.double if who == "reference" else torch.bfloat16
                qkv = case["qkv"].to(dtype).requires_grad_()
                q, k, v = split(qkv, shape)
                out = reference(q, k, v) if who == "reference" else sdpa(q, k, v, who)
                out = out.transpose(1, 2).reshape(qkv.shape[0], -1)
                out.backward(case["d_out"].to(dtype))
                if who == "reference":
                    expected = {"out": out.detach(), "d_qkv": qkv.grad}
                    for name, value in expected.items():
                        case.check(name, "graft", case[name], value, BF16_LIMIT)
                        if case.exists(name + ".cudnn"):
                            case.check(name, "graft by cuDNN", case[name + ".cudnn"], value, BF16_LIMIT)
                else:
                    case.check("out", who, out.detach(), expected["out"], BF16_LIMIT)
                    case.check("d_qkv", who, qkv.grad, expected["d_qkv"], BF16_LIMIT)
