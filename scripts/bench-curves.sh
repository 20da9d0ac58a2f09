#!/usr/bin/env bash
# Usage: scripts/bench-curves.sh [--quick] [--only capture,follow,plan,partitions] [--rounds N] [--out DIR] [--binary PATH] [--bench PATH]
# Measures how time and memory grow, each part on its own local account, and keeps every single result in DIR
# (docs/performance), in files that it overwrites:
#   capture     capture-size.csv, capture-leases.csv, capture-body.csv: CPU and memory of the handler, and of a program that only
#               forwards the same bytes, by size of a document, number of leases, and size of an invocation
#   follow      follow.csv: CPU and memory of `follow --sink file` by number of changes and size of a document
#   plan        plan.csv, verify.csv: `restore --all --dry-run` by documents and versions of each, `verify` by versions
#   partitions  partitions.csv: a plan, `verify` and `follow` of 10,000 changes by number of physical partitions
# --quick measures fewer points in one round. --binary and --bench name existing builds (the second is benches/handler).
# scripts/plot.sh makes the plots and tables.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD quick='' only=capture,follow,plan,partitions rounds='' out=docs/performance bin='' bench=''
while [ $# -gt 0 ]; do
  case $1:${2:-} in
    --quick:*) quick=yes; shift; continue ;;
    --only:?*) only=$2 ;;
    --rounds:[1-9]*) rounds=$2 ;;
    --out:?*) out=$2 ;;
    --binary:?*) bin=$(realpath "$2") ;;
    --bench:?*) bench=$(realpath "$2") ;;
    *) sed -n '2s/^# //p' "$0" >&2; exit 2 ;;
  esac
  shift 2
done
for part in ${only//,/ }; do
  case $part in capture | follow | plan | partitions) ;; *) echo "error: --only $part: write capture,follow,plan,partitions or some of them" >&2; exit 2 ;; esac
done
rounds=${rounds:-$([ -n "$quick" ] && echo 1 || echo 3)}
mkdir -p "$out"
out=$(realpath "$out")
. scripts/measure.bash
[ -n "$bin" ] || release_binary
dir=$(mktemp -d)
trap 'end_processes; rm -rf "$dir"' EXIT
account() { # arguments of `local`
  end_account
  local_account "$@"
}
points() { # of a whole run, of a quick one
  [ -n "$quick" ] && echo "$2" || echo "$1"
}
say() { printf '%(%H:%M:%S)T %s\n' -1 "$*"; }

capture() {
  local size documents batches leases mb
  [ -n "$bench" ] || bench=$root/$(cargo bench --bench handler --no-run 2>&1 | sed -n 's/^ *Executable .*(\(.*\))$/\1/p')
  handler() { "$bench" --handler "$bin" --rounds "$rounds" --scenario shared --scenario own-bulk "$@" | grep '^| [oa]'; }
  rm -f "$out"/capture-{size,leases,body}.csv
  for size in $(points "1024 4096 16384 65536 262144 1048576 1992294" "1024 65536 1992294"); do
    # An invocation stays below 32 MB, and all of them together at about 128 MB.
    documents=$((33554432 / size > 100 ? 100 : 33554432 / size))
    batches=$((134217728 / (size * documents)))
    batches=$((batches > 100 ? 100 : batches))
    say "documents of $size bytes"
    handler --size "$size" --documents "$documents" --batches "$batches" --warm-up $((batches / 4 + 1)) --leases 1 --csv "$out/capture-size.csv"
  done
  for leases in $(points "1 2 4 8 16" "1 4 16"); do
    say "$leases leases"
    handler --batches 160 --warm-up 32 --leases "$leases" --csv "$out/capture-leases.csv"
  done
  for mb in $(points "1 2 4 8 16 32 62" "1 8 62"); do
    say "invocations of $mb MB"
    handler --size 4096 --documents $((mb * 250)) --batches 4 --warm-up 1 --leases 1 --csv "$out/capture-body.csv"
  done
}

documents() { # prefix of the ids, how many, bytes of each
  # Some awks print at most 8 KB formatted.
  awk -v p="$1" -v n="$2" -v s="$3" 'BEGIN { pad = "x"; while (length(pad) < s) pad = pad pad; pad = substr(pad, 1, s - 90)
    for (i = 0; i < n; i++) print sprintf("{\"id\":\"%s-%07d\",\"pk\":\"key-%06d\",\"n\":%d,\"text\":\"", p, i, i / 10, i) pad "\"}" }'
}
quiet() {
  "$bin" "$@" >"$dir/out" 2>"$dir/err" || { tail -n 5 "$dir/err" >&2; exit 1; }
}
# The arguments of a follower with this name and an output file of the same name.
from() { echo follow --mode all-versions --from now --until-caught-up --poll 10 --lease 2 --sink "file:$dir/$1.jsonl" --name "$1"; }

