"""Time and memory of importing NAS-Bench-101's file, on a synthetic one of any size.

    python benchmarks/import_nasbench101.py [--cells 423624] [--full] [--file F] [--store S]

Writes a TFRecord file of `cells` × 3 trainings (× 4 budgets with --full) in the layout of the real one, in random
order, and imports it in a process of its own. The hashes are made up, everything else has the real form. Figures are
for one core: start it with `taskset -c 0`.
"""

from __future__ import annotations

import argparse
import base64
import json
import resource
import struct
import subprocess
import sys
import tempfile
import time
from hashlib import md5
from pathlib import Path
from random import Random

from hnas.pipeline.importers.model_metrics import message_class
from hnas.pipeline.importers.tfrecord import masked_crc

OPERATIONS = ("conv1x1-bn-relu", "conv3x3-bn-relu", "maxpool3x3")


def write_file(path: Path, cells: int, budgets: tuple[int, ...], seed: int = 0) -> int:
    """Write the synthetic file; returns the number of its records."""
    random = Random(seed)
    message = message_class()
    order = [(cell, epochs) for epochs in budgets for cell in range(cells) for _ in range(3)]
    random.shuffle(order)
    with path.open("wb", buffering=2**20) as file:
        for cell, epochs in order:
            metrics = message(trainable_parameters=random.randrange(10**5, 10**8), total_time=random.random() * 1e4)
            for share in (0, 0.5, 1):
                metrics.evaluation_data.add(
                    current_epoch=epochs * share,
                    training_time=epochs * share * 20 * (1 + random.random()),
                    train_accuracy=random.randrange(10_001) / 10_000,
                    validation_accuracy=random.randrange(10_001) / 10_000,
                    test_accuracy=random.randrange(10_001) / 10_000,
                    checkpoint_path=f"/namespace/cell/{cell:06d}/model.ckpt-{int(epochs * share * 156)}",
                )
            row = [
                md5(str(cell).encode()).hexdigest(),
                epochs,
                "0100000001000000010000000100000001000000010000000",
                ",".join(("input", *(OPERATIONS[cell // 3**k % 3] for k in range(5)), "output")),
                base64.b64encode(metrics.SerializeToString()).decode(),
            ]
            content = json.dumps(row).encode()
            length = struct.pack("<Q", len(content))
            file.write(length + struct.pack("<I", masked_crc(length)))
            file.write(content + struct.pack("<I", masked_crc(content)))
    return len(order)


def main() -> None:
    """Write the file, import it, print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=423_624)
    parser.add_argument("--full", action="store_true", help="all four budgets")
    parser.add_argument("--file", type=Path, help="an existing file to import instead, or where to keep the new one")
    parser.add_argument("--store")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = options.file or Path(folder) / "nasbench.tfrecord"
        if not path.exists():
            begun = time.perf_counter()
            records = write_file(path, options.cells, (4, 12, 36, 108) if options.full else (108,))
            print(f"wrote {records:,} records in {time.perf_counter() - begun:.0f} s", flush=True)
        store = options.store or str(Path(folder) / "store")
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-m", "hnas.cli", "import", "nasbench101", path, "--store", store], check=True)
        seconds = time.perf_counter() - begun
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        stored = sum(file.stat().st_size for file in Path(store).rglob("*.parquet")) / 1e6
        print(
            f"imported {path.stat().st_size / 1e6:,.0f} MB in {seconds:.1f} s with at most {peak:,.0f} MB of memory; "
            f"the store has {stored:,.0f} MB"
        )


if __name__ == "__main__":
    main()
