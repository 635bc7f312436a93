#!/usr/bin/env bash
# The README's way from images to a model: precompute, search with real trainings, predict, query, report. Run by `make demo`.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p data/demo
export HNAS_STORE="$(realpath --canonicalize-missing "${HNAS_STORE:-data/demo/store}")"
# The README's first Python example makes the images.
images="$(awk '/^```/ { shown = 0 } shown; /^```python/ { shown = ++examples == 1 }' README.md)"
cd data/demo
# The tables that ship are read along with every store. The demo leaves them out: it shows its own rows only.
export HNAS_TABLES=

show() {
    printf '\n$ %s\n' "$1"
    eval "$1"
}

python -c "$images"
show 'hnas precompute nasbench201 --dataset images --sample 60 --cells 1'
show 'hnas search nasbench201 --dataset images --oracle train --queries 5 --epochs 10 --batch-size 32 --threads 1 --recipe-option flip=false --save best'
show 'hnas predict best new'
show "hnas sql \"SELECT arch, trace, kappa, params FROM pool WHERE status = 'ok' ORDER BY kappa, arch LIMIT 5\""
show 'hnas info'
show 'hnas report --output report.html'
printf '\nThe store is %s; every number above can be traced there.\n' "$HNAS_STORE"
printf 'The report to look at is %s.\n' "$PWD/report.html"
