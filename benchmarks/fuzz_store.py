"""Damage the files of a small store at random, and hold what the commands then say against what they said before.

    python benchmarks/fuzz_store.py [--count 2000] [--seed 0] [--kind metrics]

For each kind of file, `--count` damages: a flipped bit, another byte, a run of zeros, a cut end, two files of the kind
exchanged, a file doubled under another name, a file gone, a symbolic link in its place, foreign content, foreign JSON.
After each, every view is read, and the commands that people use run. Right is one of two: the output of before, or
exit status 1 or 2 with one sentence. Wrong are a traceback, an error that was not foreseen, another number without a
word, a file outside the store that was touched, and a hang.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from hnas import cli  # noqa: E402

VIEWS = (
    "runs", "architectures", "requests", "metrics", "accuracies", "curves", "proxies", "spectra", "grams", "scores",
    "searches", "queries", "comparisons",
)  # fmt: skip
#: The kinds of files by pattern, and the views that show what they hold.
KINDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "store.json": ("store.json", ("runs",)),
    "run.json": ("runs/*/run.json", ("runs", "pool")),
    "batch": ("runs/*/batch.npz", ()),
    "requests": ("runs/*/requests/*.parquet", ("requests", "pool")),
    "metrics": ("runs/*/metrics/*.parquet", ("metrics", "pool")),
    "scores": ("runs/*/scores/*.parquet", ("scores", "pool")),
    "further": ("runs/*/further.npz", ()),
    "zarr metadata": ("runs/*/ntk.zarr/**/zarr.json", ("spectra", "grams", "scores")),
    "eigenvalues": ("runs/*/ntk.zarr/eigenvalues/c/*/0", ("spectra", "scores")),
    "gram": ("runs/*/ntk.zarr/gram/c/*/0/0", ("grams", "scores")),
    "architectures": ("architectures/*/*.parquet", ("architectures", "pool")),
    "manifests": ("imports/*.json", ("accuracies", "curves", "proxies", "pool")),
    "accuracies": ("accuracies/*/*.parquet", ("accuracies", "pool")),
    "proxies": ("proxies/*/*.parquet", ("proxies",)),
    "columns": ("columns/*/*.parquet", ("pool",)),
    "search.json": ("searches/*/search.json", ("searches",)),
    "queries": ("searches/*/queries.parquet", ("queries",)),
    "comparison.json": ("comparisons/*/comparison.json", ("comparisons", "searches")),
    "compared": ("comparisons/*/*.parquet", ("comparisons", "searches", "queries")),
    "supernet.json": ("supernets/*/supernet.json", ()),
    "supernet states": ("supernets/*/state.checkpoint", ()),
}
# Supernets are read by the one command that trains them, and `hnas check` answers for the rest.
_CHECKED = ("supernet.json", "supernet states")
_SUPERNET = (
    "search", "nasbench201", "--method", "darts", "--oracle", "command: printf '%s\\n5' {arch}", "--json", "-q",
    *(f"--option={name}" for name in ("supernet_epochs=1", "channels=2", "cells=1", "batch_size=8", "most_images=16")),
    "--option=threads=1",
)  # fmt: skip
_SIZE = ("--channels", "4", "--cells", "1", "--batch-size", "8")
# Seconds after which a command hangs; on a busy machine a sound one takes several.
_HANGS = 300
# One damage in so many is followed by `correlate`, which takes longer and reads the rows of `pool`.
_CORRELATES = 10


@dataclass(frozen=True)
class Outcome:
    """What a command did: its exit status and what it printed."""

    status: int
    out: str
    err: str


def hnas(*arguments: str) -> Outcome:
    """Run a command line in this process. Raises `TimeoutError` where it hangs."""
    out, err = io.StringIO(), io.StringIO()

    def hang(*_: object) -> None:
        raise TimeoutError(" ".join(arguments))

    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)}
    signal.signal(signal.SIGALRM, hang)
    signal.alarm(_HANGS)
    status: Any = 0
    try:
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            mock.patch.object(sys, "argv", ["hnas", *arguments]),
        ):
            cli.main()
    except SystemExit as end:
        status = end.code
    finally:
        signal.alarm(0)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    text = out.getvalue()
    if arguments[:2] == ("info", "--json") and text:
        # Bytes and dates of files are those of the damaged ones: no word is owed for them.
        text = json.dumps({name: rows for name, rows in json.loads(text).items() if name != "sizes"}, indent=2)
    if arguments[: len(_SUPERNET)] == _SUPERNET and text:
        text = json.loads(text)["best"]["arch"]  # the rest has a name and seconds of its own
    return Outcome(int(status or 0), text, err.getvalue())


def commands(kind: str, store: Path) -> Iterator[tuple[str, ...]]:
    """The commands whose output the files of a kind decide."""
    for view in KINDS[kind][1]:
        yield ("sql", f"SELECT * FROM {view} ORDER BY ALL", "--format", "csv", "--store", str(store))
    yield ("info", "--json", "--store", str(store))
    if kind not in ("gram", "proxies", *_CHECKED):
        yield ("correlate", "--format", "csv", "--store", str(store))
    if kind in ("search.json", "queries"):
        yield ("search", "--resume", _search(store), "--json", "--store", str(store))
    if kind in ("batch", "run.json", "requests", "metrics", "zarr metadata", "eigenvalues"):
        sample = ("precompute", "nasbench201", "--dataset", "digits", "--sample", "12", "--dry-run")
        yield (*sample, *_SIZE, "--store", str(store))
    if kind in ("run.json", "scores", "further"):
        sample = ("precompute", "nasbench201", "--dataset", "digits", "--sample", "12", "--dry-run")
        yield (*sample, *_SIZE, "--scores", "l2_norm", "--store", str(store))
    if kind in _CHECKED:
        for seed in ("0", "1"):
            yield (*_SUPERNET, "--seed", seed, "--store", str(store))


def _search(store: Path) -> str:
    return min(path.name for path in (store / "searches").iterdir())


# --- damage

Damage = Callable[[Path, list[Path], Random], None]


def _flip(path: Path, _: list[Path], random: Random) -> None:
    content = bytearray(path.read_bytes())
    content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    path.write_bytes(content)


def _byte(path: Path, _: list[Path], random: Random) -> None:
    content = bytearray(path.read_bytes())
    content[random.randrange(len(content))] = random.randrange(256)
    path.write_bytes(content)


def _zeros(path: Path, _: list[Path], random: Random) -> None:
    content = bytearray(path.read_bytes())
    start, length = random.randrange(len(content)), random.choice((2, 16, 512, 4096))
    content[start : start + length] = bytes(len(content[start : start + length]))
    path.write_bytes(content)


def _cut(path: Path, _: list[Path], random: Random) -> None:
    path.write_bytes(path.read_bytes()[: random.randrange(path.stat().st_size)])


def _exchange(path: Path, others: list[Path], random: Random) -> None:
    other = random.choice(others)
    mine, theirs = path.read_bytes(), other.read_bytes()
    path.write_bytes(theirs)
    other.write_bytes(mine)


def _overwrite(path: Path, others: list[Path], random: Random) -> None:
    path.write_bytes(random.choice(others).read_bytes())


def _double(path: Path, _: list[Path], random: Random) -> None:
    stem, suffix = (path.stem, path.suffix) if path.suffix else (path.name, "")
    name = random.choice((f"{stem} (1){suffix}", f"0000000000000000{suffix}", f"._{path.name}", f"{path.name}~"))
    shutil.copy(path, path.with_name(name))


def _remove(path: Path, _: list[Path], random: Random) -> None:
    path.unlink()


def _link(path: Path, others: list[Path], random: Random) -> None:
    target = random.choice((Path("/dev/zero"), Path("/dev/null"), Path("/nowhere"), path.parent, *others))
    path.unlink()
    path.symlink_to(target)


def _foreign(path: Path, _: list[Path], random: Random) -> None:
    path.write_bytes(random.choice((b"", b"PAR1PAR1", b"\x80\x04K\x01.", random.randbytes(random.randrange(1, 2000)))))


def _json(path: Path, _: list[Path], random: Random) -> None:
    """Another value somewhere in a JSON file, as an editor leaves it; other files get JSON for content."""
    try:
        value = json.loads(path.read_text())
    except ValueError:
        path.write_text(random.choice(("[]", "{}", "null", '{"a": 1}', "[" * 100_000)))
        return
    place: Any = value
    while isinstance(place, dict) and place:
        name = random.choice(sorted(place))
        if not isinstance(place[name], dict | list) or not place[name] or random.random() < 0.2:
            place[name] = random.choice((None, -1, 2**70, 1.5, "x", [], {}, True, "\x1b[2J", ["a"]))
            break
        place = place[name]
        if isinstance(place, list):
            place[0] = random.choice((None, 7, "y"))
            break
    path.write_text(json.dumps(value))


DAMAGES: dict[str, Damage] = {
    "bit": _flip, "byte": _byte, "zeros": _zeros, "truncation": _cut, "swap": _exchange, "overwrite": _overwrite,
    "duplicate": _double, "deletion": _remove, "link": _link, "foreign": _foreign, "json": _json,
}  # fmt: skip


# --- the store, and the verdict


def make_store(folder: Path) -> Path:
    """Two runs with spectra and matrices, imported accuracies, proxies and columns, a search, on networks of 50 ms."""
    store = str(folder / "store")
    sample = ("precompute", "nasbench201", "--dataset", "digits", "--sample", "12", "--chunk-size", "4", "--keep-gram")
    for seed in ("0", "1"):
        scores = ("--scores", "l2_norm") if seed == "0" else ()
        _done(hnas(*sample, *_SIZE, *scores, "--workers", "1", "--seed", seed, "-q", "--store", store))
    found = hnas("sql", "SELECT DISTINCT arch FROM requests ORDER BY arch", "--format", "csv", "--store", store)
    architectures = found.out.split()[1:]
    rows = [f"{arch},digits,10,{60 + i},{50 + i}" for i, arch in enumerate(architectures)]
    for name in ("mine", "theirs"):
        table = folder / f"{name}.csv"
        table.write_text("\n".join(["arch,dataset,epochs,test_accuracy,valid_accuracy", *rows]))
        _done(hnas("import", "csv", str(table), "-q", "--store", store))
    cells = {str((i, 1, 2, 0, 2, 3)): {"snip": 1.5 * i, "val_accuracy": 70.0} for i in range(5)}
    scores = {"nasbench201": {"digits": cells}}
    table = folder / "zc_nasbench201.json"
    table.write_text(json.dumps(scores))
    _done(hnas("import", "suite-zero", str(table), "-q", "--store", store))
    table = folder / "phone.csv"
    table.write_text("\n".join(["arch,latency", *(f"{arch},{i}" for i, arch in enumerate(architectures))]))
    _done(hnas("import", "columns", str(table), "-q", "--store", store))
    for seed in ("0", "1"):
        _done(hnas("search", "nasbench201", "--queries", "4", "--seed", seed, "--json", "-q", "--store", store))
    methods = ("--methods", "hnas,random", "--queries", "3", "--seeds", "2", "--workers", "1", "-q")
    _done(hnas("compare", "nasbench201", *methods, "--store", store))
    for seed in ("0", "1"):
        _done(hnas(*_SUPERNET, "--seed", seed, "--store", store))
    return folder / "store"


def _done(outcome: Outcome) -> None:
    if outcome.status:
        raise RuntimeError(outcome.err)


def verdict(before: Outcome, after: Outcome) -> str | None:
    """What is wrong with the outcome after a damage, or None."""
    if "Traceback" in after.err or "did not foresee" in after.err or after.status not in (0, 1, 2):
        return f"exit {after.status}: {after.err.strip()[-300:]}"
    if any(character < " " and character != "\n" for character in after.err):
        return f"control characters: {after.err!r}"
    if after.status:
        lines = after.err.strip().splitlines()
        return None if lines and lines[-1].startswith("hnas: ") else f"no sentence: {after.err!r}"
    if after.out != before.out:
        return f"other output without a word: {_difference(before.out, after.out)}"
    return None


def _difference(before: str, after: str) -> str:
    pairs = zip(before.splitlines(), after.splitlines(), strict=False)
    first = next(((a, b) for a, b in pairs if a != b), ("", ""))
    return f"{len(before)} and {len(after)} characters; {first[0][:150]!r} became {first[1][:150]!r}"


def _other(path: Path, before: Path) -> bool:
    """Whether a file is not what it was; that of a supernet's state may be gone, and white space of JSON may differ."""
    if path.is_symlink() or not path.exists():
        return path.is_symlink() or path.suffix == ".json"
    one, two = path.read_bytes(), before.read_bytes()
    with contextlib.suppress(ValueError, RecursionError):
        return bool(json.loads(one) != json.loads(two))
    return one != two


