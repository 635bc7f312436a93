#!/usr/bin/env bash
# The main job on the embedded data set: precompute, correlate, search, query. Run by `make demo`.
set -euo pipefail
cd "$(dirname "$0")/.."
export HNAS_STORE="${HNAS_STORE:-data/demo/store}"
# The tables that ship are read along with every store. The demo leaves them out: it shows its own rows only.
export HNAS_TABLES=

show() {
    printf '\n$ %s\n' "$1"
    eval "$1"
}

show 'hnas precompute nasbench201 --dataset digits --sample 200 --cells 1'
show 'hnas correlate'
show 'hnas search nasbench201 --dataset digits --oracle train --queries 8 --epochs 8 --batch-size 64'
show "hnas sql \"SELECT arch, trace, kappa, params FROM pool WHERE status = 'ok' ORDER BY kappa, arch LIMIT 5\""
show 'hnas info'
printf '\nThe store is %s; every number above can be traced there.\n' "$HNAS_STORE"
