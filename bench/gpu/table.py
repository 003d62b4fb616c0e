# SPDX-FileCopyrightText: 2026 The graft authors
# SPDX-License-Identifier: Apache-2.0
"""Joins the lines of gpu_report and of its peers: one table, what passes, and results.json.

    python3 bench/gpu/table.py LINES... [--json FILE] [--part PART]

A row is a part, a name and a shape: graft's time, score = floor / time, and ratio = peer's time / graft's time for each
peer. Behind a ratio: "aim" where it reaches the ambition, "pass" where it reaches what is shipped, "below" otherwise,
nothing where there is no such bound. Exit status 1 when a check failed or something of graft's gave an error.
"""

import argparse
import json
import sys

# (part, name; None: any) and a peer: the ratio to ship at, the ratio to aim for.
RATIOS = [
    ("grouped", None, "grouped_mm", 0.95, 1.10),
    ("grouped", None, "loop of mm", 1.05, 1.3),
    ("moe", "forward and backward", "transformers eager", 5, 10),
    ("moe", "forward and backward", "transformers grouped_mm", 1.5, 2.5),
    ("moe", "forward and backward", "transformers compiled", 1.3, 2.0),
    ("moe", "forward and backward", "scattermoe", 1.2, 1.7),
    ("router", "forward and backward", "torch eager", 5, 10),
    ("router", "forward and backward", "torch compiled", 2, 3),
    ("permutation", None, "torch", 2, 3),
    ("attention", None, "SDPA cuDNN", 0.97, 1.0),
    ("attention", None, "SDPA flash", 0.97, 1.0),
    ("cross_entropy", None, "torch eager", 1.3, 1.8),
    ("cross_entropy", None, "torch compiled", 1.3, 1.8),
    ("adamw", None, "torch fused", 1.0, 1.1),
    ("steps", "dense step", "torch compiled", 1.0, 1.15),
    ("steps", "olmoe step", "transformers compiled", 1.5, 2.5),
]
# (part, name) and the score to ship at, the score to aim for.
SCORES = [
    ("grouped", "forward", 0.70, 0.81),
    ("grouped", "input gradient", 0.70, 0.81),
    ("grouped", "weight gradient", 0.70, 0.81),
    ("moe", "forward and backward", 0.50, 0.70),
    ("permutation", "gather", 0.75, 0.90),
    ("permutation", "combine", 0.75, 0.90),
    ("permutation", "combine backward", 0.75, 0.90),
    ("permutation", "gather backward", 0.75, 0.90),
    ("adamw", "update", 0.85, 0.93),
]
# (part, name), a member of the line that peers have too, and the ratio peer / graft to ship at and to aim for.
MEMBERS = [("cross_entropy", None, "workspace_gb", 5, 15)]


def verdict(value, passes, aims):
    """
    >>> verdict(1.2, 0.95, 1.1), verdict(1.0, 0.95, 1.1), verdict(0.9, 0.95, 1.1)
    ('aim', 'pass', 'below')
    """
    return "aim" if value >= aims else "pass" if value >= passes else "below"


def bound(bounds, part, name, *more):
    for entry in bounds:
        if entry[0] == part and entry[1] in (None, name) and entry[2:-2] == more:
            return entry[-2:]
    return None


def read_lines(paths):
    lines = []
    for path in paths:
        with open(path) as file:
            for text in file:
                if not text.startswith("{"):
                    continue
                try:
                    lines.append(json.loads(text))
                except ValueError:  # cut off where a limit ended the program
                    print(f"table.py: not a line of results: {text.strip()[:100]}", file=sys.stderr)
    return lines


def join(lines):
    """Rows in the order of graft's lines, each with its peers.

    >>> lines = [
    ...     {"name": "forward", "shape": {"k": 2}, "who": "graft", "ms": 2.0, "floor_ms": 1.5, "score": 0.75},
    ...     {"name": "forward", "shape": {"k": 2}, "who": "grouped_mm", "ms": 1.8},
    ...     {"shape": {"k": 2}, "who": "loop of mm", "error": "out of time"},
    ...     {"name": "forward", "shape": {"k": 3}, "who": "grouped_mm", "ms": 1.8},
    ... ]
    >>> rows = join([{"part": "grouped", **line} for line in lines])
    >>> peers = rows[0]["peers"]
    >>> len(rows), rows[0]["score_verdict"], peers["grouped_mm"]["ratio"], peers["grouped_mm"]["verdict"]
    (2, 'pass', 0.9, 'below')
    >>> peers["loop of mm"]
    {'error': 'out of time'}
    >>> rows[1]["ms"] is None
    True
    """
    rows, at = [], {}

    def row_of(line):
        key = (line["part"], line["name"], json.dumps(line["shape"], sort_keys=True))
        if key not in at:
            at[key] = {"part": line["part"], "name": line["name"], "shape": line["shape"], "ms": None, "peers": {}}
            rows.append(at[key])
        return at[key]

    measured = [line for line in lines if "ms" in line]
    for line in measured:
        if line["who"] == "graft":
            row = row_of(line)
            row.update({key: value for key, value in line.items() if key != "who"})
            limits = bound(SCORES, line["part"], line["name"])
            if limits and line.get("score") is not None:
                row["score_verdict"] = verdict(line["score"], *limits)
    for line in measured:
        if line["who"] == "graft":
            continue
        row = row_of(line)
        result = {key: value for key, value in line.items() if key not in ("part", "name", "shape", "who")}
        row["peers"][line["who"]] = result
        if not row["ms"]:
            continue
        result["ratio"] = line["ms"] / row["ms"]
        limits = bound(RATIOS, line["part"], line["name"], line["who"])
        if limits:
            result["verdict"] = verdict(result["ratio"], *limits)
        for part, name, member, passes, aims in MEMBERS:
            if part == line["part"] and name in (None, line["name"]) and row.get(member) and line.get(member):
                ratio = line[member] / row[member]
                result["ratio_of_" + member] = ratio
                result["verdict_of_" + member] = verdict(ratio, passes, aims)
    for line in lines:
        if "error" in line and line.get("who") not in ("graft", "peers") and "check" not in line:
            for row in rows:
                if row["part"] == line["part"] and row["shape"] == line.get("shape"):
                    row["peers"].setdefault(line["who"], {"error": line["error"]})
    return rows