def fuzz(template: Path, kind: str, count: int, seed: int, damages: tuple[str, ...] = tuple(DAMAGES)) -> list[str]:
    """The failures among `count` random damages of one kind of file of a copy of `template`."""
    random = Random(f"{seed} {kind}")
    failures = []
    with tempfile.TemporaryDirectory() as scratch:
        place, outside = Path(scratch) / "store", Path(scratch) / "outside"
        shutil.copytree(template, place)
        outside.mkdir()
        (outside / "thesis.tex").write_text("mine")
        reference = {
            command: hnas(*command)
            for command in commands(kind, place)
            if command[0] != "correlate" or count >= _CORRELATES
        }
        for number in range(count):
            shutil.rmtree(place)
            shutil.copytree(template, place)
            files = sorted(place.glob(KINDS[kind][0]))
            path, damage = random.choice(files), random.choice(damages)
            DAMAGES[damage](path, files, random)
            if kind in _CHECKED and _other(path, template / path.relative_to(place)):
                checked = hnas("check", "--store", str(place))
                named = str(path.parent) in checked.out
                if checked.status != 1 or not named or verdict(checked, checked) is not None:
                    failures.append(f"{kind} {number}, {damage} of {path.relative_to(place)}: check says {checked}")
            for command, before in reference.items():
                if command[0] == "correlate" and number % _CORRELATES != _CORRELATES - 1:
                    continue
                # Rows that are gone with their part are rows that are not there yet: `info` says so, the others refuse.
                if kind == "metrics" and damage == "deletion" and command[0] != "correlate":
                    continue
                if kind == "scores" and damage == "deletion":  # the same; `correlate` counts them
                    continue
                # A source without its manifest is one that was removed, or whose import was killed.
                if kind == "manifests" and damage == "deletion":
                    continue
                try:
                    found = verdict(before, hnas(*command))
                except TimeoutError as error:
                    found = f"hang: {error}"
                if found is not None:
                    failures.append(f"{kind} {number}, {damage} of {path.relative_to(place)}, {command[:2]}: {found}")
            if [(item.name, item.read_text()) for item in outside.iterdir()] != [("thesis.tex", "mine")]:
                failures.append(f"{kind} {number}, {damage}: something outside the store was touched")
    return failures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000, help="damages of each kind of file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=KINDS, action="append", help="this kind only; may be repeated")
    options = parser.parse_args()
    os.environ["HNAS_TABLES"] = ""  # the store alone, without the tables that ship
    with tempfile.TemporaryDirectory() as folder:
        template = make_store(Path(folder))
        total: Counter[str] = Counter()
        for kind in options.kind or KINDS:
            begun = time.monotonic()
            failures = fuzz(template, kind, options.count, options.seed)
            total[kind] = len(failures)
            print(
                f"{kind}: {options.count} damages, {len(failures)} failures, {time.monotonic() - begun:.0f} s",
                flush=True,
            )
            for failure in failures[:20]:
                print(f"  {failure}", flush=True)
    sys.exit(1 if sum(total.values()) else 0)


if __name__ == "__main__":
    main()
