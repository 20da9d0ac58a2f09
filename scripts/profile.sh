#!/usr/bin/env bash
# Usage: scripts/profile.sh capture|capture-own|follow|plan|verify [--count N] [--binary PATH] [--bench PATH] [--functions]
# Shows the CPU time of `follow --sink file`, `restore --all --dry-run` or `verify` by part of the program: samples of
# the release binary by perf (Linux; the package linux-perf), each attributed to the running function, on a local
# account with N (100,000) changes or versions. For capture, samples the handler with N batches of one key, or of a key
# for each document, against the endpoint of scripts/bench-capture.sh; --bench names that program (benches/handler) if
# it is already built. Inlined functions count for their caller. --functions lists the functions of each part.
set -euo pipefail
cd "$(dirname "$0")/.."
what=${1:-} count=100000 bin='' bench='' functions=()
case $what in capture | capture-own | follow | plan | verify) shift ;; *) sed -n '2s/^# //p' "$0" >&2; exit 2 ;; esac
while [ $# -gt 0 ]; do
  case $1:${2:-} in
    --functions:*) functions=(--functions); shift; continue ;;
    --count:[1-9]*) count=$2 ;;
    --binary:?*) bin=$(realpath "$2") ;;
    --bench:?*) bench=$(realpath "$2") ;;
    *) sed -n '2s/^# //p' "$0" >&2; exit 2 ;;
  esac
  shift 2
done
command -v perf >/dev/null || { echo "error: perf is not installed" >&2; exit 1; }
root=$PWD
. scripts/measure.bash
[ -n "$bin" ] || release_binary
dir=$(mktemp -d)
if [[ $what == capture* ]]; then
  trap 'end_processes; rm -rf "$dir"' EXIT
  [ -n "$bench" ] || bench=$(cargo bench --no-run --message-format=json --bench handler 2>/dev/null | sed -n 's/.*"executable":"\([^"]*handler[^"]*\)".*/\1/p')
  scenario=shared
  [ $what = capture ] || scenario=own-bulk
  "$bench" --handler "$bin" --rounds 1 --scenario $scenario --batches $((count / 100)) >"$dir/out" 2>&1 &
  bench_pid=$!
  pids+=("$bench_pid")
  until pid=$(pgrep -P $bench_pid -f "^$bin serve"); do sleep 0.01; kill -0 $bench_pid; done
  # It ends with the handler.
  perf record -q -e cpu-clock -F 2000 -o "$dir/perf.data" -p "$pid" 2>/dev/null || true
  perf script -i "$dir/perf.data" -F ip,sym,dso 2>/dev/null | python3 "$root/scripts/profile.py" "$what" "${functions[@]}"
  exit
fi
mode=(--mode all-versions)
[ $what != follow ] || mode=(--no-trigger)
local_account "${mode[@]}"
trap 'end_processes; rm -rf "$dir"' EXIT
follow=(follow --mode all-versions --from now --until-caught-up --poll 10 --lease 2 --name profile --sink "file:$dir/events.jsonl")
case $what in
  follow)
    "$bin" "${follow[@]}" >"$dir/out" 2>"$dir/err"
    kilobytes "$count" >"$dir/documents.jsonl"
    "$bin" populate --file "$dir/documents.jsonl" --concurrency 64 >"$dir/out" 2>"$dir/err"
    command=("${follow[@]}")
    ;;
  *)
    # Ten versions of each document.
    kilobytes $((count / 10)) >"$dir/documents.jsonl"
    "$bin" populate --file "$dir/documents.jsonl" --concurrency 64 >"$dir/out" 2>"$dir/err"
    sleep 2
    at=$(date +%s)
    sleep 2
    "$bin" populate --file "$dir/documents.jsonl" --updates $((count / 10 * 8)) --concurrency 64 >"$dir/out" 2>"$dir/err"
    captured "$count"
    command=(verify)
    [ $what != plan ] || command=(restore --all --at "$at" --dry-run --format csv)
    ;;
esac
perf record -q -e cpu-clock -F 2000 -o "$dir/perf.data" "$bin" "${command[@]}" >"$dir/out" 2>"$dir/err"
perf script -i "$dir/perf.data" -F ip,sym,dso 2>/dev/null | python3 "$root/scripts/profile.py" "$what" "${functions[@]}"
