"""Precomputation with real worker processes: the table is always the same, and nothing is lost."""

from __future__ import annotations

import os
import pty
import random
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from hnas.allocator import keep_freed_memory
from hnas.errors import HnasError, UsageError
from hnas.metrics import COLUMNS
from hnas.pipeline.catalog import views as catalog
from hnas.pipeline.images import ImageDataset
from hnas.pipeline.precompute import worker
from hnas.pipeline.precompute.driver import Progress, precompute
from hnas.pipeline.precompute.plan import Plan, make_plan
from hnas.pipeline.store.ntk_arrays import NTKArrays
from hnas.pipeline.store.store import Store
from tests.support.command_line import hnas
from tests.support.contents import matching, snapshot
from tests.support.processes import WAIT, group_is_gone, precompute_command, run_command, running, wait_until
from tests.support.runs import SIZE, SPACE, Row, chunks_of, claims_of, exact_table, fill, job_of, metrics_of

pytestmark = pytest.mark.slow

MakePlan = Callable[..., Plan]

# 52 canonical architectures: some 3 s of work, enough to be interrupted in the middle.
ARCHITECTURES = SPACE.sample(60, seed=3)


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lists") / "in order.txt"
    path.write_text("\n".join(ARCHITECTURES))
    return path


@pytest.fixture(scope="module")
def shuffled(listed: Path) -> Path:
    path = listed.with_name("shuffled.txt")
    path.write_text("\n".join(random.Random(0).sample(ARCHITECTURES, len(ARCHITECTURES))))
    return path


@pytest.fixture(scope="module")
def one_worker(
    tmp_path_factory: pytest.TempPathFactory, listed: Path
) -> tuple[Store, subprocess.CompletedProcess[str], dict[str, Row]]:
    """One worker, chunks of 4: the store, the command's output, and the table that all other ways must reproduce."""
    folder = tmp_path_factory.mktemp("one worker") / "store"
    done = run_command(
        *precompute_command(folder, f"--architectures={listed}", "--workers=1", "--chunk-size=4", "--quiet"),
        timeout=WAIT,
    )
    assert done.returncode == 0, done.stderr
    store = Store(str(folder))
    return store, done, exact_table(store, run_of(store))


@pytest.fixture(scope="module")
def expected(one_worker: tuple[Store, subprocess.CompletedProcess[str], dict[str, Row]]) -> dict[str, Row]:
    return one_worker[2]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def run_of(store: Store) -> str:
    (path,) = matching(store, "runs", "*", "run.json")
    return path.split("/")[-2]


def finished_parts(store: Store) -> int:
    return len(matching(store, "runs", "*", "metrics", "*.parquet"))


def temporary_files(folder: Path | str) -> list[Path]:
    """Temporary files left by an interrupted write."""
    found = (path for path in Path(folder).rglob("*") if path.is_file() and path.name != ".lock")
    return [path for path in found if path.name.startswith(".") or "partial" in path.name or path.suffix == ".part"]


# --- the same table


def test_a_quiet_precompute_prints_its_summary_and_nothing_else(one_worker):
    store, done, expected = one_worker
    assert done.stderr == ""
    assert done.stdout == (
        f"run {run_of(store)}: {len(expected)} canonical architectures stand for the 60 asked for; "
        f"{len(expected)} computed now\n"
    )


def test_workers_chunks_and_order_do_not_change_the_table(store, small_plan, shuffled, expected):
    plan = small_plan(store, architectures=shuffled, chunk_size=40)
    assert plan.most_chunks == 2
    seen: list[Progress] = []
    run = precompute(store, SPACE, plan, workers=2, device="cpu", progress=seen.append).run
    assert exact_table(store, run) == expected

    # Progress rose to exactly its end.
    total = len(expected)
    assert [progress.done for progress in seen] in ([0, 40, total], [0, total - 40, total])
    assert all((progress.total, progress.already) == (total, 0) for progress in seen)
    assert sorted(progress.seconds for progress in seen) == [progress.seconds for progress in seen]
    assert (seen[0].left, seen[-1].left) == (None, 0.0)
    assert seen[-1].rate == pytest.approx(total / seen[-1].seconds)
    assert temporary_files(store.root) == []


