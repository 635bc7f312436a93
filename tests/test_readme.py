"""The commands of the README and of docs pages print the output shown, up to numbers and times."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import chdir
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from hnas.pipeline.analysis.ranks import spearman
from hnas.pipeline.catalog.views import connect
from hnas.pipeline.store.store import Store
from hnas.spaces import search_spaces
from tests.support import nasbench101_files, nasbench201_files, nats_bench_files
from tests.support.command_line import hnas
from tests.support.places import ROOT
from tests.support.runs import metrics_of
from tests.support.stores import make_store

pytestmark = pytest.mark.slow

README = (ROOT / "README.md").read_text(encoding="utf-8")
SMALL = "hnas precompute nasbench201 --dataset digits --sample 8 --channels 4 --cells 1 --workers 1"

IMPORTS = re.findall(r"^\$ (hnas import .*)$", README.split("\n## Import\n")[1].split("\n## ")[0], re.M)


def commands(blocks: list[str]) -> list[tuple[str, str]]:
    """Each `$ command` in the blocks, with the output below it."""
    found = []
    for block in blocks:
        for part in re.split(r"^\$ ", re.sub(r"\\\n\s*", "", block), flags=re.M)[1:]:
            command, _, output = part.partition("\n")
            found.append((command, output.strip()))
    return found


def run(command: str, store: Path, *, merged: bool = False, **variables: str) -> str:
    """The standard output of a command line, `merged` with its standard error if asked; `hnas` runs in this process."""
    name, *arguments = shlex.split(command)
    environment = {**os.environ, "HNAS_STORE": str(store), "COLUMNS": "200", **variables}
    del environment["HNAS_TABLES"]  # use the shipped tables, as a reader does
    if name == "hnas":
        with chdir(store.parent), mock.patch.dict(os.environ, environment, clear=True):
            done = hnas(*arguments, merged=merged)
        assert done.status == 0, done.err or done.out
        return done.out
    shown = subprocess.run([name, *arguments], env=environment, capture_output=True, text=True, cwd=store.parent)
    assert shown.returncode == 0, shown.stderr
    return shown.stdout


def masked(text: str) -> str:
    """The text without what varies between machines and runs: numbers, names of searches, architectures."""
    text = re.sub(r"(search |latency-)[0-9a-f]{8,10}\b", r"\1ID", text)
    text = re.sub(r"^(device +)[^,]+", r"\1CPU", text, flags=re.M)
    text = re.sub(r"\|[a-z_0-9~|+]+\|", "ARCH", text)
    text = re.sub(r"[-+]?\d[\d,]*(\.\d+)?(e[+-]?\d+)?", "#", text)
    text = re.sub(r"# min # s|# h # min|# s\b", "TIME", text)
    return re.sub(r"[ ─]+", " ", text).strip()


def test_the_story_from_images_to_a_model_prints_the_output_shown(tmp_path: Path):
    made: list[str] = []
    story = README.split("\n## On CIFAR-10")[0]
    for kind, block in re.findall(r"^```(python|console)\n(.*?)^```", story, re.M | re.S):
        if kind == "python":
            program = [sys.executable, "-c", block]
            made.append(subprocess.run(program, capture_output=True, text=True, check=True, cwd=tmp_path).stdout)
        for command, output in commands([block]) if kind == "console" else ():
            if output:
                made.append(run(command, tmp_path / "store"))
                assert masked(made[-1]) == masked(output), command
    *_, labels, loaded, _, _ = made
    right = [image == label for image, label in re.findall(r"^new/\d+-a-(\d)\.png +(\d) ", labels, re.M)]
    assert len(right) == 6
    assert sum(right) >= 5
    accuracy, label = loaded.split()
    assert float(accuracy) > 85
    assert label == "0"


def test_the_demo_shows_commands_of_the_readme_and_only_its_own_rows():
    demo = (ROOT / "docs/demo.sh").read_text(encoding="utf-8")
    assert "\nexport HNAS_TABLES=\n" in demo
    shown = re.findall(r"^show '(hnas (?!info).*)'$", demo, re.M)
    assert len(shown) == 4
    assert all(f"\n$ {command}\n" in README for command in shown)


def test_the_commands_of_the_store_page_run(tmp_path: Path):
    run(SMALL, tmp_path / "store")
    page = (ROOT / "docs/store.md").read_text(encoding="utf-8")
    cells = search_spaces["nasbench201"].sample(6, seed=3)
    (tmp_path / "list.txt").write_text("\n".join(cells))
    shown = commands(re.findall(r"^```console\n(.*?)^```", page, re.M | re.S))
    assert len(shown) == 18
    measured = dict.fromkeys([*cells, *search_spaces["nasbench201"].sample(8, seed=0)])
    latencies = "".join(f"{arch},{number}\n" for number, arch in enumerate(measured))
    (tmp_path / "hw-nas-bench-cifar10.csv").write_text(f"arch,pixel3_latency\n{latencies}")
    for command, _ in shown:
        run(f"{command} --workers 1" if " precompute " in command else command, tmp_path / "store")
    assert (tmp_path / "pool.parquet").exists()


@pytest.mark.skipif("HNAS_TEST_DATA" not in os.environ, reason="HNAS_TEST_DATA is unset: real data are needed")
def test_the_commands_of_the_search_page_print_the_output_shown(tmp_path: Path):
    """Uses two seeds instead of twenty (their numbers differ), one process, and fewer passes for a latency."""
    shorter = {"--seeds 20": "--seeds 2 --workers 1", "hnas latency": "hnas latency --repeats 5"}
    for name in ("hp12-validation", "three-data-sets-200-epochs", "hw-nas-bench-cifar10"):
        file = Path(os.environ["HNAS_TEST_DATA"], "nasbench201", f"{name}.csv")
        (tmp_path / file.name).symlink_to(file)
    run(SMALL, tmp_path / "store")
    page = (ROOT / "docs/search.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"^```python\n(# train\.py\n.*?)^```", page, re.M | re.S)
    (tmp_path / "train.py").write_text(program)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for command, output in commands(re.findall(r"^```console\n(.*?)^```", page, re.M | re.S)):
        for part, other in shorter.items():
            command = command.replace(part, other)
        shown = run(command, tmp_path / "store", merged=True, PATH=path)
        if output and " compare " not in command:
            # The page leaves out the progress messages of a slow machine.
            shown = re.sub(r"^measuring: .*\n", "", shown, flags=re.M)
            assert masked(shown.strip()) == masked(output)
    assert (tmp_path / "front.pdf").exists()
    rivals = (ROOT / "docs/paper.md").read_text(encoding="utf-8").split("\n## Beside its rivals\n")[1]
    (block,) = re.findall(r"^```bash\n(.*?)^```", rivals, re.M | re.S)
    shown = "".join(
        run(re.sub(r"--seeds \d+", "--seeds 1 --workers 1", command), tmp_path / "store")
        for command in block.replace("\\\n", "").splitlines()
    )
    for method in ("top:flops", "top:params", "regressor", "regressor:forest"):
        assert re.search(rf"^{method} +94\.36 +73\.51 +46\.34 ", shown, re.M)
    assert re.search(r"^naswot:meco .* training-free", shown, re.M)


def test_the_python_examples_of_the_search_page_run(tmp_path: Path):
    page = (ROOT / "docs/search.md").read_text(encoding="utf-8")
    _, oracle, example, method = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    done = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "b 92.5\n"
    # The module and its entry points, as pip installs them.
    entries = re.findall(r"^```toml\n\[project\.entry-points\.\"(.*?)\"\]\n(.*?)^```", page, re.M | re.S)
    assert [group for group, _ in entries] == ["hnas.oracles", "hnas.methods"]
    (tmp_path / "my_package.py").write_text(method + oracle.split("\nresult =")[0])
    (tmp_path / "my_package-1.dist-info").mkdir()
    (tmp_path / "my_package-1.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1\n")
    points = "".join(f"[{group}]\n{names}" for group, names in entries).replace('"', "")
    (tmp_path / "my_package-1.dist-info/entry_points.txt").write_text(points)
    environment = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    command = f"{sys.executable} -m hnas.cli"
    made = make_store(tmp_path, architectures=20)
    store = Path(made.root)
    shown = run(f"{command} search nasbench201 --method smallest --queries 3 --json --quiet", store, **environment)
    params = dict(connect(made).execute("SELECT arch, params FROM pool").fetchall())
    asked = [params[query["arch"]] for query in json.loads(shown)["queries"]]
    assert asked == sorted(params.values())[:3]
    shown = run(f"{command} compare nasbench201 --methods smallest,random --queries 3 --seeds 2", store, **environment)
    assert re.search(r"^smallest .* training-free", shown, re.M)
    shown = run(f"{command} search nasbench201 --oracle accuracy --queries 5 --json --quiet", store, **environment)
    best = json.loads(shown)["best"]
    variables = {**os.environ, "HNAS_STORE": str(store)}
    done = subprocess.run([sys.executable, "-c", oracle], capture_output=True, text=True, check=True, env=variables)
    assert done.stdout == f"{best['performance']} {best['arch']}\n"


@pytest.mark.skipif("HNAS_TEST_DATA" not in os.environ, reason="HNAS_TEST_DATA is unset: real data are needed")
def test_the_shipped_spectra_and_scores_have_the_documented_correlations(tmp_path: Path):
    data = Path(os.environ["HNAS_TEST_DATA"])
    page = (ROOT / "docs/definitions.md").read_text(encoding="utf-8").split("\n## Further scores of Θ₀\n")[1]
    rows = re.findall(r"^\| (`.*`) \| (-?\d\.\d\d) \| (-?\d\.\d\d) \|$", page, re.M)
    assert len(rows) == 7
    shutil.copytree(ROOT / "data/tables/nasbench201-cifar10", tmp_path / "store")
    run(f"hnas import csv {data}/nasbench201/cifar10-test-accuracy.csv", tmp_path / "store")
    query = "SELECT * FROM pool JOIN scores USING (run, canonical) WHERE run = (SELECT run FROM runs WHERE seed = 0)"
    table = connect(Store(str(tmp_path / "store"))).execute(query).fetchnumpy()
    alive = table["status"] == "ok"
    assert len(alive) == 15625
    for names, *shown in rows:
        for name in re.findall(r"`(\w+)`", names):
            found = [spearman(table[name][kept], table["test_accuracy"][kept]) for kept in (slice(None), alive)]
            assert [f"{value:.2f}" for value in found] == shown, name

    page = (ROOT / "docs/scores.md").read_text(encoding="utf-8").split("\n### On all of NAS-Bench-201\n")[1]
    scores = re.findall(r"^\| `(\w+)` \| (-?\d\.\d\d) \| (-?\d\.\d\d) \| (-?\d\.\d\d) \|", page, re.M)
    assert len(scores) == 16
    convolution = np.array(["conv" in name for name in table["canonical"]])
    whole = convolution & ~np.array(["none" in name for name in table["arch"]])
    assert (convolution.sum(), whole.sum()) == (13642, 4032)
    for name, *shown in scores:
        values = np.ma.filled(table[name].astype(float), np.nan)
        kept = [np.isfinite(values), convolution, whole]
        found = [spearman(values[rows], table["test_accuracy"][rows]) for rows in kept]
        assert [f"{value:.2f}" for value in found] == shown, name


@pytest.mark.skipif("HNAS_TEST_DATA" not in os.environ, reason="HNAS_TEST_DATA is unset: real data are needed")
def test_the_commands_on_the_shipped_table_give_the_numbers_of_the_page(tmp_path: Path):
    data = Path(os.environ["HNAS_TEST_DATA"])
    (tmp_path / "cifar10-test-accuracy.csv").write_bytes((data / "nasbench201/cifar10-test-accuracy.csv").read_bytes())
    page = (ROOT / "docs/paper.md").read_text(encoding="utf-8")
    block, _ = re.findall(r"^```bash\n(.*?)^```", page, re.M | re.S)
    *_, text = [run(command, tmp_path / "store") for command in block.splitlines()]
    table, _ = page.split("\n## Table 3", 1)
    rows = re.findall(r"^\| (\w+) \| (\d.*\(.*) \|$", table, re.M)
    assert len(rows) == 4
    for metric, row in rows:
        shown = re.findall(r"(\d\.\d\d) \(", row)
        four = r" +(\d\.\d\d)" * 4
        rho, boosted_rho, tau, boosted_tau = re.findall(rf"^{metric}{four} +\d.*e", text, re.M)[-1]
        assert [rho, tau, boosted_rho, boosted_tau] == shown, metric
    assert re.findall(r"^\| (\w+) \| (\d.*\(.*) \|$", README, re.M) == rows


@pytest.mark.skipif("HNAS_TEST_DATA" not in os.environ, reason="HNAS_TEST_DATA is unset: real data are needed")
def test_every_store_can_use_the_shipped_tables(tmp_path: Path):
    data = Path(os.environ["HNAS_TEST_DATA"])
    store = tmp_path / "store"
    run(f"hnas import csv {data}/nasbench201/cifar10-test-accuracy.csv", store)
    found = json.loads(run("hnas search nasbench201 --metric trace --json", store))
    assert found["best"]["performance"] > 94.2
    assert len(found["queries"]) == 20
    counted = run(
        "hnas sql 'SELECT space, seed, count(*) AS n FROM pool JOIN runs USING (run, space) GROUP BY ALL' --format csv",
        store,
    )
    shipped = {f"nasbench201,{seed},15625" for seed in range(4)} | {"nasbench101,0,5000", "darts,0,2000"}
    assert shipped <= set(counted.split())


@pytest.mark.skipif("HNAS_TEST_DATA" not in os.environ, reason="HNAS_TEST_DATA is unset: real data are needed")
def test_the_commands_on_cifar10_run_at_a_small_size(tmp_path: Path):
    data = Path(os.environ["HNAS_TEST_DATA"])
    folder = data / "nasbench201/NATS-tss-v1_0-3ffb9-simple"
    (tmp_path / folder.name).symlink_to(folder)
    trained = [  # the files of the benchmark in the folder
        "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|",
        "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|none~0|nor_conv_3x3~1|avg_pool_3x3~2|",
        "|skip_connect~0|+|skip_connect~0|skip_connect~1|+|none~0|nor_conv_1x1~1|none~2|",
    ]
    (tmp_path / "three.txt").write_text("\n".join(trained))
    page = README.split("\n## On CIFAR-10")[1]
    quiet = [command for command, _ in commands(re.findall(r"^```console\n(.*?)^```", page, re.M | re.S))]
    assert [command.split()[1] for command in quiet] == ["precompute", "import", "correlate", "search", "compare"]
    for command in quiet:
        small = " --architectures three.txt --channels 4 --cells 1 --workers 1" if " precompute " in command else ""
        assert run(command + small, tmp_path / "store", HNAS_DATA=str(data))


@pytest.mark.skipif("HNAS_TEST_DATA" not in os.environ, reason="HNAS_TEST_DATA is unset: real data are needed")
def test_the_commands_of_every_import_run(tmp_path: Path):
    assert [command.split()[2] for command in IMPORTS] == [
        "nasbench101",
        "nasbench201",
        "nats-bench",
        "suite-zero",
        "csv",
        "columns",
    ]
    files = [tmp_path / command.split()[3] for command in IMPORTS]
    files[0].write_bytes(nasbench101_files.framed(*(nasbench101_files.training(k) for k in range(4))))
    nasbench201_files.save(files[1], nasbench201_files.content())
    nats_bench_files.make_folder(files[2])
    shutil.copy(Path(os.environ["HNAS_TEST_DATA"]) / "nasbench201" / files[3].name, files[3])
    files[4].write_text(
        "arch,dataset,test_accuracy\n|none~0|+|none~0|none~1|+|none~0|none~1|skip_connect~2|,cifar10,10\n"
    )
    files[5].write_text("arch,latency\n|none~0|+|none~0|none~1|+|none~0|none~1|skip_connect~2|,10\n")
    for command in IMPORTS:
        assert run(command, tmp_path / "store").startswith("imported: ")


def test_the_python_example_runs(tmp_path: Path):
    (example,) = re.findall(r"^```python\n(.*?)^```", README.split("\n## From Python\n")[1], re.M | re.S)
    done = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 6 + 1


def test_the_python_example_of_the_store_page_pairs_spectra_with_rows(filled):
    store, plan = filled
    page = (ROOT / "docs/store.md").read_text(encoding="utf-8")
    example, _ = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    program = example.replace("data/store", store.root).replace("194444ec57", plan.settings.id)
    assert program != example
    program += "print(pool.num_rows, len(eigenvalues), (eigenvalues[:, -1] > 0).sum())\n"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    rows = [row for row in metrics_of(store, plan.settings.id) if row["trace"] > 0]
    assert done.stdout.split() == [str(len(plan.requested)), str(len(plan.todo)), str(len(rows))]
