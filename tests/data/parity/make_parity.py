# SPDX-FileCopyrightText: 2026 The graft authors
# SPDX-License-Identifier: Apache-2.0
"""Makes the folders beside this file: tiny random checkpoints and what Hugging Face transformers computes from them.

    python make_parity.py [target folder]

Each folder has config.json and model.safetensors (F32) as save_pretrained writes them, and expected.safetensors:
inputs and targets (B, S; -1: no target), loss (the mean cross entropy), logits (B, S, V), and the gradient of the loss
to every tensor of model.safetensors under "gradient." and its name, in F64. Not run by the tests, which read the files.

Made with torch 2.15.0 and transformers 5.23.0.
"""

import contextlib
import pathlib
import sys
import tempfile

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import (LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM, Qwen3Config,
                          Qwen3ForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM)

SEQUENCES, POSITIONS, VOCABULARY = 2, 12, 40
# Sizes that differ wherever they may, so that none can stand for another. Head widths are given where the family's
# configuration has them, and then heads * head_dim is not the width.
SIZES = dict(vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=2, max_position_embeddings=128,
             bos_token_id=None, eos_token_id=None, pad_token_id=None)
# Of the four planes of a head, this keeps one, blends one and slows two.
LLAMA3_ROPE = dict(rope_type="llama3", rope_theta=500.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                   original_max_position_embeddings=64)

CASES = {
    "llama": (LlamaForCausalLM, LlamaConfig(
        **SIZES, num_attention_heads=4, num_key_value_heads=4, intermediate_size=20, rms_norm_eps=1e-5,
        tie_word_embeddings=False, rope_parameters=dict(rope_type="default", rope_theta=100.0))),
    "llama_tied_gqa_rope3": (LlamaForCausalLM, LlamaConfig(
        **SIZES, num_attention_heads=4, num_key_value_heads=2, head_dim=8, intermediate_size=20, rms_norm_eps=1e-3,
        tie_word_embeddings=True, rope_parameters=LLAMA3_ROPE)),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config(
        **SIZES, num_attention_heads=4, num_key_value_heads=2, head_dim=6, intermediate_size=20, rms_norm_eps=1e-3,
        tie_word_embeddings=True, rope_parameters=dict(rope_type="default", rope_theta=100.0))),
    "mixtral": (MixtralForCausalLM, MixtralConfig(
        **SIZES, num_attention_heads=4, num_key_value_heads=2, intermediate_size=10, rms_norm_eps=1e-5,
        num_local_experts=4, num_experts_per_tok=2, sliding_window=None, tie_word_embeddings=False,
        output_router_logits=False, rope_parameters=dict(rope_type="default", rope_theta=100.0))),
    "qwen3_moe": (Qwen3MoeForCausalLM, Qwen3MoeConfig(
        **SIZES, num_attention_heads=4, num_key_value_heads=2, head_dim=6, intermediate_size=20,
        moe_intermediate_size=10, rms_norm_eps=1e-3, num_experts=4, num_experts_per_tok=2, norm_topk_prob=True,
        decoder_sparse_step=1, mlp_only_layers=[], tie_word_embeddings=False, output_router_logits=False,
        rope_parameters=dict(rope_type="default", rope_theta=100.0))),
}


@contextlib.contextmanager
def float32_means_float64():
    """transformers computes norms, softmax, angles, routing and loss in float32 whatever the type of the model. Its
    code asks for that type by the names that stand for float64 in here."""
    saved = torch.float32, torch.float, torch.Tensor.float
    torch.float32 = torch.float = torch.float64
    torch.Tensor.float = torch.Tensor.double
    try:
        yield
    finally:
        torch.float32, torch.float, torch.Tensor.float = saved


def draw(model, seed):
    """Deviation 0.4 for matrices, norms around 1: with the usual 0.02 attention and routing are nearly uniform."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_((1.0 if parameter.dim() == 1 else 0.0) + 0.4 * noise)


def save(model, folder):
    model.save_pretrained(folder)
    for file in pathlib.Path(folder).iterdir():
        if file.name not in ("config.json", "model.safetensors"):
            file.unlink()


def hub_gradients(model):
    """The gradients by the names and in the pieces of a checkpoint: save_pretrained splits what is fused in memory."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.grad)
    with tempfile.TemporaryDirectory() as folder:
        save(model, folder)
        return load_file(folder + "/model.safetensors")


def router_margin(model, inputs):
    """The least difference of a logit that is chosen and one that is not: rounding must not change the choice."""
    logits = model(input_ids=inputs, output_router_logits=True).router_logits
    ordered = torch.stack(logits).sort(-1, descending=True).values
    return (ordered[..., 1] - ordered[..., 2]).min().item(), torch.stack(logits)


def make(name, kind, config, target, seed):
    eager = dict(attn_implementation="eager")
    if hasattr(config, "num_experts_per_tok"):
        eager["experts_implementation"] = "eager"
    narrow = kind._from_config(config, dtype=torch.float32, **eager).eval()
    draw(narrow, seed)
    folder = target / name
    folder.mkdir(exist_ok=True)
    save(narrow, folder)

    generator = torch.Generator().manual_seed(seed + 1)
    inputs = torch.randint(VOCABULARY, (SEQUENCES, POSITIONS), generator=generator)
    # transformers shifts the labels: the target of a position is the label of the next, and the last has none.
    labels = torch.randint(VOCABULARY, (SEQUENCES, POSITIONS), generator=generator)
    labels[0, 5] = -100
    targets = torch.full_like(labels, -1)
    targets[:, :-1] = labels[:, 1:]
    targets[targets == -100] = -1

    with float32_means_float64():
        wide = kind._from_config(config, dtype=torch.float64, **eager).eval()
        wide.load_state_dict(narrow.state_dict())
        assert all(tensor.dtype == torch.float64 for tensor in [*wide.parameters(), *wide.buffers()])
        output = wide(input_ids=inputs, labels=labels)
        output.loss.backward()
        summary = ""
        if "experts_implementation" in eager:
            with torch.no_grad():
                margin, router_logits = router_margin(wide, inputs)
            used = [layer.topk(2, -1).indices.unique().numel() for layer in router_logits]
            assert margin > 1e-3 and used == [4, 4], (margin, used)
            summary = f", router margin {margin:.1e}"
        loss, logits = output.loss.detach(), output.logits.detach()
        gradients = hub_gradients(wide)

    # The same up to rounding as what transformers computes when float32 is float32.
    plain = narrow(input_ids=inputs, labels=labels)
    difference = (plain.logits.double() - logits).abs().max() / logits.abs().max()
    assert difference < 1e-5 and abs(plain.loss.item() - loss.item()) < 1e-5 * loss.item()
    assert loss.dtype == logits.dtype == torch.float64 and all(g.dtype == torch.float64 for g in gradients.values())
    assert gradients.keys() == load_file(folder / "model.safetensors").keys()

    expected = {"gradient." + key: value for key, value in gradients.items()}
    expected |= {"inputs": inputs.int(), "targets": targets.int(), "loss": loss, "logits": logits}
    save_file({key: value.contiguous() for key, value in expected.items()}, folder / "expected.safetensors",
              metadata={"made_with": f"torch {torch.__version__}, transformers {transformers.__version__}"})
    print(f"{name}: loss {loss.item():.6f}, logits up to {logits.abs().max().item():.2f}, "
          f"float32 differs by {difference:.1e} of that{summary}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    target = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parent
    for number, (name, (kind, config)) in enumerate(CASES.items()):
        make(name, kind, config, target, seed=10 * number)