@pytest.mark.parametrize("ending", ["Ctrl-C to the whole group", "SIGTERM to the driver"])
def test_an_interrupted_precompute_explains_how_to_resume_and_resumes(tmp_path, small_plan, listed, expected, ending):
    store = Store(str(tmp_path / "store"))
    command = precompute_command(store.root, f"--architectures={listed}", "--workers=2", "--chunk-size=1")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with running(*command, env={"TMPDIR": str(scratch)}) as process:
        wait_until(lambda: finished_parts(store) >= 3, process)
        if ending == "SIGTERM to the driver":
            process.terminate()
        else:
            os.killpg(process.pid, signal.SIGINT)
        stdout, stderr = process.communicate(timeout=WAIT)
        wait_until(lambda: group_is_gone(process.pid))
    assert process.returncode == 1, (stdout, stderr)
    assert stdout == ""
    run = run_of(store)
    stored = len(exact_table(store, run))
    assert 3 <= stored < len(expected), "the interrupt did not come in the middle"
    *log, sentence = stderr.splitlines()
    assert sentence == (
        f"hnas: interrupted: {stored} of {len(expected)} rows are stored in run {run}; "
        "run the same command again to resume"
    )
    assert all(re.match(r"\d\d:\d\d:\d\d \d+/\d+ architectures", line) for line in log), stderr
    assert temporary_files(store.root) == []
    assert not list(scratch.glob("dask-scratch-space/worker-*")), "a worker left its folder"

    before = snapshot(store.root, "runs/*/metrics/*")
    if ending == "SIGTERM to the driver":
        plan = small_plan(store, architectures=listed, chunk_size=64)
        assert plan.done == stored
        assert precompute(store, SPACE, plan, workers=1, device="cpu").run == run
    else:
        again = run_command(*command, timeout=WAIT)
        assert again.returncode == 0, again.stderr
        assert again.stdout.endswith(f"{len(expected) - stored} computed now\n")
        first, second, *_, last = again.stderr.splitlines()
        total = len(expected) - stored
        assert re.fullmatch(rf"\d\d:\d\d:\d\d {stored} of {len(expected)} rows were already there", first)
        assert re.fullmatch(rf"\d\d:\d\d:\d\d 0/{total} architectures", second)
        assert re.fullmatch(rf"\d\d:\d\d:\d\d {total}/{total} architectures, \d+\.\d\d/s, 0 s left", last)
    assert exact_table(store, run) == expected
    assert before.items() <= snapshot(store.root, "runs/*/metrics/*").items(), "a finished part was written again"
    assert temporary_files(store.root) == []
    assert sum(session["rows"] for session in store.read_json("runs", run, "run.json")["sessions"]) == len(expected)


def test_a_second_precompute_computes_nothing_and_touches_no_file(one_worker, shuffled):
    store, _, expected = one_worker
    before = snapshot(store.root)
    again = hnas(*precompute_command(store.root, f"--architectures={shuffled}", "--workers=2")[1:])
    assert (again.status, again.err) == (0, "")
    assert again.out.endswith(f"{len(expected)} canonical architectures stand for the 60 asked for; 0 computed now\n")
    assert snapshot(store.root) == before


def test_chunks_of_measured_size_give_the_same_table(store, small_plan, shuffled, expected):
    plan = small_plan(store, architectures=shuffled, chunk_size=None)
    run = precompute(store, SPACE, plan, workers=2, device="cpu").run
    assert exact_table(store, run) == expected
    sizes = sorted(catalog.connect(store).execute("SELECT count(*) FROM metrics GROUP BY ntk_row // 8").fetchall())
    assert sizes[0] == (1,), "the first chunk of each worker is one network"
    assert 5 <= finished_parts(store) < len(expected)


def test_a_single_process_without_dask_gives_the_same_table(store, small_plan, shuffled, expected):
    assert exact_table(store, fill(store, small_plan(store, architectures=shuffled, chunk_size=7))) == expected


# --- concurrent commands


def test_two_precomputes_share_a_run_while_another_fills_the_store(store, small_plan, listed, expected):
    command = precompute_command(store.root, f"--architectures={listed}", "--workers=1", "--chunk-size=1")
    other = small_plan(store, sample=12, seed=8)
    with running(*command) as first, running(*command) as second, ThreadPoolExecutor() as pool:
        beside = pool.submit(precompute, store, SPACE, other, workers=1, device="cpu")
        ends = [process.communicate(timeout=WAIT) for process in (first, second)]
        assert beside.result(timeout=WAIT).run == other.settings.id
    assert (first.returncode, second.returncode) == (0, 0), ends
    run = small_plan(store, architectures=listed).settings.id
    assert exact_table(store, run) == expected
    shares = [sentence(stdout) for stdout, _ in ends]
    assert all(computed > 0 for computed, _ in shares), "one command did all the work"
    assert sum(computed for computed, _ in shares) == len(expected)
    # The later one may have found some rows already done.
    assert all(computed + others <= len(expected) for computed, others in shares)
    sessions = store.read_json("runs", run, "run.json")["sessions"]
    assert sorted(session["rows"] for session in sessions) == sorted(computed for computed, _ in shares)
    assert not store.exists("runs", run, "drivers")
    assert temporary_files(store.root) == []
    alone = Store(f"{store.root} alone")
    assert exact_table(store, other.settings.id) == exact_table(alone, fill(alone, other))
    assert catalog.connect(store).execute("SELECT count(*) FROM pool").fetchall() == [(60 + 12,)]


