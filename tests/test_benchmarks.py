"""Benchmark scripts that use other people's code or a device, run at a small size on the CPU."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from hnas import compute_metrics
from hnas.spaces import search_spaces
from tests.support.places import ROOT
from tests.support.stores import make_store

pytestmark = pytest.mark.slow

TINY = ["--space=nasbench201", "--networks=2", "--batch-size=4"]

#: Stand-ins for the authors' measures: module, function, its extra argument, and its return statement.
HEAD = "import torch\nfrom . import measure\nfrom ..p_utils import layers\n"
BODY = """
def {function}(net, inputs, targets, {mode}loss_fn, split_data=1):
    loss_fn(net(inputs), targets).backward()
    print("noise that must not reach the benchmark's output")
    {returns}
"""
MEASURES = {
    "grad_norm": ("get_grad_norm_arr", "", "return [w.grad.norm() for w in layers(net)]"),
    "snip": ("compute_snip_per_weight", "mode, ", "return [(w * w.grad).abs() for w in layers(net)]"),
    "grasp": ("compute_grasp_per_weight", "mode, ", "return [0 * w for w in layers(net)]"),
    "ntk_trace": ("compute_ntk_trace", "mode, ", "return torch.symeig(torch.eye(4))[0].sum().sqrt()"),
    "condnum": ("compute_condnum", "mode, ", "return 1.0"),
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder laid out like the authors' repository, which also imports measures that do not exist."""
    root = tmp_path / "checkout"
    measures = root / "foresight" / "pruners" / "measures"
    measures.mkdir(parents=True)
    (root / "tools").mkdir()
    (root / "tools" / "autograd_hacks.py").touch()
    (root / "foresight" / "__init__.py").touch()
    (root / "foresight" / "pruners" / "__init__.py").touch()
    (root / "foresight" / "pruners" / "p_utils.py").write_text(
        "import torch\nfrom ..models import *\n"
        "def layers(net):\n"
        "    return [m.weight for m in net.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))]\n"
    )
    (measures / "__init__.py").write_text(
        "def measure(): pass\nfrom . import " + ", ".join(MEASURES) + ", naswot_sim, ntk\n"
    )
    for module, (function, mode, returns) in MEASURES.items():
        (measures / f"{module}.py").write_text(HEAD + BODY.format(function=function, mode=mode, returns=returns))
    return root


def run(script: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / script), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_the_gpu_benchmark_runs_on_the_cpu(checkout: Path) -> None:
    sizes = ["--channels=4", "--cells=1", "--workers", "2", "--streams", "2"]
    done = run("gpu.py", "--device=cpu", *TINY, *sizes, f"--authors={checkout}")
    assert done.returncode == 0, done.stderr
    device, space, live, processes, threads, authors = done.stdout.splitlines()
    assert re.match(r"cpu: .+, torch \S+, TF32 off, deterministic yes, batch 4$", device)
    assert re.match(
        r"nasbench201: [\d.]+ networks/s .* over 2 networks; .*; 0 waits for the device inside a network$", space
    )
    assert re.match(r"the 5,259 live cells of NAS-Bench-201: \d+ s by one process, extrapolated from 2 drawn at", live)
    assert re.match(r"2 processes on one device: [\d.]+ networks/s", processes)
    assert re.match(r"one process, 2 threads with a stream each: [\d.]+ networks/s", threads)
    values = differences(authors)
    assert values["grad_norm"] < 1e-12
    assert values["snip"] < 1e-12
    assert values["grasp"] == 1  # the stand-in returns zero, and the benchmark reports the difference


def test_the_metrics_benchmark_times_the_authors_functions_too(checkout: Path) -> None:
    done = run("metrics.py", *TINY, "--repeats=1", f"--authors={checkout}")
    assert done.returncode == 0, done.stderr
    head, first, second, _, ours, theirs = done.stdout.splitlines()
    assert head.split() == ["step_ms", "metrics_ms", "ratio", "authors_ms", "ratio", "architecture"]
    assert len(first.split()) == len(second.split()) == 6
    assert ours.startswith("nasbench201: median ratio")
    assert theirs.startswith("nasbench201, the authors' functions: median ratio")
    assert differences(theirs)["grad_norm"] < 1e-12


def differences(line: str) -> dict[str, float]:
    """The largest relative differences in a line of output."""
    differing = line.split("in float64: ")[1]
    return {name: float(value) for name, value in (one.split() for one in differing.split(", "))}


@pytest.mark.parametrize("script", ["gpu.py", "metrics.py"])
def test_a_folder_other_than_a_checkout_gives_one_sentence(script: str, checkout: Path) -> None:
    device = ["--device=cpu"] if script == "gpu.py" else []
    (checkout / "foresight" / "pruners" / "measures" / "condnum.py").unlink()
    done = run(script, *device, *TINY, f"--authors={checkout}")
    assert done.returncode == 1
    assert done.stderr == (
        f"--authors {checkout} has no foresight/pruners/measures/condnum.py; give a checkout of "
        "github.com/shuyao95/HNAS, the folder that holds foresight and tools\n"
    )


def test_a_method_with_short_trainings_has_a_warm_start(tmp_path: Path) -> None:
    make_store(tmp_path, architectures=30)
    of = ["--dataset=digits", "--known=csv:digits", "--target=csv:digits", f"--store={tmp_path}"]
    done = run("warm_start.py", *of, "--methods=bohb", "--counts=0,20", "--queries=4", "--seeds=2")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^\| bohb \| \d+\.\d\d ± [^|]*\| \d+\.\d\d ± [^|]*\|$", done.stdout, re.M)


def test_a_checkout_that_fails_to_import_gives_one_sentence(checkout: Path) -> None:
    (checkout / "foresight" / "pruners" / "measures" / "snip.py").write_text("import a_missing_package\n")
    done = run("metrics.py", *TINY, f"--authors={checkout}")
    assert done.returncode == 1
    assert "does not import (No module named 'a_missing_package')" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(__import__("torch").cuda.is_available(), reason="this machine has a CUDA device")
def test_without_a_gpu_the_benchmark_says_how_to_run_it() -> None:
    done = run("gpu.py", *TINY)
    assert done.returncode == 1
    assert done.stderr == "torch finds no CUDA device here; --device cpu runs the same program on the CPU\n"


def test_the_cost_benchmark_counts_multiply_adds_and_shows_operators() -> None:
    done = run("cost.py", "--space=nasbench201", "--batch-size=4")
    assert done.returncode == 0, done.stderr
    rows = dict(re.findall(r"^  (\S[^\n]*?)\s{2,}([\d,]+) M", done.stdout, flags=re.MULTILINE))
    counts = {name: int(count.replace(",", "")) for name, count in rows.items()}
    network = search_spaces["nasbench201"].network(done.stdout.split()[1], classes=10, channels=16, cells=5, seed=0)
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(4, 3, 32, 32))
    flops = counter.get_total_flops() / 2e6
    assert counts["forward"] == pytest.approx(flops, abs=1)
    modelled = sum(count for name, count in counts.items() if name not in ("Θ₀: products, float64", "all"))
    labels = torch.arange(4)
    with FlopCounterMode(display=False) as counter:  # does not count addmm_, which sums up those products
        counter.mod_tracker.__exit__()  # its gradient hooks would make GraSP use a double backward
        compute_metrics(network, torch.zeros(4, 3, 32, 32), labels)
    assert counter.get_total_flops() / 2e6 == pytest.approx(modelled, rel=0.05)
    assert "  convolutions" in done.stdout
