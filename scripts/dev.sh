#!/usr/bin/env bash
# Starts this function app for development, as close to Azure as the machine allows: the real Functions host (Core
# Tools) against the Cosmos DB emulator in Docker, or `cosmos-rewind local`, which simulates both. It reports the choice
# and the reason. Ctrl-C stops everything.
#
# Usage: scripts/dev.sh [--mode latest|all-versions] [--port N] [--profile release|dev] [--no-build]
#                       [--with auto|func|local]
#   --mode MODE      change feed mode of the local environment [default: that of function.json, else latest];
#                    Core Tools take it from function.json
#   --port N         port of the account [default: 8081, as in local.settings.example.json]
#   --profile NAME   release or dev [default: release, which host.json starts]
#   --no-build       start the existing build
#   --with WHAT      func: Core Tools and the emulator, or an error; local: never those [default: auto]
# A missing local.settings.json is created from the example; an existing one is not changed. The combination of Core
# Tools and the emulator has never been run, because neither was available.
set -euo pipefail

usage() { sed -n '/^# Usage/,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; }
say() { printf '%s\n' "$*" >&2; }
fail() {
  say "error: $1"
  [[ -z ${2:-} ]] || say "  fix: $2"
  exit "${3:-1}"
}

mode='' port=8081 profile=release build=yes with=auto
while [[ $# -gt 0 ]]; do
  case $1 in
    -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
    --no-build) build=no; shift ;;
    --mode | --port | --profile | --with)
      [[ -n ${2:-} ]] || fail "$1 needs a value" "scripts/dev.sh --help" 2
      case $1 in
        --mode) mode=$2 ;;
        --port) port=$2 ;;
        --profile) profile=$2 ;;
        --with) with=$2 ;;
      esac
      shift 2
      ;;
    *) usage >&2; exit 2 ;;
  esac
done
case $mode in '' | latest | all-versions) ;; *) fail "mode $mode is not known" "latest or all-versions" 2 ;; esac
case $with in auto | func | local) ;; *) fail "--with $with is not known" "auto, func or local" 2 ;; esac
case $profile in
  release) built=target/release/cosmos-rewind ;;
  dev) built=target/debug/cosmos-rewind ;;
  *) fail "profile $profile is not known" "release or dev" 2 ;;
esac
cd "$(dirname "$0")/.."

if [[ $build == yes ]]; then
  command -v cargo >/dev/null || fail "cargo is not installed" "install Rust: https://rustup.rs"
  # Stdout belongs to the started program.
  cargo build --locked --profile "$profile" --bin cosmos-rewind >&2
fi
[[ -x $built ]] || fail "$built is not there" "leave --no-build out"

if [[ -e local.settings.json ]]; then
  say "settings   local.settings.json, as it is"
else
  cp local.settings.example.json local.settings.json
  say "settings   local.settings.json, made from the example"
fi

# Prints why the real host cannot be used; empty when it can.
image=mcr.microsoft.com/cosmosdb/linux/azure-cosmos-emulator:vnext-preview
why=
if [[ $with == local ]]; then
  why="--with local"
elif ! command -v func >/dev/null; then
  why="func is not installed (Azure Functions Core Tools)"
elif ! command -v docker >/dev/null; then
  why="docker is not installed"
elif ! docker image inspect "$image" >/dev/null 2>&1; then
  why="docker has no image of the emulator, or does not run (docker pull $image)"
fi

if [[ -n $why ]]; then
  [[ $with != func ]] || fail "$why" "install it, or use --with local"
  say "with       cosmos-rewind local, because: $why"
  # It replaces this process and therefore receives Ctrl-C.
  exec "$built" local --port "$port" ${mode:+--mode "$mode"}
fi

[[ $profile == release ]] || fail "host.json starts target/release/cosmos-rewind" "leave --profile out" 2
[[ -z $mode || $mode == latest ]] || fail "Core Tools take the mode from function.json" "--with local, or edit function.json" 2
say "with       Core Tools and the Cosmos DB emulator in Docker"
emulator=$(docker run --rm --detach --publish "127.0.0.1:$port:8081" "$image")
trap 'docker stop "$emulator" >/dev/null' EXIT
say "emulator   container ${emulator:0:12}, port $port; waiting until it answers"
for attempt in $(seq 60); do
  if "$built" provision --endpoint "http://127.0.0.1:$port/" >&2; then break; fi
  [[ $attempt -lt 60 ]] || fail "the emulator does not answer" "docker logs $emulator"
  sleep 2
done
say "storage    AzureWebJobsStorage=UseDevelopmentStorage=true needs Azurite running (npx azurite)"
func start