def sentence(stdout: str) -> tuple[int, int]:
    """The rows computed by this command and by others, according to a summary."""
    match = re.search(r"; (\d+) computed now(?:, (\d+) by others meanwhile)?\n$", stdout)
    assert match, stdout
    return int(match[1]), int(match[2] or 0)


def test_the_survivor_of_two_precomputes_finishes_the_run(store, small_plan, listed, expected):
    command = precompute_command(store.root, f"--architectures={listed}", "--workers=1", "--chunk-size=2")
    logs = ("runs", "*", "drivers", "*.claims")
    with running(*command) as killed, running(*command) as survivor:
        wait_until(lambda: len(matching(store, *logs)) == 2 and finished_parts(store) >= 4, survivor)
        os.kill(killed.pid, signal.SIGKILL)
        before = snapshot(store.root, "runs/*/metrics/*.parquet")
        _, stderr = survivor.communicate(timeout=WAIT)
    assert survivor.returncode == 0, stderr
    assert len(before) < len(expected) // 2, "the command ended before it was killed"
    run = run_of(store)
    assert exact_table(store, run) == expected
    assert before.items() <= snapshot(store.root, "runs/*/metrics/*").items(), "a finished part was written again"
    assert not store.exists("runs", run, "drivers")


def test_the_next_precompute_redoes_a_killed_ones_work(store, small_plan, listed, expected):
    command = precompute_command(store.root, f"--architectures={listed}", "--workers=1")
    with running(*command) as process:
        wait_until(lambda: finished_parts(store) >= 3, process)
        os.kill(process.pid, signal.SIGKILL)
    before = snapshot(store.root, "runs/*/metrics/*.parquet")
    plan = small_plan(store, architectures=listed, chunk_size=None)
    assert plan.done == len(exact_table(store, plan.settings.id))
    precompute(store, SPACE, plan, workers=1, device="cpu")
    assert exact_table(store, plan.settings.id) == expected
    assert before.items() <= snapshot(store.root, "runs/*/metrics/*").items(), "a finished part was written again"
    assert not store.exists("runs", plan.settings.id, "drivers")


# --- messages


def test_the_log_reports_a_lost_worker(tmp_path, listed):
    command = precompute_command(tmp_path / "store", f"--architectures={listed}", "--workers=1", "--chunk-size=60")
    with running(*command) as process:
        stderr = process.stderr.readline()
        assert re.match(r"\d\d:\d\d:\d\d 0/\d+ architectures\n", stderr), "the worker is ready"
        (worker,) = [
            child for child in psutil.Process(process.pid).children() if "multiprocessing.spawn" in child.cmdline()[-2]
        ]
        ready = worker.cpu_times().user
        wait_until(lambda: worker.cpu_times().user > ready + 0.5, process)  # it has the chunk and is computing
        worker.kill()
        stderr += process.communicate(timeout=WAIT)[1]
    assert process.returncode == 0, stderr
    place = r"tls://127\.0\.0\.1:\d+"
    assert re.search(rf"^\d\d:\d\d:\d\d lost the worker {place}: its chunk will be repeated$", stderr, re.MULTILINE)


def test_a_terminal_shows_a_bar_and_standard_output_stays_clean(tmp_path):
    master, slave = pty.openpty()
    command = precompute_command(tmp_path / "store", "--sample=6", "--workers=1", "--chunk-size=1")
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=slave, text=True, env={**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    )
    os.close(slave)
    shown = b""
    with suppress(OSError):  # Linux reports a closed other end this way
        while piece := os.read(master, 4096):
            shown += piece
    stdout, _ = process.communicate(timeout=WAIT)
    os.close(master)
    text = shown.decode()
    assert process.returncode == 0, text
    assert re.fullmatch(r"run [0-9a-f]{10}: 5 canonical .* 5 computed now\n", stdout)
    assert "metrics" in text
    assert "━" in text
    assert "starting workers" in text
    assert re.search(r"[1-5]/5", text)
    assert "architectures" not in text, "a log line on a terminal"
    assert "\x1b[?25h" in text, "the cursor stays hidden"


