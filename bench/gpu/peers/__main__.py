# SPDX-FileCopyrightText: 2026 The graft authors
# SPDX-License-Identifier: Apache-2.0
"""The peers of gpu_report, on the same card with the same shapes, as JSON lines.

    gpu_report shapes > shapes.jsonl
    python3 bench/gpu/peers PART... --shapes shapes.jsonl [--data FOLDER] [--limit SECONDS]

Parts: those of gpu_report. --data: also compare graft's results on small shapes, which `gpu_report PART --data FOLDER`
wrote, and the peers' on the same inputs, with the same in fp64. --limit: of one peer, compilation included. Whatever is
not installed is said and left out.
"""

import argparse
import importlib
import json
import sys

PARTS = ("grouped", "moe", "attention", "cross_entropy", "adamw", "router", "permutation", "steps")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=PARTS + ("all",))
    parser.add_argument("--shapes", required=True)
    parser.add_argument("--data")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=0.3)
    parser.add_argument("--limit", type=float, default=60)
    arguments = parser.parse_args()
    try:
        import torch
    except ImportError as problem:
        for part in arguments.parts:
            print(json.dumps({"part": part, "who": "peers", "error": f"not installed: {problem}"}))
        return 0
    from common import Settings, print_line, reason_of

    device, measures = arguments.device, True
    if device == "cuda" and not torch.cuda.is_available():
        reason = f"torch {torch.__version__} cannot use a GPU here: small shapes are checked on the CPU"
        print_line(part=arguments.parts[0], who="peers", error=reason)
        device, measures = "cpu", False
    torch.manual_seed(1)
    settings = Settings(device, arguments.data, arguments.seconds, arguments.limit)
    with open(arguments.shapes) as file:
        lines = [json.loads(line) for line in file if line.startswith("{")]
    failed = False
    for name in PARTS if "all" in arguments.parts else arguments.parts:
        try:
            part = importlib.import_module(name)
            part.check(settings)
            if measures:
                part.run(settings, [line["shape"] for line in lines if line["part"] == name])
        except Exception as problem:
            print_line(part=name, who="peers", error=reason_of(problem))
            failed = True
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
