#!/usr/bin/env bash
# Usage: scripts/soak.sh [--minutes N | --seeds A..B]
# Runs the random tests against their models, seed by seed: the whole simulation (with real processes, and in one
# thread), the capture use case alone, the follower and the commands. Runs for N minutes (10 by default) from a random
# seed, or for the seeds A to B; then adds seeds of the single-threaded simulations. At the end it prints the number of
# seeds, and the command that repeats each failed one. Everything listens on loopback only.
set -euo pipefail
usage() { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; }
wrong() { echo "usage: $0 [--minutes N | --seeds A..B]" >&2; exit 2; }
minutes=10 first='' last=''
while (($#)); do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --minutes) [[ ${2:-} =~ ^[0-9]+$ ]] || wrong; minutes=$2; shift 2 ;;
    --seeds) [[ ${2:-} =~ ^([0-9]+)\.\.([0-9]+)$ ]] || wrong; first=${BASH_REMATCH[1]} last=${BASH_REMATCH[2]}; shift 2 ;;
    *) wrong ;;
  esac
done
cd "$(dirname "$0")/.."
# Without this, the client library captures a backtrace for every operation.
export RUST_BACKTRACE=0
cargo test --quiet --no-run --test main
seed=${first:-$((RANDOM * 32768 + RANDOM))}
end=$((SECONDS + minutes * 60))
logs=$(mktemp -d)
runs=0
failed=()
child=''
trap '[[ -z $child ]] || kill "$child" 2>/dev/null || true' EXIT
while if [[ -n $last ]]; then ((seed <= last)); else ((SECONDS < end)); fi; do
  for model in simulation follow_model rewind_model; do
    # A seed that hangs counts as failed.
    COSMOS_REWIND_SEED=$seed REWIND_MODEL_SEED=$seed timeout 300 \
      cargo test --quiet --test main -- "$model" >"$logs/$model-$seed.log" 2>&1 &
    child=$!
    if wait "$child"; then
      rm -f "$logs/$model-$seed.log"
    else
      failed+=("COSMOS_REWIND_SEED=$seed REWIND_MODEL_SEED=$seed cargo test --test main $model   # $logs/$model-$seed.log")
      echo "failed     $model, seed $seed"
    fi
    child=''
  done
  runs=$((runs + 1))
  seed=$((seed + 1))
done
# In one thread, a seed takes a tenth of a second (capture alone) or a few seconds (the whole), so further seeds are run
# afterwards.
more() { # NAME TEST VARIABLE SEEDS
  if env "COSMOS_REWIND_$3_FROM=$((seed * 100))" "COSMOS_REWIND_$3_SEEDS=$4" timeout 3600 cargo test --quiet --test main -- --nocapture "simulation::$2" >"$logs/$2.log" 2>&1; then
    grep 'seeds in' "$logs/$2.log" | sed "s/^\.*/$(printf '%-10s' "$1") /"
    rm -f "$logs/$2.log"
  else
    failed+=("as said in $logs/$2.log, simulation::$2")
  fi
}
more capture capture CAPTURE $((100 * (runs < 20 ? runs : 20)))
more 'one thread' alone ALONE $((10 * (runs < 20 ? runs : 20)))
echo "seeds      $runs of each model (up to $((seed - 1))), ${#failed[@]} failed, $SECONDS s"
if ((${#failed[@]})); then
  printf 'repeat     %s\n' "${failed[@]}"
  exit 1
fi
rmdir "$logs" 2>/dev/null || rm -rf "$logs"
