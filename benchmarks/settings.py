"""The study behind the defaults of HNAS's search: docs/paper.md, "How the defaults were chosen".

    python benchmarks/settings.py --nasbench101 FOLDER --accuracies test-accuracy.parquet
        --nasbench301 FOLDER --suite-zero zc_nasbench301.json --results results.jsonl

FOLDER is a store with one run of the space: the NAS-Bench-101 table that ships, and one that `hnas precompute darts
--architectures FILE --dataset cifar10` made of the 250 cells. All searches of one combination of settings run side by
side: their Gaussian processes are small matrices, factored as one array, with the length scale of the greatest
likelihood among seven and the acquisition's maximum among 512 points. Results are kept by settings, so that the study
goes on where it stopped.
"""

from __future__ import annotations

import argparse
import ast
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow.dataset as arrow
from scipy.special import ndtr, ndtri
from scipy.stats import rankdata

from hnas.optim.objective import Array, objective
from hnas.optim.proposer import latin_hypercube
from hnas.spaces import key_of, search_spaces

METRICS = ("grad_norm", "snip", "grasp", "trace")
SIGMAS = (0.0, 0.3, 0.6)
SEEDS = tuple(range(1000, 1020))
QUERIES = 20
CANDIDATES = 512
GRID = 24
CORNERS = np.array([(1.0, 1.0), (1.0, 0.0), (0.0, 1.0), (0.0, 0.0)])


@dataclass(frozen=True)
class Settings:
    """What the protocol varies; the defaults are those that it began with.

    It chose `lengths` (0.1, 0.1) and `alpha` 1.
    """

    answers: str = "raw"
    mu: tuple[float, float] = (-1.5, 1.5)
    nu: str = "quantile"
    lengths: tuple[float, float] = (0.05, 0.3)
    alpha: float = 0.1
    initial: int = 5
    corners: bool = False
    acquisition: str = "ei"
    t: float = 1.0
    interleave: str = "none"
    kernel: str = "points"


# The stages of the protocol: the alternatives to what stands, as changes of it.
LENGTHS = ((0.05, 0.3), (0.1, 1.0), (0.2, 2.0), (0.1, 0.1))
STAGES: dict[str, list[dict[str, object]]] = {
    "answers": [{"answers": value} for value in ("raw", "ranks")],
    "mu": [{"mu": value} for value in ((-1.5, 1.5), (-1.0, 1.0), (-2.0, 2.0), (-3.0, 3.0), (-3.0, 1.0))],
    "nu": [{"nu": value} for value in ("quantile", "top", "log", "beyond")],
    "process": [{"lengths": a, "alpha": b} for a, b in itertools.product(LENGTHS, (0.1, 0.01, 0.3, 1.0))],
    "initial": [{"initial": a, "corners": b} for b, a in itertools.product((False, True), (5, 3, 8, 10))],
    "acquisition": [{"acquisition": value} for value in ("ei", "plug-in", "ucb", "ucb1", "poi")],
    "t": [{"t": value} for value in (1.0, 0.5, 2.0)],
    "interleave": [{"interleave": value} for value in ("none", "best", "uniform", "half")],
    "kernel": [{"kernel": a, "lengths": b} for a, b in itertools.product(("points", "ranks"), LENGTHS)],
}