def shape_text(shape):
    """
    >>> shape_text({"groups": 8, "n": 768, "routing": "zipf"})
    'groups=8 n=768 zipf'
    """
    return " ".join(value if isinstance(value, str) else f"{key}={value}" for key, value in shape.items())


def mark(word):
    return f" {word}" if word else ""


def print_rows(rows, out=sys.stdout):
    part = None
    for row in rows:
        if row["part"] != part:
            part = row["part"]
            print(f"\n{part}", file=out)
        rate = f" {row['tflops']:6.1f} TFLOP/s" if row.get("tflops") else ""
        rate += f" {row['tokens_per_second']:9.0f} tokens/s" if row.get("tokens_per_second") else ""
        own = "not measured"
        if row["ms"]:
            own = f"{row['ms']:9.3f} ms  floor {row['floor_ms']:8.3f}  score {row['score']:.3f}"
            own += mark(row.get("score_verdict")) + rate
        print(f"  {row['name']:31s} {shape_text(row['shape'])}", file=out)
        print(f"      graft {own}", file=out)
        for who, result in row["peers"].items():
            if "error" in result:
                print(f"      {who}: {result['error']}", file=out)
                continue
            text = f"      {who} {result['ms']:9.3f} ms"
            if "ratio" in result:
                text += f"  ratio {result['ratio']:.2f}{mark(result.get('verdict'))}"
            for key, value in result.items():
                if key.startswith("ratio_of_"):
                    member = key[len("ratio_of_") :]
                    text += f"  {member} ratio {value:.1f}{mark(result.get('verdict_of_' + member))}"
            print(text, file=out)


def print_checks(checks, out=sys.stdout):
    if checks:
        print("\nsmall shapes against fp64: ||result - reference|| / ||reference||", file=out)
    for line in checks:
        state = "ok" if line["passed"] else "FAILED"
        error = line["error"] if isinstance(line["error"], str) else f"{line['error']:.2e}"
        print(
            f"  {line['part']:14s} {line['case']} {line['check']:20s} {line['who']:26s} {error} "
            f"(limit {line['limit']:.0e}) {state}",
            file=out,
        )


def print_summary(rows, checks, errors, out=sys.stdout):
    counts = {"aim": 0, "pass": 0, "below": 0}
    below = []
    for row in rows:
        found = [("score", row.get("score_verdict"), row.get("score"))]
        found += [(who, r.get("verdict"), r.get("ratio")) for who, r in row["peers"].items()]
        for who, word, value in found:
            if word:
                counts[word] += 1
            if word == "below":
                below.append(f"  {row['part']} {row['name']}, {shape_text(row['shape'])}: {who} {value:.2f}")
    print("", file=out)
    if below:
        print("below what is to be shipped:", file=out)
        print("\n".join(below), file=out)
    print(f"bounds: {counts['aim']} reach the aim, {counts['pass']} pass, {counts['below']} are below", file=out)
    own = [line for line in checks if line["who"] == "graft"]
    passed = sum(1 for line in own if line["passed"])
    print(f"checks of graft against fp64: {passed} of {len(own)} passed", file=out)
    for line in errors:
        print(f"ERROR in {line['part']} {shape_text(line.get('shape') or {})}: {line['error']}", file=out)


def print_all(lines, rows, checks):
    for line in lines:
        if line.get("part") == "ceilings":
            known = {key: value for key, value in line.items() if key not in ("part", "name")}
            print(f"{line['name']}: " + ", ".join(f"{key} {value}" for key, value in known.items()))
    print_rows(rows)
    print_checks(checks)
    for line in lines:
        if "error" in line and line.get("who") == "peers":
            print(f"peers of {line['part']}: {line['error']}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lines", nargs="+")
    parser.add_argument("--json", help="where the joined results go")
    parser.add_argument("--part", help="only this one")
    parser.add_argument("--summary", action="store_true", help="print what passes and what does not, and no rows")
    parser.add_argument("--about", default="{}", help="a JSON object that goes into the results: revision, date")
    arguments = parser.parse_args()
    lines = [line for line in read_lines(arguments.lines) if arguments.part in (None, line.get("part"))]
    rows = join(lines)
    checks = [line for line in lines if "check" in line]
    errors = [line for line in lines if "error" in line and line.get("who") == "graft" and "check" not in line]
    if not arguments.summary:
        print_all(lines, rows, checks)
    print_summary(rows, checks, errors)
    if arguments.json:
        ceilings = [line for line in lines if line.get("part") == "ceilings"]
        result = {
            "about": json.loads(arguments.about),
            "ceilings": ceilings,
            "results": rows,
            "checks": checks,
            "errors": [line for line in lines if "error" in line and "check" not in line],
        }
        with open(arguments.json, "w") as file:
            json.dump(result, file, indent=1)
            file.write("\n")
    failed = any(line["who"] == "graft" and not line["passed"] for line in checks)
    return 1 if failed or errors else 0


if __name__ == "__main__":
    sys.exit(main())
