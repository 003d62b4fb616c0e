# SPDX-FileCopyrightText: 2026 The graft authors
# SPDX-License-Identifier: Apache-2.0
"""Training steps in PyTorch: tokens to the device, forward, backward, clipping, fused AdamW, loss to the host.

dense: plain PyTorch in the form and size of graft's model (RMSNorm, rotary positions, SwiGLU, tied head), fp32 weights
under bf16 autocast, compiled, SDPA. olmoe: transformers' model with grouped_mm, in bf16 throughout (weights and moments
too: half of the optimizer's bytes that graft moves, and less exact), compiled.
"""

import math
import time

import torch
import torch.nn.functional as F
from torch import nn

from common import compiled, needs, peer, placed, print_line


class RmsNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        wide = x.float()
        inverse = torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + 1e-5)
        return (wide * inverse).to(x.dtype) * self.weight.to(x.dtype)


def rotate(x, cosine, sine):
    """Pairs are the halves of a head, as in Llama."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)


class Block(nn.Module):
    def __init__(self, width, heads, hidden):
        super().__init__()
        self.heads = heads
        self.attention_norm, self.ffn_norm = RmsNorm(width), RmsNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.projection = nn.Linear(width, width, bias=False)
        self.gate_up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x, cosine, sine):
        b, s, d = x.shape
        q, k, v = (
            part.view(b, s, self.heads, d // self.heads).transpose(1, 2)
            for part in self.qkv(self.attention_norm(x)).chunk(3, dim=-1)
        )
        q, k = rotate(q, cosine.to(q.dtype), sine.to(q.dtype)), rotate(k, cosine.to(k.dtype), sine.to(k.dtype))
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.projection(attended.transpose(1, 2).reshape(b, s, d))
        gate, up = self.gate_up(self.ffn_norm(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)


class Dense(nn.Module):
    def __init__(self, shape):
        super().__init__()
        width, heads = shape["width"], shape["heads"]
        self.embedding = nn.Embedding(shape["vocabulary"], width)
        self.blocks = nn.ModuleList(Block(width, heads, shape["hidden"]) for _ in range(shape["blocks"]))
        self.norm = RmsNorm(width)
        half = width // heads // 2
        angle = torch.arange(shape["positions"])[:, None] * 10000.0 ** (-torch.arange(half) / half)
        self.register_buffer("cosine", angle.cos())
        self.register_buffer("sine", angle.sin())
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, 0, 0.02)

    def forward(self, inputs, targets):
        x = self.embedding(inputs)
        for block in self.blocks:
            x = block(x, self.cosine, self.sine)
        logits = F.linear(self.norm(x), self.embedding.weight)
        return F.cross_entropy(logits.view(-1, logits.shape[-1]).float(), targets.view(-1))


def dense_loss(settings, shape):
    needs(F, "scaled_dot_product_attention")
    model = Dense(shape).to(settings.device)
    function = compiled(model)

    def loss(inputs, targets):
        with torch.autocast(settings.device.type, dtype=torch.bfloat16):
            return function(inputs, targets)

    return model, loss


def olmoe_loss(settings, shape, compile_it):
    from transformers import OlmoeConfig, OlmoeForCausalLM

    config = OlmoeConfig(
        vocab_size=shape["vocabulary"],
        hidden_size=shape["width"],
        intermediate_size=shape["hidden"],
        num_hidden_layers=shape["blocks"],
        num_attention_heads=shape["heads"],
        num_experts=shape["experts"],
        max_position_embeddings=shape["positions"],
        num_experts_per_tok=8,
        use_cache=False,
    )
    config._experts_implementation = "grouped_mm"
    config._attn_implementation = "sdpa"
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with placed(settings):
            model = OlmoeForCausalLM(config)
    finally:
        torch.set_default_dtype(default)
    model = model.to(settings.device).train()
    function = compiled(model) if compile_it else model

    def loss(inputs, targets):
        logits = function(input_ids=inputs).logits
        return F.cross_entropy(logits.view(-1, logits.shape[-1]).float(), targets.view(-1))

    return model, loss


PEERS = {
    "dense": {"torch compiled": dense_loss},
    "olmoe": {
        "transformers grouped_mm": lambda settings, shape: olmoe_loss(settings, shape, False),
        "transformers compiled": lambda settings, shape: olmoe_loss(settings, shape, True),
    },
}


def measure(settings, shape, who, make):
    cuda = settings.device.type == "cuda"
    if cuda:
        torch.set_float32_matmul_precision("high")
        torch.cuda.reset_peak_memory_stats()
    model, loss_of = make(settings, shape)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, **({"fused": True} if cuda else {})
    )
    sequences, positions = shape["sequences"], shape["positions"]
    host = [torch.randint(shape["vocabulary"], (sequences, positions)) for _ in range(4)]
    host = [batch.pin_memory() if cuda else batch for batch in host]
    passes = 1

    def step(number):
        inputs = host[number % len(host)].to(settings.device, non_blocking=True)
        targets = (inputs + 1) % shape["vocabulary"]
        optimizer.zero_grad(set_to_none=True)
        total = 0
        for begin in range(0, sequences, sequences // passes):
            part = slice(begin, begin + sequences // passes)
            loss = loss_of(inputs[part], targets[part]) / passes
            loss.backward()
            total = total + loss.detach()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return total

    def synchronize():
        if cuda:
            torch.cuda.synchronize()

    while True:  # as many sequences a pass as fit
        try:
            first = float(step(0))
            break
        except torch.cuda.OutOfMemoryError:
            if passes >= sequences:
                raise
            passes *= 2
            optimizer.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
    float(step(1))
    synchronize()
    start = time.perf_counter()
    float(step(2))
    count = min(max(int(2 / (time.perf_counter() - start)), 5), 40) if cuda else 1
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        for number in range(count):
            loss = step(number)
        last = float(loss)  # waits
        seconds.append((time.perf_counter() - start) / count)
    ms = 1e3 * sorted(seconds)[1]
    print_line(
        part="steps",
        name=f"{shape['model']} step",
        shape=shape,
        who=who,
        ms=ms,
        tokens_per_second=sequences * positions / ms * 1e3,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        micro_sequences=sequences // passes,
        memory_gb=torch.cuda.max_memory_allocated() * 1e-9 if cuda else 0,
        first_loss=first,
        loss=last,
        log_vocabulary=math.log(shape["vocabulary"]),
    )


def run(settings, shapes):
    for shape in shapes:
        for who, make in PEERS[shape["model"]].items():
            with peer(settings, "steps", shape, who):
                measure(settings, shape, who, make)


def check(settings):
    """Steps have no small twin: their losses are in their lines, and the parts that they are made of are checked."""