class Problem:
    """One pool with one metric: `m`, `kappa`, `truth` (n,), usable rows only."""

    def __init__(self, m: Array, kappa: Array, truth: Array) -> None:
        self.m, self.kappa, self.truth = m, kappa, truth
        n = len(m)
        self.ranks = np.stack([(rankdata(m) - 0.5) / n, (rankdata(kappa) - 0.5) / n], axis=1)
        self._tables: dict[str, tuple[Array, Array, Array]] = {}
        self._lists: dict[tuple[object, ...], Array] = {}

    @cached_property
    def squares(self) -> Array:
        return np.sort(self.m**2)

    def nu(self, u: Array, scale: str) -> Array:
        """ν at the second coordinate of a point."""
        if scale == "top":
            u = 1 - (1 - u) ** 2
        if scale == "log":
            low, high = np.log(self.squares[[0, -1]])
            return np.asarray(np.exp(low + (high - low) * u))
        if scale == "beyond":
            inside = np.quantile(self.squares, np.minimum(u / 0.8, 1.0))
            return np.asarray(inside * 10 ** np.maximum((u - 0.8) / 0.2, 0.0))
        return np.quantile(self.squares, u)

    def point(self, x: Array, settings: Settings) -> tuple[Array, Array]:
        """(μ, ν), each (b,), at points x (b, 2) of the unit square, as `SearchRange` has them."""
        if settings.nu not in self._tables:
            grid = np.linspace(0, 1, 501)
            middle = np.median(np.abs(self.squares - self.nu(grid, settings.nu)[:, None]), axis=1)
            self._tables[settings.nu] = grid, middle, np.median(self.kappa / self.m)
        grid, middle, ratio = self._tables[settings.nu]
        low, high = settings.mu
        penalty = np.interp(x[:, 1], grid, middle) ** (2 * settings.t)
        return 10 ** (low + (high - low) * x[:, 0]) * ratio / penalty, self.nu(x[:, 1], settings.nu)

    def values(self, x: Array, settings: Settings) -> Array:
        """Eq. (7) at each point for each architecture (b, n)."""
        mu, nu = self.point(x, settings)
        return objective(self.m, self.kappa, mu=mu[:, None], nu=nu[:, None], t=settings.t)

    def lists(self, settings: Settings) -> Array:
        """The first minimisers (GRID², QUERIES) of (7) at the points of a grid."""
        key = settings.mu, settings.nu, settings.t
        if key in self._lists:
            return self._lists[key]
        axis = np.linspace(0, 1, GRID)
        x = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
        found = []
        for part in np.array_split(x, 8):
            values = self.values(part, settings)
            first = np.argpartition(values, QUERIES, axis=1)[:, :QUERIES]
            found.append(np.take_along_axis(first, np.argsort(np.take_along_axis(values, first, 1), axis=1), 1))
        self._lists = {key: np.concatenate(found)}
        return self._lists[key]