# --- a full disk


def test_a_full_disk_is_reported_and_the_command_completes_later(tmp_path, small_plan, listed, expected):
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "tmpfs", str(folder), "-o"]
    if not shutil.which("mount") or subprocess.run([*mount, "size=160k"], capture_output=True, check=False).returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    try:
        store = Store(str(folder / "store"))
        with pytest.raises(HnasError) as error:
            precompute(store, SPACE, small_plan(store, architectures=listed, chunk_size=4), workers=1, device="cpu")
        assert "No space left on device; free some space, or use another --store" in str(error.value)
        assert "\n" not in str(error.value)
        assert finished_parts(store) >= 2, "the disk was full before any worker wrote"
        assert temporary_files(store.root) == []
        subprocess.run([*mount, "remount,size=10m"], check=True)
        plan = small_plan(store, architectures=listed, chunk_size=4)
        assert plan.done > 0
        run = precompute(store, SPACE, plan, workers=1, device="cpu").run
        assert exact_table(store, run) == expected
    finally:
        subprocess.run(["umount", str(folder)], check=True)


# --- requests that can never work


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"workers": 0}, "--workers must be between 1 and 1024, got 0"),
        ({"workers": 1025}, "--workers must be between 1 and 1024, got 1025"),
        ({"workers": 1, "scheduler": "tcp://127.0.0.1:1"}, "--workers and --scheduler exclude each other"),
    ],
)
def test_an_impossible_request_is_wrong_usage_and_writes_nothing(store, small_plan, options, complaint):
    with pytest.raises(UsageError, match=complaint):
        precompute(store, SPACE, small_plan(store, sample=2), **options)
    assert not Path(store.root).exists()


def test_a_chunk_of_any_size_takes_bounded_memory(store, small_plan):
    plan = small_plan(store, sample=3, chunk_size=10**9)
    assert plan.block * 8 * 8**2 <= 2**28
    run = fill(store, plan)
    assert small_plan(store, sample=3).todo == ()
    assert NTKArrays(store, run).read().shape == (len(plan.todo), 8)


# --- Gram matrices


def test_kept_gram_matrices_give_the_stored_numbers(store, small_plan):
    run = fill(store, small_plan(store, sample=12), keep_gram=True)
    arrays = NTKArrays(store, run)
    eigenvalues, gram = arrays.read(), arrays.read("gram")
    rows = metrics_of(store, run)
    assert gram.shape == (len(rows), 8, 8)
    assert eigenvalues.shape == (len(rows), 8)
    for row in rows:
        matrix, spectrum = gram[row["ntk_row"]], eigenvalues[row["ntk_row"]]
        np.testing.assert_array_equal(matrix, matrix.T)
        largest = max(abs(spectrum[-1]), 1e-300)
        np.testing.assert_allclose(np.linalg.eigvalsh(matrix), spectrum, rtol=0, atol=1e-12 * largest)
        assert row["trace"] == pytest.approx(np.sqrt(np.trace(matrix) / 8), rel=1e-12)
        if np.isfinite(row["kappa"]):
            assert row["kappa"] == pytest.approx(spectrum[-1] / spectrum[0], rel=1e-12)


def test_without_keep_gram_there_is_no_gram_array(filled):
    store, plan = filled
    assert not store.exists("runs", plan.settings.id, "ntk.zarr", "gram")
    assert store.exists("runs", plan.settings.id, "ntk.zarr", "eigenvalues")


def test_gram_matrices_can_be_kept_from_mid_run(store, small_plan):
    run = fill(store, small_plan(store, sample=6))
    early = {row["ntk_row"] for row in metrics_of(store, run)}
    fill(store, small_plan(store, sample=12, chunk_size=3), keep_gram=True)
    kept = {row["ntk_row"] for row in metrics_of(store, run)} - early
    fill(store, small_plan(store, sample=16))
    rows = {row["ntk_row"] for row in metrics_of(store, run)}
    arrays = NTKArrays(store, run)
    eigenvalues, gram = arrays.read(), arrays.read("gram")
    assert len(gram) == len(eigenvalues)
    assert kept
    for row in rows:
        assert np.isfinite(eigenvalues[row]).all()
        if row in kept:
            largest = max(abs(eigenvalues[row][-1]), 1e-300)
            np.testing.assert_allclose(np.linalg.eigvalsh(gram[row]), eigenvalues[row], rtol=0, atol=1e-12 * largest)
        else:
            assert np.isnan(gram[row]).all()


