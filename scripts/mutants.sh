#!/usr/bin/env bash
# Usage: scripts/mutants.sh [NAME...]
# Whether the simulation notices what it should: breaks the program on purpose, in one way after the other
# (tests/simulation/mutants/*.patch), and runs the simulations of one thread, which must fail. All breakages are built
# at once into a temporary worktree that shares the target folder, each behind a switch; nothing here is changed.
# Minutes; what is not committed is not tested.
set -euo pipefail
if [[ ${1:-} == -h || ${1:-} == --help ]]; then sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0; fi
cd "$(dirname "$0")/.."
patches=$PWD/tests/simulation/mutants
names=("$@")
if ((${#names[@]} == 0)); then
  for patch in "$patches"/*.patch; do name=$(basename "$patch" .patch); [[ $name == 00-* ]] || names+=("$name"); done
fi
for name in "${names[@]}"; do [[ -f $patches/$name.patch ]] || { echo "no such breakage: $name" >&2; exit 2; }; done
CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
export CARGO_TARGET_DIR RUST_BACKTRACE=0
folder=$(mktemp -d)
trap 'git worktree remove --force "$folder/broken" 2>/dev/null; rm -rf "$folder"' EXIT
git worktree add --quiet --detach "$folder/broken" HEAD
cd "$folder/broken"
for patch in "$patches"/*.patch; do git apply --unidiff-zero "$patch" || { echo "$patch does not apply any more" >&2; exit 1; }; done
cargo test --quiet --no-run --test main
# Seeds are run one by one, so that the first one that notices ends it: capture alone, 30 of them; then the whole, up to 20.
notices() { COSMOS_REWIND_MUTANT=$1 timeout 300 cargo test --quiet --test main -- "simulation::$2" >"$folder/log" 2>&1 && return 1 || return 0; }
survived=0
if COSMOS_REWIND_CAPTURE_SEEDS=10 COSMOS_REWIND_ALONE_SEEDS=2 notices none 'alone'; then echo "the simulation fails without any breakage" >&2; tail -n 20 "$folder/log" >&2; exit 1; fi
for name in "${names[@]}"; do
  begun=$SECONDS
  by=
  if COSMOS_REWIND_CAPTURE_SEEDS=30 notices "$name" capture; then
    by="capture, $(grep -c '^COSMOS_REWIND_SEED=' "$folder/log" || true) of 30 seeds"
  fi
  for ((seed = 0; seed < 20; seed++)); do
    if COSMOS_REWIND_SEED=$seed notices "$name" alone; then
      by+="${by:+; }the whole, seed $seed"
      break
    fi
  done
  [[ -n $by ]] || survived=$((survived + 1))
  printf '%-34s %s, %d s\n' "$name" "${by:-NOT NOTICED}" $((SECONDS - begun))
done
echo "${#names[@]} breakages, $survived not noticed, $SECONDS s"
((survived == 0))
