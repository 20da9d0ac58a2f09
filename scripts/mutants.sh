#!/usr/bin/env bash
# Usage: scripts/mutants.sh [--seeds N] [NAME...]
# Checks that the simulations detect defects: breaks the program on purpose, in one way after the other
# (tests/simulation/mutants/*.patch), and runs the single-threaded simulations, which must fail. All breakages are built
# at once, each behind a switch, in a temporary worktree whose target folder links to the compiled dependencies
# (target/debug). N is the maximum number of seeds of the whole simulation, 20 by default. Takes minutes; tests the
# committed state only.
set -euo pipefail
if [[ ${1:-} == -h || ${1:-} == --help ]]; then sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0; fi
cd "$(dirname "$0")/.."
patches=$PWD/tests/simulation/mutants
seeds=20
if [[ ${1:-} == --seeds ]]; then seeds=$2; shift 2; fi
names=("$@")
if ((${#names[@]} == 0)); then
  for patch in "$patches"/*.patch; do name=$(basename "$patch" .patch); [[ $name == 00-* ]] || names+=("$name"); done
fi
for name in "${names[@]}"; do [[ -f $patches/$name.patch ]] || { echo "no such breakage: $name" >&2; exit 2; }; done
folder=$(mktemp -d)
linked=$(mktemp -d "$PWD/target/mutants.XXXXXX")
trap 'git worktree remove --force "$folder/broken" 2>/dev/null || true; rm -rf "$folder" "$linked"' EXIT
# Links the dependencies, but nothing of this package itself: another worktree's build would be taken for this one's.
mkdir "$linked/debug"
cp -al target/debug/{deps,build,.fingerprint} "$linked/debug/"
find "$linked/debug" -depth \( -name '*cosmos[-_]rewind*' -o -path '*/deps/main-*' -o -path '*/deps/bench*' \) -exec rm -rf {} +
export CARGO_TARGET_DIR=$linked RUST_BACKTRACE=0
git worktree add --quiet --detach "$folder/broken" HEAD
cd "$folder/broken"
for patch in "$patches"/*.patch; do git apply --unidiff-zero "$patch" || { echo "$patch no longer applies" >&2; exit 1; }; done
cargo test --quiet --no-run --test main
program=$(find "$linked/debug/deps" -name 'main-*' -type f -executable | head -n 1)
# First capture alone, 30 seeds; if none detects the breakage, whole lives in memory, 40 seeds, then honest writers and
# a bad one, 40 seeds; then the whole simulation, seed by seed until one detects it. Breakages of sinks, which these do
# not have, are left to the model of followers with real processes (names that begin with follow-) or to the tests of
# find. The remaining ones are left to the tests of revert and of the external audit: guards, layouts and old records.
notices() { COSMOS_REWIND_MUTANT=$1 timeout 300 "$program" "$2" >"$folder/log" 2>&1 && return 1 || return 0; }
survived=0
if COSMOS_REWIND_ALONE_SEEDS=2 notices none simulation::alone; then echo "the simulation fails without a breakage" >&2; tail -n 20 "$folder/log" >&2; exit 1; fi
for name in "${names[@]}"; do
  begun=$SECONDS
  by=
  if COSMOS_REWIND_CAPTURE_SEEDS=30 notices "$name" simulation::capture; then
    by="capture alone, $(grep -c '^COSMOS_REWIND_SEED=' "$folder/log" || true) of 30 seeds"
  fi
  if ((${#by} == 0)) && COSMOS_REWIND_MEMORY_SEEDS=40 notices "$name" simulation::memory; then
    by="in memory, $(grep -c '^COSMOS_REWIND_SEED=' "$folder/log" || true) of 40 seeds$(sed -n 's/^test simulation::memory::\(a_[a-z0-9_]*\) .*FAILED/, \1/p' "$folder/log" | tr -d '\n')"
  fi
  if ((${#by} == 0)) && COSMOS_REWIND_REVERT_SEEDS=40 notices "$name" simulation::revert; then
    by="honest writers and a bad one, $(grep -c '^COSMOS_REWIND_SEED=' "$folder/log" || true) of 40 seeds"
  fi
  if ((${#by} == 0)) && notices "$name" rewind_revert::; then by="\`$(sed -n 's/^test rewind_revert::\([a-z0-9_]*\) .*FAILED/\1/p' "$folder/log" | head -n 1)\`"; fi
  for ((seed = 1; seed < 4 && ${#by} == 0; seed++)); do
    [[ $name == follow-* ]] || break
    if COSMOS_REWIND_SEED=$seed notices "$name" follow_model; then by="the model of followers, seed $seed"; fi
  done
  if ((${#by} == 0)) && [[ $name == find-* ]]; then
    if notices "$name" find::; then by="the tests of find, $(sed -n 's/^test \(find::[a-z0-9_:]*\) .*FAILED/\1/p' "$folder/log" | head -n 1)"; fi
  fi
  for ((seed = 0; seed < seeds && ${#by} == 0; seed++)); do
    if COSMOS_REWIND_SEED=$seed notices "$name" simulation::alone; then by="the whole in one thread, seed $seed"; fi
  done
  if ((${#by} == 0)) && notices "$name" truth::; then by="the audit's tests, $(sed -n 's/^test \(truth::[a-z0-9_:]*\) .*FAILED/\1/p' "$folder/log" | head -n 1)"; fi
  [[ -n $by ]] || survived=$((survived + 1))
  printf '%-34s %s, %d s\n' "$name" "${by:-NOT NOTICED}" $((SECONDS - begun))
done
echo "${#names[@]} breakages, $survived not noticed, $SECONDS s"
((survived == 0))