# --- a worker's own work


def test_a_chunk_done_twice_is_stored_once(store, small_plan):
    plan = small_plan(store, sample=4)
    with claims_of(store, plan) as claims:
        (chunk,) = chunks_of(claims, plan)
        worker.run_chunk(job_of(store, plan, token=claims.token), chunk)
        claims.done([chunk])
    run = plan.settings.id
    before = snapshot(store.root)
    done = worker.run_chunk(job_of(store, plan), chunk)
    assert (done.rows, done.seconds) == (len(chunk.members), 0.0)
    assert snapshot(store.root) == before
    assert len(exact_table(store, run)) == len(plan.todo)


def test_a_crash_between_the_writes_of_a_chunk_loses_it_entirely(store, small_plan, monkeypatch, filled):
    plan = small_plan(store, sample=20)
    run = plan.settings.id

    def crash(*_: object, **__: object) -> None:
        raise MemoryError

    with claims_of(store, plan) as claims:
        first, second, *_ = chunks_of(claims, plan)
        worker.run_chunk(job_of(store, plan), first)
        with monkeypatch.context() as patched:
            patched.setattr(Store, "write_table", crash)
            with pytest.raises(MemoryError):
                worker.run_chunk(job_of(store, plan), second)
        assert np.isfinite(NTKArrays(store, run).read()[second.ntk_row]).all(), "the crash came before the first write"
    assert catalog.connect(store).execute("SELECT count(*) FROM metrics").fetchall() == [(4,)]

    # Other chunks reuse the abandoned rows.
    again = small_plan(store, sample=20, chunk_size=3)
    assert again.done == 4
    fill(store, again)
    reference, whole = filled
    assert exact_table(store, run) == exact_table(reference, whole.settings.id)


def test_numbers_do_not_depend_on_earlier_work_of_the_process(store, small_plan, filled):
    reference, plan = filled
    torch.manual_seed(99)
    torch.rand(1000)
    np.random.default_rng().random(10)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        backwards = {canonical: float(index) for index, (canonical, _) in enumerate(plan.todo)}
        run = fill(store, small_plan(store, sample=20, chunk_size=5), costs=backwards)
    finally:
        torch.set_num_threads(threads)
    assert exact_table(store, run) == exact_table(reference, run)


def test_a_part_has_the_eight_columns_as_doubles_and_small_bookkeeping(filled):
    store, plan = filled
    types = dict(catalog.connect(store).execute("SELECT column_name, column_type FROM (DESCRIBE metrics)").fetchall())
    assert [types.pop(name) for name in COLUMNS] == ["DOUBLE"] * 8
    assert types == {
        "run": "VARCHAR", "canonical": "VARCHAR", "status": "VARCHAR", "seconds": "FLOAT", "ntk_row": "INTEGER",
    }  # fmt: skip
    assert {row["status"] for row in metrics_of(store, plan.settings.id)} <= {"ok", "constant", "nonfinite"}
    assert all(0 < row["seconds"] < 60 for row in metrics_of(store, plan.settings.id))


def test_keeping_freed_memory_changes_no_result(filled, small_plan):
    store, plan = filled
    batch = worker.batch_tensors(job_of(store, plan), (plan.batch.images, plan.batch.labels))
    keep_freed_memory()
    keep_freed_memory()
    by_class = exact_table(store, plan.settings.id)
    for canonical, arch in plan.todo[:3]:
        columns = worker.measure(job_of(store, plan), arch, batch).columns()
        assert tuple(value.hex() for value in columns.values()) == by_class[canonical][:8]


def test_a_failing_network_is_reported_with_its_architecture(filled, monkeypatch):
    store, plan = filled
    batch = worker.batch_tensors(job_of(store, plan), (plan.batch.images, plan.batch.labels))
    arch = plan.todo[0][1]
    with pytest.raises(HnasError) as error:
        worker.measure(job_of(store, plan), arch, batch._replace(images=batch.images[:, :1]))
    assert str(error.value).startswith(f"the metrics of {arch} could not be computed: ")
    assert "\n" not in str(error.value)


def test_the_exact_ntk_is_another_run_in_the_same_store(store, digits: ImageDataset):
    for ntk in ("summed", "exact"):
        fill(store, make_plan(store, SPACE, digits, sample=4, chunk_size=4, ntk=ntk, **SIZE))
    rows = catalog.connect(store).execute("SELECT ntk, count(*) FROM runs JOIN pool USING (run) GROUP BY ntk")
    assert sorted(rows.fetchall()) == [("exact", 4), ("summed", 4)]