follow() {
  local round size changes before=0 count sizes
  account --no-trigger
  rm -f "$out/follow.csv"
  # Each of these names has this many changes ahead of it once all are written.
  starts() { for round in $(seq "$rounds"); do quiet $(from "$1-$round"); done; }
  follows() { # name, changes, size
    for round in $(seq "$rounds"); do
      python3 "$root/scripts/rusage.py" "$out/follow.csv" "round,changes,size" "$round,$2,$3" -- "$bin" $(from "$1-$round")
      count=$(wc -l <"$dir/$1-$round.jsonl")
      [ "$count" = "$2" ] || { echo "error: $1 got $count of $2 changes" >&2; exit 1; }
      rm -f "$dir/$1-$round.jsonl"
    done
  }
  sizes=$(points "200000 100000 50000 20000 10000" "50000 10000")
  set -- $sizes
  say "writing $1 changes"
  while [ $# -gt 0 ]; do
    starts "n$1"
    before=${2:-0}
    documents "n$1" $(($1 - before)) 1024 >"$dir/documents.jsonl"
    quiet populate --file "$dir/documents.jsonl" --concurrency 64
    shift
  done
  for changes in $sizes; do follows "n$changes" "$changes" 1024; done
  for size in $(points "4096 16384 65536 262144 1048576" "65536"); do
    changes=$((67108864 / size))
    starts "s$size"
    documents "s$size" "$changes" "$size" >"$dir/documents.jsonl"
    quiet populate --file "$dir/documents.jsonl" --concurrency 16
    follows "s$size" "$changes" "$size"
  done
  end_account
}

plan() {
  local documents versions at round done_versions
  rm -f "$out"/{plan,verify}.csv
  for documents in $(points "1000 10000 50000" "1000 10000"); do
    account --mode all-versions
    kilobytes "$documents" >"$dir/documents.jsonl"
    done_versions=0 at=''
    for versions in $(points "1 5 20" "1 5"); do
      # 50,000 documents with 20 versions are more than the account can store in a few minutes.
      [ $((documents * versions)) -le 250000 ] || continue
      say "$documents documents, $versions versions of each"
      # Each run writes all documents once, and then updates.
      quiet populate --file "$dir/documents.jsonl" --concurrency 64 --updates $((documents * (versions - done_versions - 1)))
      done_versions=$versions
      captured $((documents * versions))
      [ -n "$at" ] || { sleep 2; at=$(date +%s); sleep 2; }
      for round in $(seq "$rounds"); do
        python3 "$root/scripts/rusage.py" "$out/plan.csv" "round,documents,versions" "$round,$documents,$versions" -- \
          "$bin" restore --all --at "$at" --dry-run --format csv
        python3 "$root/scripts/rusage.py" "$out/verify.csv" "round,documents,versions" "$round,$documents,$((documents * versions))" -- "$bin" verify
      done
    done
    end_account
  done
}

partitions() {
  local partitions round at
  rm -f "$out/partitions.csv"
  kilobytes 10000 >"$dir/documents.jsonl"
  for partitions in $(points "1 2 4 8 16" "1 4"); do
    say "$partitions partitions"
    account --mode all-versions --partitions "$partitions"
    measured() { # what, and the command
      python3 "$root/scripts/rusage.py" "$out/partitions.csv" "round,partitions,what" "$round,$partitions,$1" -- "$bin" "${@:2}"
    }
    quiet populate --file "$dir/documents.jsonl" --concurrency 64
    captured 10000
    for round in $(seq "$rounds"); do quiet $(from "p$round"); done
    sleep 2
    at=$(date +%s)
    sleep 2
    quiet populate --file "$dir/documents.jsonl" --concurrency 64
    captured 20000
    for round in $(seq "$rounds"); do
      measured plan restore --all --at "$at" --dry-run --format csv
      measured verify verify
      measured follow $(from "p$round")
      [ "$(wc -l <"$dir/p$round.jsonl")" = 10000 ] || { echo "error: p$round did not get 10000 changes" >&2; exit 1; }
      rm -f "$dir/p$round.jsonl"
    done
    end_account
  done
}

for part in ${only//,/ }; do $part; done
say "done: $out"
