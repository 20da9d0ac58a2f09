#!/usr/bin/env bash
# Runs the test suite of Microsoft's Python SDK for Cosmos DB against the local account, and prints how many of its
# tests pass, by file. docs/reference/sdk-suite.md has the table, with the reason for each failing test.
#
# Usage: scripts/sdk-suite.sh [--binary PATH] [FILE...]
#   --binary PATH   the program to test instead of a debug build of this checkout
#   FILE            only these files of the suite, such as test_query.py
# The suite is part of the SDK's source distribution, which pip downloads to target/sdk-suite. The synchronous tests
# with an account key are run; stubs replace the tools that the suite imports from its own repository. When a test
# fails, the suite leaves some functions of the SDK patched, so each failing test is run again by itself. Needs python3
# with venv. The exit code is 0 when the suite could be run, whatever its results.
set -euo pipefail

version=4.17.1
files=(
  test_aggregate.py test_auto_scale.py test_backwards_compatibility.py test_change_feed.py
  test_change_feed_all_versions.py test_changefeed_partition_key_variation.py test_computed_properties.py
  test_container_properties_cache.py test_cosmos_responses.py test_crud.py test_crud_container.py test_crud_database.py
  test_crud_response_payload_on_write_disabled.py test_crud_subpartition.py test_diagnostics.py test_encoding.py
  test_feed_range.py test_headers.py test_multi_orderby.py test_none_options.py test_orderby.py test_partition_key.py
  test_query.py test_query_cross_partition.py test_query_execution_context.py test_query_feed_range.py
  test_query_feed_range_multipartition.py test_query_response_headers.py test_read_items.py test_resource_id.py
  test_session.py test_transactional_batch.py test_ttl.py test_user_configs.py test_utils.py
)
marks="cosmosEmulator or cosmosQuery or cosmosLong"
usage="usage: $0 [--binary PATH] [FILE...]"

binary=
chosen=()
while [[ $# -gt 0 ]]; do
  case "$1" in
    -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
    --binary) binary=${2:-}; [[ -n $binary ]] || { echo "$usage" >&2; exit 2; }; shift 2 ;;
    -*) echo "$usage" >&2; exit 2 ;;
    *) chosen+=("$1"); shift ;;
  esac
done
[[ ${#chosen[@]} -gt 0 ]] && files=("${chosen[@]}")

cd "$(dirname "$0")/.."
if [[ -z $binary ]]; then
  cargo build --quiet --bin cosmos-rewind
  binary=${CARGO_TARGET_DIR:-target}/debug/cosmos-rewind
fi
binary=$(realpath "$binary")
folder=$PWD/target/sdk-suite
mkdir -p "$folder"
if [[ ! -f $folder/installed || $(cat "$folder/installed") != "$version" ]]; then
  rm -rf "$folder"
  mkdir -p "$folder/stubs/devtools_testutils"
  python3 -m venv "$folder/venv"
  pip() { "$folder/venv/bin/python" -m pip --quiet --disable-pip-version-check "$@"; }
  pip download --no-deps --no-binary :all: --dest "$folder" "azure-cosmos==$version"
  pip install "$folder/azure_cosmos-$version.tar.gz" pytest pytest-timeout aiohttp
  tar --extract --gzip --file "$folder/azure_cosmos-$version.tar.gz" --directory "$folder"
  touch "$folder/stubs/devtools_testutils/__init__.py"
  printf 'def is_live():\n    return False\n' >"$folder/stubs/devtools_testutils/helpers.py"
  printf 'import os\n\n\ndef get_credential(**_):\n    return os.environ["ACCOUNT_KEY"]\n' \
    >"$folder/stubs/devtools_testutils/azure_recorded_testcase.py"
  printf '%s\n' "$version" >"$folder/installed"
fi

rm -rf "$folder/results"
mkdir -p "$folder/results" "$folder/empty"
# One physical partition by default, as in the service.
(cd "$folder/empty" && RUST_BACKTRACE=0 exec "$binary" local --no-trigger --port 0 --partitions 1) \
  >"$folder/local.out" 2>"$folder/local.err" &
account=$!
trap 'kill "$account" 2>/dev/null || true' EXIT
for _ in $(seq 100); do
  grep -q '"event":"ready"' "$folder/local.out" && break
  kill -0 "$account" 2>/dev/null || { cat "$folder/local.err" >&2; exit 1; }
  sleep 0.1
done
field() { "$folder/venv/bin/python" -c 'import json,sys; print(json.loads(sys.stdin.readline())[sys.argv[1]])' "$1" <"$folder/local.out"; }
ACCOUNT_HOST=$(field endpoint)
ACCOUNT_KEY=$(field key)
export ACCOUNT_HOST ACCOUNT_KEY PYTHONPATH=$folder/stubs

cd "$folder/azure_cosmos-$version/tests"
suite() { # name of the result, then arguments of pytest
  local result=$1
  shift
  timeout 600 "$folder/venv/bin/python" -m pytest --quiet --timeout 150 -W ignore -p no:cacheprovider -m "$marks" \
    --tb=short --junitxml "$folder/results/$result.xml" "$@" >>"$folder/results/log" 2>&1 || true
}
for file in "${files[@]}"; do
  echo "$file" >&2
  suite "$file" "$file"
done

"$folder/venv/bin/python" - "$folder/results" "${files[@]}" <<'PYTHON' >"$folder/results/failed"
import pathlib, sys, xml.etree.ElementTree as tree

folder, *files = sys.argv[1:]
for file in files:
    path = pathlib.Path(folder, file + ".xml")
    for case in tree.parse(path).iter("testcase") if path.exists() else []:
        if case.find("failure") is not None or case.find("error") is not None:
            print(f"{file}::{case.get('classname').split('.')[-1]}::{case.get('name')}")
PYTHON
number=0
while IFS= read -r test; do
  number=$((number + 1))
  suite "alone-$number" "$test"
done <"$folder/results/failed"

"$folder/venv/bin/python" - "$folder/results" "${files[@]}" <<'PYTHON'
import pathlib, sys, xml.etree.ElementTree as tree

folder, *files = sys.argv[1:]


def outcome(case):
    if case.find("failure") is not None or case.find("error") is not None:
        return "failed"
    return "skipped" if case.find("skipped") is not None else "passed"


def cases(path):
    return tree.parse(path).iter("testcase") if path.exists() else []


def why(case):
    found = case.find("failure") if case.find("failure") is not None else case.find("error")
    return (found.get("message") or "").strip().splitlines()[0][:110]


alone = {}
for path in pathlib.Path(folder).glob("alone-*.xml"):
    for case in cases(path):
        alone[case.get("classname"), case.get("name")] = case
totals, failed = dict(passed=0, failed=0, skipped=0), []
print(f"{'file':<52}{'passed':>8}{'failed':>8}{'skipped':>8}")
for file in files:
    counts = dict(passed=0, failed=0, skipped=0)
    for case in cases(pathlib.Path(folder, file + ".xml")):
        case = alone.get((case.get("classname"), case.get("name")), case)
        counts[outcome(case)] += 1
        if outcome(case) == "failed":
            failed.append((file, case.get("name"), why(case)))
    for name in totals:
        totals[name] += counts[name]
    print(f"{file:<52}{counts['passed']:>8}{counts['failed']:>8}{counts['skipped']:>8}")
print(f"{'all':<52}{totals['passed']:>8}{totals['failed']:>8}{totals['skipped']:>8}")
for file, name, reason in failed:
    print(f"failed: {file}::{name}: {reason}")
PYTHON