class Study:
    """All searches of a combination: one for each problem, noise and seed."""

    def __init__(self, pools: dict[str, list[list[Problem]]], seeds: Sequence[int]) -> None:
        self.seeds = np.array(seeds)
        self.problems: list[Problem] = []
        self.rows: list[Array] = []  # the searches of each problem
        self.signals: list[Array] = []
        group, seed_of, sigma_of = [], [], []
        self.random: list[Array] = []
        for name, parts in pools.items():
            for part, problems in enumerate(parts):
                mine = [s for s in seeds if s % len(parts) == part]
                normal = {s: np.random.default_rng(s).standard_normal(len(problems[0].truth)) for s in mine}
                random = {sigma: _random_regret(problems[0].truth, sigma) for sigma in SIGMAS}
                for problem in problems:
                    searches = list(itertools.product(SIGMAS, mine))
                    first = len(group)
                    self.problems.append(problem)
                    self.rows.append(np.arange(first, first + len(searches)))
                    self.signals.append(np.array([problem.truth + sigma * normal[s] for sigma, s in searches]))
                    self.random += [random[sigma] for sigma, _ in searches]
                    group += [name] * len(searches)
                    seed_of += [s for _, s in searches]
                    sigma_of += [sigma for sigma, _ in searches]
        self.group, self.seed_of, self.sigma_of = np.array(group), np.array(seed_of), np.array(sigma_of)

    def run(self, settings: Settings) -> Array:
        """Regret over that of random search (searches, 2) after 10 and 20 queries."""
        count = len(self.group)
        first = {s: self._first(settings, s) for s in self.seeds}
        x, features = np.empty((count, QUERIES, 2)), np.empty((count, QUERIES, 2))
        y, truth = np.empty((count, QUERIES)), np.empty((count, QUERIES))
        taken = [np.zeros(signal.shape, dtype=bool) for signal in self.signals]
        for k in range(QUERIES):
            chosen = None
            step = self._step(settings, k)
            if step == "initial":
                x[:, k] = np.array([first[s][k] for s in self.seed_of])
            elif step == "best":
                x[:, k] = x[np.arange(count), y[:, :k].argmax(1)]
            elif step == "uniform":
                draws = {s: np.random.default_rng((s, k, 1)).random(2) for s in self.seeds}
                x[:, k] = np.array([draws[s] for s in self.seed_of])
            else:
                known = features if settings.kernel == "ranks" else x
                if settings.kernel == "ranks":
                    chosen, candidates = self._reachable(settings, taken)
                else:
                    draws = {s: np.random.default_rng((s, k)).random((CANDIDATES, 2)) for s in self.seeds}
                    candidates = np.array([draws[s] for s in self.seed_of])
                best = propose(known[:, :k], y[:, :k], candidates, settings)
                x[:, k] = candidates[np.arange(count), best]
                if chosen is not None:
                    chosen = chosen[np.arange(count), best]
                    axis = np.linspace(0, 1, GRID)
                    x[:, k] = np.stack([axis[best // GRID], axis[best % GRID]], axis=1)
            for p, problem in enumerate(self.problems):
                rows = self.rows[p]
                if chosen is None:
                    arch = np.where(taken[p], np.inf, problem.values(x[rows, k], settings)).argmin(1)
                else:
                    arch = chosen[rows]
                own = np.arange(len(rows))
                taken[p][own, arch] = True
                y[rows, k], truth[rows, k] = self.signals[p][own, arch], problem.truth[arch]
                features[rows, k] = problem.ranks[arch]
        highest = np.empty(count)
        for p, problem in enumerate(self.problems):
            highest[self.rows[p]] = problem.truth.max()
        found = [truth[np.arange(count), y[:, :n].argmax(1)] for n in (10, QUERIES)]
        return np.stack([(highest - winner) for winner in found], axis=1) / np.array(self.random)

    def _first(self, settings: Settings, seed: int) -> Array:
        points = latin_hypercube(settings.initial, 2, np.random.default_rng(seed))
        if settings.corners:
            points[:4] = CORNERS[: settings.initial]
        return points

    def _step(self, settings: Settings, k: int) -> str:
        after = k - settings.initial
        if after < 0:
            return "initial"
        if settings.interleave in ("best", "uniform") and after % 3 == 2:
            return settings.interleave
        if settings.interleave == "half" and k >= QUERIES // 2 and k % 2:
            return "best"
        return "process"

    def _reachable(self, settings: Settings, taken: list[Array]) -> tuple[Array, Array]:
        """What each point of the grid proposes now (searches, GRID²), and its ranks (searches, GRID², 2)."""
        count = len(self.group)
        archs, ranks = np.empty((count, GRID**2), dtype=int), np.empty((count, GRID**2, 2))
        for p, problem in enumerate(self.problems):
            lists = problem.lists(settings)
            for row, gone in zip(self.rows[p], taken[p], strict=True):
                archs[row] = lists[np.arange(len(lists)), gone[lists].argmin(1)]
                ranks[row] = problem.ranks[archs[row]]
        return archs, ranks

    def scores(self, settings: Settings) -> dict[str, list[float]]:
        """By seed: `score` S, and `nasbench101`, `nasbench301`, its parts; and means by pool, queries and σ."""
        regret = self.run(settings)
        both = (2 * regret[:, 1] + regret[:, 0]) / 3
        mean = {
            (name, s): both[(self.group == name) & (self.seed_of == s)].mean() for name in "ABC" for s in self.seeds
        }
        nb101 = [(mean["A", s] + mean["B", s]) / 2 for s in self.seeds]
        nb301 = [mean["C", s] for s in self.seeds]
        cells = {
            f"{name}{n} {sigma}": [regret[(self.group == name) & (self.sigma_of == sigma), i].mean()]
            for name, (i, n), sigma in itertools.product("ABC", enumerate((10, QUERIES)), SIGMAS)
        }
        return {
            "score": [(a + b) / 2 for a, b in zip(nb101, nb301, strict=True)],
            "nasbench101": nb101,
            "nasbench301": nb301,
            **cells,
        }


def propose(x: Array, y: Array, candidates: Array, settings: Settings) -> Array:
    """The candidate (b,) of the highest acquisition, for b searches: x (b, k, d), y (b, k), candidates (b, c, d)."""
    if settings.answers == "ranks":
        y = ndtri((rankdata(y, axis=1) - 0.5) / y.shape[1])
    mean, deviation = y.mean(1, keepdims=True), y.std(1, keepdims=True)
    deviation = np.where(deviation > 0, deviation, 1.0)
    y = (y - mean) / deviation
    apart = np.linalg.norm(x[:, :, None] - x[:, None], axis=-1)
    low, high = settings.lengths
    lengths = np.unique(np.geomspace(low, high, 7)) if low < high else np.array([low])
    eye = np.eye(y.shape[1])
    likelihoods = []
    for length in lengths:
        factor = np.linalg.cholesky(matern(apart / length) + settings.alpha * eye)
        z = np.linalg.solve(factor, y[..., None])[..., 0]
        logs = np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(1)
        likelihoods.append(-0.5 * (z**2).sum(1) - logs)
    length = lengths[np.argmax(likelihoods, axis=0)][:, None, None]
    covariance = matern(apart / length)
    inverse = np.linalg.inv(np.linalg.cholesky(covariance + settings.alpha * eye))
    weights = np.swapaxes(inverse, 1, 2) @ (inverse @ y[..., None])
    squared = (candidates**2).sum(-1)[:, :, None] + (x**2).sum(-1)[:, None] - 2 * candidates @ np.swapaxes(x, 1, 2)
    cross = matern(np.sqrt(np.maximum(squared, 0)) / length)
    expected = (cross @ weights)[..., 0]
    spread = np.sqrt(np.maximum(1 - ((cross @ np.swapaxes(inverse, 1, 2)) ** 2).sum(-1), 1e-12))
    if settings.acquisition in ("ucb", "ucb1"):
        return (expected + (2.576 if settings.acquisition == "ucb" else 1.0) * spread).argmax(1)
    top = y.max(1, keepdims=True)
    if settings.acquisition == "plug-in":
        top = (covariance @ weights)[..., 0].max(1, keepdims=True)
    if settings.acquisition == "poi":
        return ((expected - top - 0.01 / deviation) / spread).argmax(1)
    gain = expected - top
    z = gain / spread
    return (gain * ndtr(z) + spread * np.exp(-z * z / 2) / np.sqrt(2 * np.pi)).argmax(1)


def matern(distance: Array) -> Array:
    """Matérn 5/2 of distances in length scales."""
    scaled = np.sqrt(5) * distance
    return np.asarray((1 + scaled + scaled**2 / 3) * np.exp(-scaled))


def choose(study: Study, results: Path, passes: int) -> Settings:
    """Run the protocol, print a line for each combination, and return the settings chosen."""
    known: dict[str, dict[str, list[float]]] = {}
    if results.exists():
        known = dict(map(json.loads, results.read_text().splitlines()))

    def scored(settings: Settings) -> dict[str, list[float]]:
        key = json.dumps(asdict(settings))
        if key not in known:
            known[key] = study.scores(settings)
            with results.open("a") as file:
                file.write(json.dumps([key, known[key]]) + "\n")
        return known[key]

    now = Settings()
    for number, (stage, changes) in itertools.product(range(1, passes + 1), STAGES.items()):
        base = scored(now)
        print(f"pass {number}, {stage}: S = {np.mean(base['score']):.3f} with {asdict(now)}", flush=True)
        tried = []
        for change in changes:
            other = replace(now, **change)  # type: ignore[arg-type]
            if other != now:
                found = scored(other)
                tried.append((float(np.mean(found["score"])), len(tried), other))
                print(f"    {change}: {_beside(found, base)}", flush=True)
        for score, _, other in sorted(tried):
            if accepted(scored(other), base, 0.03 if other.kernel != now.kernel else 0.0):
                print(f"  taken: {score:.3f} {asdict(other)}", flush=True)
                now = other
                break
    return now


def accepted(found: dict[str, list[float]], base: dict[str, list[float]], least: float) -> bool:
    """The protocol's rule: better by two standard errors over the seeds, and clearly worse on neither table."""
    gain, error = _difference(base["score"], found["score"])
    losses = (_difference(found[name], base[name]) for name in ("nasbench101", "nasbench301"))
    return gain > 2 * error and gain >= least and all(loss <= 2 * its for loss, its in losses)


def _difference(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    apart = np.subtract(a, b)
    return float(apart.mean()), float(apart.std(ddof=1) / np.sqrt(len(apart)))


def _beside(found: dict[str, list[float]], base: dict[str, list[float]]) -> str:
    parts = [f"{name} {np.mean(found[name]):.3f}" for name in ("score", "nasbench101", "nasbench301")]
    gain, error = _difference(base["score"], found["score"])
    return f"{', '.join(parts)}; better by {gain:.3f} ± {error:.3f}"


def _random_regret(truth: Array, sigma: float, draws: int = 4000) -> Array:
    """The mean regret (2,) of the best signal of 10 and 20 random draws."""
    random = np.random.default_rng(7)
    picked = np.array([random.choice(len(truth), QUERIES, replace=False) for _ in range(draws)])
    signal = truth[picked] + sigma * random.standard_normal(picked.shape)
    winners = [truth[picked[np.arange(draws), signal[:, :n].argmax(1)]] for n in (10, QUERIES)]
    return np.array([truth.max() - winner.mean() for winner in winners])


def read_pool(store: Path, truth: dict[str, float]) -> list[Problem]:
    """The problems of a store's run, one for each metric, of the architectures that have a truth."""
    names = arrow.dataset(next(store.glob("architectures/*"))).to_table(["arch", "canonical"]).to_pylist()
    rows = arrow.dataset(next(store.glob("runs/*/metrics"))).to_table().to_pylist()
    of = {row["canonical"]: row for row in rows}
    usable = []
    for name in sorted(names, key=lambda name: name["arch"]):
        row = of.get(name["canonical"])
        if name["arch"] in truth and row and row["kappa"] and np.isfinite(row["kappa"]) and row["kappa"] > 0:
            usable.append((row, truth[name["arch"]]))
    kappa, accuracy = np.array([row["kappa"] for row, _ in usable]), np.array([value for _, value in usable])
    return [Problem(np.abs([row[metric] for row, _ in usable]), kappa, accuracy) for metric in METRICS]


def pools(options: argparse.Namespace) -> Iterator[tuple[str, list[list[Problem]]]]:
    """The protocol's pools: A, B in five parts, C."""
    table = arrow.dataset(options.accuracies).to_table(["arch", "test_accuracy"])
    truth = dict(zip(table["arch"].to_pylist(), table["test_accuracy"].to_pylist(), strict=True))
    whole = read_pool(options.nasbench101, truth)
    yield "A", [whole]
    fifths = np.array_split(np.random.default_rng(0).permutation(len(whole[0].m)), 5)
    yield "B", [[Problem(p.m[part], p.kappa[part], p.truth[part]) for p in whole] for part in fifths]
    entries = json.loads(options.suite_zero.read_text())["nasbench301"]["cifar10"]
    space = search_spaces["darts"]
    told = {key_of(space, space.from_suite_zero(ast.literal_eval(name))): name for name in entries}  # type: ignore[attr-defined]
    yield "C", [read_pool(options.nasbench301, {arch: entries[name]["val_accuracy"] for arch, name in told.items()})]


def main() -> None:
    """Print every combination's score and the choice."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("nasbench101", "accuracies", "nasbench301", "suite-zero", "results"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--passes", type=int, default=2)
    options = parser.parse_args()
    study = Study(dict(pools(options)), SEEDS)
    print(f"{len(study.group)} searches a combination", flush=True)
    print(f"chosen: {asdict(choose(study, options.results, options.passes))}")


if __name__ == "__main__":
    main()
