# SPDX-FileCopyrightText: 2026 The graft authors
# SPDX-License-Identifier: Apache-2.0
"""What every part of the peers does: lines, times of device events, limits, the numbers that graft wrote.

A line is one JSON object. Lines of graft and of its peers with the same part, name and shape belong together:
    {"part": "grouped", "name": "forward", "shape": {...}, "who": "grouped_mm", "ms": 1.2}
A check compares a small shape's result with the same in fp64, from the inputs that graft wrote:
    {"part": "grouped", "check": "y", "case": 0, "who": "graft", "error": 0.0012, "limit": 0.01}
error is ||result - reference|| / ||reference||; what is not a number passes no limit.
"""

import ast
import contextlib
import glob
import json
import math
import os
import signal
import statistics
import struct
import time

import torch

# Rounding to bf16 is a relative error of at most 2^-9, of 2^-9 / sqrt(3) = 1.1e-3 in the norm. A result that was
# rounded a few times on its way stays below 1e-2. Sums of thousands of terms in fp32 stay below 1e-4.
BF16_LIMIT = 1e-2
FP32_LIMIT = 1e-4


class Settings:
    def __init__(self, device="cuda", data=None, seconds=0.3, limit=60.0):
        self.device = torch.device(device)
        self.data = data
        self.seconds = seconds  # to spend on the repetitions of one measurement
        self.limit = limit  # seconds that one peer may take, compilation included


def print_line(**values):
    print(json.dumps(values), flush=True)


class OutOfTime(Exception):
    pass


@contextlib.contextmanager
def time_limit(seconds):
    """Raises OutOfTime in the block when it takes longer. What runs on the device meanwhile runs to its end."""

    def ring(signum, frame):
        raise OutOfTime(f"out of time after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def reason_of(problem):
    text = f"{type(problem).__name__}: {problem}".replace("\n", " ")
    return text if len(text) <= 300 else text[:300] + " ..."


@contextlib.contextmanager
def peer(settings, part, shape, who):
    """A peer that is missing, fails or is too slow gives a line that says so; the others go on."""
    try:
        with time_limit(settings.limit):
            yield
    except ImportError as problem:
        print_line(part=part, shape=shape, who=who, error=f"not installed: {problem}")
    except OutOfTime as problem:
        print_line(part=part, shape=shape, who=who, error=str(problem))
    except Exception as problem:  # a peer's failure is a finding, not ours
        print_line(part=part, shape=shape, who=who, error=reason_of(problem))
    if settings.device.type == "cuda":
        torch.cuda.empty_cache()


class Stopwatch:
    """Median milliseconds of each stage, and of all together as the last: as stopwatch of common/measure.cuh."""

    def __init__(self, settings):
        self.settings = settings
        self.cuda = settings.device.type == "cuda"
        self.flush = torch.empty(1 << (26 if self.cuda else 10), device=settings.device)

    def __call__(self, prepare, *stages):
        number = 0
        for _ in range(2):
            self.once(number, prepare, stages)
            number += 1
        estimate = self.once(number, prepare, stages)[-1]
        count = min(max(int(1e3 * self.settings.seconds / max(estimate, 1e-3)), 5), 50)
        runs = [self.once(number + 1 + i, prepare, stages) for i in range(count)]
        return [statistics.median(times) for times in zip(*runs)]

    def once(self, number, prepare, stages):
        prepare(number)
        self.flush.zero_()
        if not self.cuda:
            marks = [time.perf_counter()]
            for stage in stages:
                stage()
                marks.append(time.perf_counter())
            times = [1e3 * (b - a) for a, b in zip(marks, marks[1:])]
            return times + [1e3 * (marks[-1] - marks[0])]
        events = [torch.cuda.Event(enable_timing=True) for _ in range(len(stages) + 1)]
        events[0].record()
        for event, stage in zip(events[1:], stages):
            stage()
            event.record()
        torch.cuda.synchronize()
        times = [a.elapsed_time(b) for a, b in zip(events, events[1:])]
        return times + [events[0].elapsed_time(events[-1])]


def placed(settings):
    """Modules made in this block are made on the device (from torch 2.0 on)."""
    return settings.device if hasattr(settings.device, "__enter__") else contextlib.nullcontext()


def needs(module, *names):
    """Raises ImportError where an older library lacks what a peer uses."""
    for name in names:
        if not hasattr(module, name):
            raise ImportError(f"{module.__name__} {getattr(module, '__version__', '')} has no {name}")


def compiled(function):
    """For one shape: nothing learnt of other shapes, nothing kept open."""
    needs(torch, "compile")
    if hasattr(torch, "_dynamo"):
        torch._dynamo.reset()
    return torch.compile(function, dynamic=False)


def normal(settings, *shape, deviation=1.0, dtype=torch.bfloat16):
    return (torch.randn(*shape, device=settings.device) * deviation).to(dtype)


# ---- the numbers that graft wrote -----------------------------------------------------------------------------------


def read_npy(path):
    """A tensor from numpy's format 1.0, without numpy."""
    with open(path, "rb") as file:
        data = file.read()
    if data[:8] != b"\x93NUMPY\x01\x00":
        raise ValueError(f"{path}: expected an .npy file of format 1.0")
    (length,) = struct.unpack("<H", data[8:10])
    header = ast.literal_eval(data[10 : 10 + length].decode("latin-1"))
    dtype = {"<f4": torch.float32, "<i4": torch.int32}[header["descr"]]
    count = math.prod(header["shape"])
    values = torch.frombuffer(bytearray(data[10 + length :]), dtype=dtype) if count else torch.empty(0, dtype=dtype)
    if header["fortran_order"] or values.numel() != count:
        raise ValueError(f"{path}: expected {count} elements in C order, got {values.numel()}")
    return values.reshape(header["shape"])


class Case:
    """The files of one small shape of a part."""

    def __init__(self, settings, part, number):
        self.settings, self.part, self.number = settings, part, number

    def exists(self, name="*"):
        return bool(self.settings.data and glob.glob(self.path(name)))

    def path(self, name):
        return os.path.join(self.settings.data, f"{self.part}.{self.number}.{name}.npy")

    def __getitem__(self, name):
        """Floating-point numbers in fp64, integers as they are."""
        values = read_npy(self.path(name)).to(self.settings.device)
        return values.double() if values.is_floating_point() else values.long()

    def check(self, name, who, result, reference, limit):
        difference = torch.linalg.vector_norm((result.double() - reference.double()).flatten())
        size = torch.linalg.vector_norm(reference.double().flatten())
        error = float(difference / size) if float(size) > 0 else float(difference)
        passed = error <= limit
        if not math.isfinite(error):
            error = str(error)
        print_line(part=self.part, check=name, case=self.number, who=who, error=error, limit=limit, passed=passed)


def cases(settings, part):
    number = 0
    while settings.data:
        case = Case(settings, part, number)
        if not case.exists():
            return
        yield case
        number += 1
