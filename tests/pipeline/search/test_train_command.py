"""Trainings from the command line: threads, progress messages, and printed results."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hnas.errors import HnasError, UsageError
from hnas.pipeline.catalog.views import connect
from hnas.pipeline.search import progress
from hnas.pipeline.search.evaluation import evaluate
from hnas.pipeline.search.progress import TrainingBar
from hnas.pipeline.search.request import new_search
from hnas.pipeline.search.saved import open_search
from hnas.pipeline.search.session import run_search
from hnas.pipeline.search.settings import TrainingSettings
from hnas.pipeline.search.training import Trainer
from hnas.pipeline.store.store import Store
from hnas.spaces import search_spaces
from hnas.threads import physical_cores, training_threads
from tests.support.command_line import hnas
from tests.support.image_files import write_folder
from tests.support.processes import HNAS
from tests.support.runs import fill

ARCH = "|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|none~1|none~2|"
SMALL = ("--dataset", "digits", "--epochs", "1", "--channels", "4", "--cells", "1")
TRAINING = TrainingSettings(epochs=1, batch_size=256, lr=0.1, threads=1, images="digits")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, small_plan) -> Store:
    place = Store(str(tmp_path_factory.mktemp("runs") / "store"))
    fill(place, small_plan(place, sample=20))
    return place


def test_threads_depend_only_on_the_machine():
    assert training_threads(None) == min(physical_cores(), 8)
    assert training_threads(3) == 3
    for wrong in (0, -1, 1025):
        with pytest.raises(UsageError, match=rf"threads must be between 1 and 1024, got {wrong}"):
            training_threads(wrong)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_training_uses_its_threads_and_restores_torchs(threads):
    before = torch.get_num_threads()
    other = 3 - threads
    torch.set_num_threads(other)
    try:
        space, settings = search_spaces["nasbench201"], replace(TRAINING, threads=threads)
        trainer = Trainer(space, settings, channels=4, cells=1)
        found = trainer.train(ARCH)
        assert torch.get_num_threads() == other
        torch.set_num_threads(threads)
        plain = Trainer(space, settings, channels=4, cells=1).train(ARCH)
    finally:
        torch.set_num_threads(before)
    assert (found.train_loss, found.valid_accuracy) == (plain.train_loss, plain.valid_accuracy)


def test_evaluate_describes_the_training_on_standard_error(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    done = hnas("evaluate", ARCH, *SMALL, "--threads", "1", "--json")
    assert done.status == 0, done.err
    record = json.loads(done.out)
    heading, *_ = done.err.splitlines()
    assert heading == (
        f"training {ARCH} of nasbench201: {record['parameters']:,} parameters (4 channels, 1 cell, 8 x 8 pixels), "
        "1 epoch of 1,200 images in batches of 256, 1 thread"
    )
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    assert hnas("evaluate", ARCH, *SMALL, "--threads", "1", "--quiet").err == ""
    assert hnas("evaluate", ARCH, *SMALL, "--threads", "0").status == 2


def test_the_reported_parameters_are_those_trained():
    said = []
    result = evaluate(ARCH, replace(TRAINING, channels=4, cells=1), on_start=said.append)
    (size,) = said
    assert size.parameters == (result.parameters, result.parameters)


def test_a_search_describes_its_networks_and_keeps_its_threads(store):
    command = ("search", "nasbench201", "--oracle", "train", "--dataset", "digits", "--epochs", "1", "--queries", "2")
    done = hnas(*command, "--threads", "1", "--json", "--store", store.root)
    assert done.status == 0, done.err
    found = json.loads(done.out)
    match = re.search(
        r"^each query is a training: ([\d,]+) to ([\d,]+) parameters \(4 channels, 1 cell, 8 x 8 pixels\), "
        r"1 epoch of 1,200 images in batches of 256, 1 thread$",
        done.err,
        re.MULTILINE,
    )
    assert match, done.err
    least, most = (int(text.replace(",", "")) for text in match.groups())
    space = search_spaces["nasbench201"]
    for query in found["queries"]:
        network = space.network(query["arch"], classes=10, channels=4, cells=1, seed=0)
        assert least <= sum(parameter.numel() for parameter in network.parameters()) <= most
    assert open_search(connect(store), store, found["search"]).settings.training.threads == 1


def test_a_dry_run_reports_steps_time_and_gpu_extrapolation(store):
    before = sorted(Path(store.root).rglob("*"))
    command = ("search", "nasbench201", "--oracle", "train", "--dataset", "digits", "--epochs", "2", "--queries", "3")
    done = hnas(*command, "--threads", "1", "--dry-run", "--store", store.root)
    assert done.status == 0, done.err
    rows = ("evaluations", "a step", "a training", "time", "memory")
    assert all(re.search(rf"^{row} ", done.out, re.MULTILINE) for row in rows), done.out
    assert "s here, measured; a training has 10\n" in done.out
    assert re.search(r"^evaluations +3 queries$", done.out, re.MULTILINE)
    one = hnas(*command, "--method", "best-of:trace", "--threads", "1", "--dry-run", "--store", store.root)
    assert re.search(r"^evaluations +1 query$", one.out, re.MULTILINE)
    if "1 thread" in done.out:
        assert re.search(r"^on a GPU +[\d.e-]+ to [\d.e-]+ h, extrapolated from the operations", done.out, re.MULTILINE)
    assert sorted(Path(store.root).rglob("*")) == before


def test_an_estimate_counts_three_passes_per_training_image():
    space = search_spaces["nasbench201"]
    training = replace(TRAINING, epochs=2, batch_size=4, image_size=32)
    alive = "|skip_connect~0|+|nor_conv_1x1~0|nor_conv_1x1~1|+|skip_connect~0|skip_connect~1|nor_conv_1x1~2|"
    found = Trainer(space, training, channels=16, cells=5).estimate([alive])
    images = 2 * (3 * 1200 + 300)
    assert found.operations[0] / images == pytest.approx(2 * space.describe(alive)["flops"], rel=0.02)
    assert found.steps == 600
    assert found.seconds[0] > 600 * found.step[0] > 0


def test_a_search_saved_before_threads_resumes(store):
    connection = connect(store)
    started = new_search(connection, space="nasbench201", queries=1, training=replace(TRAINING, threads=None))
    result = run_search(store, connection, started)
    place = ("searches", result.search, "search.json")
    saved = store.read_json(*place)
    assert list(saved["settings"]["training"]) == ["epochs", "batch_size", "lr", "threads", "images", "image_size"]
    assert saved["settings"]["training"].pop("threads") == training_threads(None)
    saved["settings"]["queries"] = 2
    store.write_json(saved, *place)
    sizes = []
    resumed = open_search(connect(store), store, result.search)
    again = run_search(store, connect(store), resumed, on_start=lambda size: sizes.append(size.training))
    assert len(again.queries) == 2
    assert sizes[0].threads == training_threads(None)
    saved["settings"]["training"]["cutout"] = 16
    store.write_json(saved, *place)
    with pytest.raises(HnasError, match=r"has settings that this hnas does not know: .*cutout"):
        open_search(connect(store), store, result.search)


def test_a_log_has_occasional_lines_with_epoch_and_time(monkeypatch):
    training = replace(TRAINING, epochs=3, channels=4, cells=1)

    def log() -> list[str]:
        stderr = io.StringIO()
        evaluate(ARCH, training, progress=TrainingBar(stderr, quiet=False))
        return stderr.getvalue().splitlines()

    monkeypatch.setattr(progress, "_LOG_EVERY", 1e9)
    assert log() == []
    monkeypatch.setattr(progress, "_LOG_EVERY", 0.0)
    lines = log()
    shape = r"\d\d:\d\d:\d\d epoch (\d) of 3, (loss \d+\.\d{3}|measuring the accuracy), \d+ s left"
    messages = [(int(match[1]), match[2][:4]) for match in (re.fullmatch(shape, line) for line in lines) if match]
    epoch = ["loss"] * 5 + ["meas"]
    assert messages == [(k, doing) for k in (1, 2, 3) for doing in epoch] + [(3, "meas")], lines


def test_a_network_too_large_for_memory_is_reported():
    command = f"ulimit -v 9000000; exec {HNAS} evaluate '{ARCH}' --dataset digits --channels 4096 --cells 1 --epochs 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr == (
        "hnas: there is not enough memory for this; make --channels, --cells, --image-size or --batch-size smaller, or "
        "use a larger machine\n"
    )


def test_images_of_another_number_of_classes_are_not_trained_on(store, tmp_path):
    folder = write_folder(tmp_path / "digits", np.random.default_rng(0).integers(0, 255, (12, 8, 8, 3), np.uint8))
    before = store.names("searches")
    done = hnas(
        "search", "nasbench201", "--dataset", folder, "--oracle", "train", "--method", "random", "--queries", 1,
        "--epochs", 1, "--store", store.root,
    )  # fmt: skip
    assert (done.status, done.out) == (2, "")
    assert f"{folder} has 3 classes, but run " in done.err
    assert done.err.endswith("with 10; give that data set, or rename one of them and precompute it\n")
    assert store.names("searches") == before


def test_an_invalid_seed_is_reported_with_its_option(tmp_path):
    done = hnas("precompute", "nasbench201", *SMALL[:2], "--batch-seed", "-1", "--store", tmp_path)
    assert (done.status, done.err) == (2, "hnas: --batch-seed must be a whole number between 0 and 2**63 - 1, got -1\n")


@pytest.mark.parametrize("option", ["--epochs", "--batch-size"])
def test_numbers_beyond_library_limits_are_rejected(option):
    done = hnas("evaluate", ARCH, *SMALL, option, 10**21)
    assert (done.status, done.out) == (2, "")
    assert done.err.endswith(f" of the training recipe must be below 2**31, got {10**21}\n")
