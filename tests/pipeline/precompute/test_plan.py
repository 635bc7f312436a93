"""Plans: what a precomputation would do before anything is written, and the names of runs."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from typer.testing import CliRunner

from cli import app
from hnas.devices import choose_device
from hnas.errors import UsageError
from hnas.pipeline.catalog import views as catalog
from hnas.pipeline.cluster.local_cluster import physical_cores
from hnas.pipeline.images import open_dataset
from hnas.pipeline.precompute.driver import estimate
from hnas.pipeline.precompute.plan import Plan, make_plan
from hnas.pipeline.precompute.report import dry_run_text
from hnas.pipeline.store.run import RunSettings
from hnas.pipeline.store.store import Store
from hnas.threads import torch_threads
from tests.support.contents import matching, snapshot
from tests.support.runs import SIZE, SPACE, exact_table, fill

MakePlan = Callable[..., Plan]

# Three members of one class, and one of another.
DEAD = tuple(f"|none~0|+|none~0|{name}~1|+|none~0|none~1|none~2|" for name in ("none", "skip_connect", "nor_conv_1x1"))
ALIVE = "|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|nor_conv_3x3~1|none~2|"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


@pytest.fixture
def listed(tmp_path: Path) -> Callable[..., Path]:
    """`listed(line, …)`: a file with these lines."""

    def write(*lines: str) -> Path:
        path = tmp_path / "architectures.txt"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write


def pool(store: Store, run: str) -> list[str]:
    rows = catalog.connect(store).execute("SELECT arch FROM pool WHERE run = ?", [run]).fetchall()
    return sorted(row[0] for row in rows)


# --- requested and remaining work


def test_a_dry_run_writes_nothing(tmp_path):
    size = [f"--{name.replace('_', '-')}={value}" for name, value in SIZE.items()]
    command = ["precompute", "nasbench201", "--dataset=digits", *size, f"--store={tmp_path / 'store'}"]
    result = CliRunner().invoke(app, [*command, "--sample=20", "--chunk-size=4", "--workers=2", "--dry-run"])
    assert result.exit_code == 0
    assert result.stderr == ""
    lines = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in result.stdout.splitlines()[:-1])
    assert re.fullmatch("[0-9a-f]{10}", lines["run"])
    assert (lines["space"], lines["weights"]) == ("nasbench201, 4 channels, 1 cells", "torch, seed 0")
    assert re.fullmatch("8 images of digits, 8 x 8: [0-9a-f]{16}", lines["batch"])
    assert lines["asked for"] == "20 architectures, 19 canonical"
    assert lines["in the store"] == "0"
    assert lines["to compute"] == "19 in 5 chunks"
    assert re.fullmatch(r"about \d+ s with 2 workers", lines["time"])
    assert re.fullmatch(r"about \d+ kB", lines["size"])
    assert result.stdout.endswith("nothing was written\n")
    assert list(tmp_path.iterdir()) == []


def test_planning_changes_no_file_of_the_store(filled, small_plan):
    store, _ = filled
    before = snapshot(store.root)
    plan = small_plan(store, sample=30)
    with torch_threads(2):
        seconds = estimate(plan, device="cpu")
        assert torch.get_num_threads() == 2, "the estimate did not restore the number of threads"
    assert seconds is not None
    assert 0 < seconds < 60
    text = dry_run_text(plan, seconds, workers=physical_cores(), keep_gram=True)
    assert f"with {physical_cores()} worker" in text
    assert snapshot(store.root) == before


def test_a_finished_plan_has_nothing_to_estimate(filled, small_plan):
    store, plan = filled
    again = small_plan(store, sample=20)
    assert (again.done, again.todo, again.most_chunks) == (19, (), 0)
    assert estimate(again) is None
    assert again.requested == plan.requested
    text = dry_run_text(again, None, workers=1, keep_gram=False)
    assert "time" not in text
    assert "0 in 0 chunks" in text


def test_after_a_sample_the_whole_space_lacks_only_the_rest(filled, small_plan):
    store, sampled = filled
    whole = small_plan(store)
    assert len(whole.requested) == 15625 == len(set(whole.requested))
    assert whole.done == 19
    assert len(whole.todo) == 5260 - 19
    assert not {canonical for canonical, _ in whole.todo} & {canonical for canonical, _ in sampled.todo}
    assert all(SPACE.canonical(arch) == canonical for canonical, arch in whole.todo[:50])
    assert whole.most_chunks == 1311


def test_a_sample_is_distinct_and_fixed_by_its_seed(store, small_plan):
    first, again, other = (small_plan(store, sample=40, seed=seed) for seed in (0, 0, 1))
    assert first.requested == again.requested
    assert len({arch for arch, _ in first.requested}) == 40
    assert first.requested != other.requested


def test_the_pool_has_only_the_requested_members_of_a_class(store, small_plan, listed):
    first = small_plan(store, architectures=listed(DEAD[0], ALIVE))
    run = fill(store, first)
    assert pool(store, run) == sorted([DEAD[0], ALIVE])

    second = small_plan(store, architectures=listed(DEAD[1]))
    assert (second.done, second.todo) == (1, ())
    fill(store, second)
    assert pool(store, run) == sorted([DEAD[0], DEAD[1], ALIVE])
    assert len(exact_table(store, run)) == 2

    # Requests of one run do not leak into another.
    other = small_plan(store, architectures=listed(DEAD[2]), seed=5)
    assert other.settings.id != run
    fill(store, other)
    assert pool(store, other.settings.id) == [DEAD[2]]
    assert pool(store, run) == sorted([DEAD[0], DEAD[1], ALIVE])


def test_repeating_a_request_in_another_order_adds_nothing(store, small_plan, listed):
    fill(store, small_plan(store, architectures=listed(DEAD[0], ALIVE)))
    before = snapshot(store.root)
    fill(store, small_plan(store, architectures=listed(ALIVE, DEAD[0])))
    fill(store, small_plan(store, architectures=listed(ALIVE)))
    assert snapshot(store.root) == before


def test_static_columns_are_stored_once_for_all_runs_of_a_space(store, small_plan):
    fill(store, small_plan(store, sample=4))
    parts = matching(store, "architectures", "nasbench201", "*.parquet")
    fill(store, small_plan(store, sample=4, ntk="exact"))
    assert matching(store, "architectures", "nasbench201", "*.parquet") == parts
    rows = catalog.connect(store).execute("SELECT arch, canonical, params, flops FROM architectures").fetchall()
    assert len(rows) == 4
    assert all(
        (SPACE.canonical(arch), SPACE.describe(arch)["params"]) == (key, params) for arch, key, params, _ in rows
    )


# --- lists of architectures


def test_comments_blank_lines_and_repetitions_in_a_list_are_skipped(store, small_plan, listed):
    path = listed("# a comment", "", f"  {ALIVE}\t", DEAD[0], "   ", "  # another", ALIVE, DEAD[1])
    plan = small_plan(store, architectures=path)
    assert [arch for arch, _ in plan.requested] == [ALIVE, DEAD[0], DEAD[1]]
    assert len(plan.todo) == 2


def test_windows_line_ends_make_no_difference(store, small_plan, tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(f"{ALIVE}\r\n# x\r\n{DEAD[0]}\r\n".encode())
    assert [arch for arch, _ in small_plan(store, architectures=path).requested] == [ALIVE, DEAD[0]]


def test_a_list_can_be_a_csv_file_written_by_hnas_sql(store, small_plan, listed):
    plan = small_plan(store, architectures=listed("arch", f'"{ALIVE}"', "", DEAD[0]))
    assert [arch for arch, _ in plan.requested] == [ALIVE, DEAD[0]]
    with pytest.raises(UsageError, match=r"line 3: .*describes 1 nodes"):
        small_plan(store, architectures=listed("arch", ALIVE, "|nonsense~0|"))


def test_a_malformed_architecture_is_reported_with_file_and_line(store, small_plan, listed):
    path = listed("# a comment", ALIVE, "|nonsense~0|")
    with pytest.raises(UsageError, match=rf"{re.escape(str(path))}, line 3: .*describes 1 nodes"):
        small_plan(store, architectures=path)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is empty; give one architecture per line"),
        (b"# none\n\n", "is empty"),
        (b"\xff\xfe\x00", "it is not UTF-8 text"),
    ],
)
def test_an_empty_list_is_a_usage_error(store, small_plan, tmp_path, content, complaint):
    path = tmp_path / "list.txt"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=complaint):
        small_plan(store, architectures=path)


def test_a_missing_list_is_a_usage_error(store, small_plan, tmp_path):
    for path, reason in ((tmp_path / "none.txt", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(UsageError, match=f"cannot be read: {reason}"):
            small_plan(store, architectures=path)


# --- requests that can never work


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"sample": 0}, "cannot sample 0"),
        ({"sample": -1}, "cannot sample -1"),
        ({"sample": 15626}, "cannot sample 15626"),
        ({"sample": 2, "batch_size": 1}, "--batch-size must be between 2 (κ needs two samples) and 4096, got 1"),
        ({"sample": 2, "batch_size": 4097}, "--batch-size must be between 2 (κ needs two samples) and 4096, got 4097"),
        ({"sample": 2, "batch_size": 1501}, "between 1 and 1500"),
        ({"sample": 2, "chunk_size": 0}, "--chunk-size must be at least 1, got 0"),
        ({"sample": 2, "seed": -1}, "--seed must be a whole number between 0 and 2**63 - 1, got -1"),
        ({"sample": 2, "seed": 2**63}, f"--seed must be a whole number between 0 and 2**63 - 1, got {2**63}"),
        ({"sample": 2, "channels": 0}, "channels of a NAS-Bench-201 network must be between 1 and 4096, got 0"),
        ({"sample": 2, "cells": 0}, "cells per stage of a NAS-Bench-201 network must be between 1 and 4096, got 0"),
        ({"sample": 2, "architectures": Path("x")}, "exclude each other"),
    ],
)
def test_an_impossible_request_is_a_usage_error_and_writes_nothing(store, small_plan, options, complaint):
    with pytest.raises(UsageError, match=re.escape(complaint)) as error:
        small_plan(store, **options)
    assert "\n" not in str(error.value)
    assert not Path(store.root).exists()


def test_all_of_an_unenumerable_space_is_a_usage_error(store, digits):
    endless = SimpleNamespace(name="endless", size=None, channels=4, cells=1)
    with pytest.raises(UsageError, match="endless cannot be enumerated; give --sample N or --architectures FILE"):
        make_plan(store, endless, digits)


# --- names of runs


def test_equal_settings_give_the_same_run_in_every_store(store, filled, small_plan):
    _, plan = filled
    again = small_plan(store, sample=3, chunk_size=64)
    assert again.settings == plan.settings
    assert again.settings.id == plan.settings.id
    assert re.fullmatch("[0-9a-f]{10}", plan.settings.id)


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"channels": 5}, {"cells": 2}, {"batch_size": 16}, {"ntk": "exact"}, {"init": "he"}],
    ids=str,
)
def test_a_setting_that_changes_numbers_names_another_run(store, filled, small_plan, change):
    assert small_plan(store, sample=2, **change).settings.id != filled[1].settings.id


def test_the_batch_has_a_seed_of_its_own(store, filled, small_plan):
    plan = filled[1]
    other = small_plan(store, sample=20, batch_seed=1)
    assert small_plan(store, sample=20, batch_seed=0).settings == plan.settings
    assert other.settings.batch == small_plan(store, sample=20, seed=1).settings.batch != plan.settings.batch
    assert replace(other.settings, batch=plan.settings.batch) == plan.settings
    assert other.requested == plan.requested


def test_another_image_size_names_another_run(store, filled):
    larger = open_dataset("digits", image_size=16)
    assert make_plan(store, SPACE, larger, sample=2, **SIZE).settings.id != filled[1].settings.id


def test_every_setting_of_a_run_is_in_its_name(filled):
    settings = filled[1].settings
    for name, value in vars(settings).items():
        other = replace(settings, **{name: value + 1 if isinstance(value, int) else value + "x"})
        assert other.id != settings.id, name


def test_device_and_workers_are_not_part_of_the_name(filled):
    names = set(RunSettings.__dataclass_fields__)
    assert not names & {"device", "workers", "chunk_size", "scheduler", "store", "host", "keep_gram"}
    assert len(names) == 13


@pytest.mark.skipif(choose_device("auto") == "cuda", reason="this machine has a CUDA device")
def test_a_missing_cuda_device_is_reported_before_work_starts(store, small_plan):
    with pytest.raises(Exception, match="torch finds no CUDA device; use device cpu or auto"):
        estimate(small_plan(store, sample=2), device="cuda")
