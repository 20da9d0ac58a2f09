#!/usr/bin/env bash
# Starts this function app for development, in the nearest thing to Azure that is there: the real Functions host
# (Core Tools) against the Cosmos DB emulator in Docker, or `cosmos-rewind local`, which plays both. It says which and
# why. Ctrl-C ends everything.
#
# Usage: scripts/dev.sh [--mode latest|all-versions] [--port N] [--profile release|dev] [--no-build]
#                       [--with auto|func|local]
#   --mode MODE      change feed of the local environment [default: what function.json says, else latest];
#                    Core Tools take it from function.json
#   --port N         where the account listens [default: 8081, what local.settings.example.json says]
#   --profile NAME   release or dev [default: release, what host.json starts]
#   --no-build       start what was built before
#   --with WHAT      func: Core Tools and the emulator, or an error; local: never them [default: auto]
# local.settings.json is made from the example when there is none; one that is there stays as it is.
# The way with Core Tools and the emulator was not run where this was written: neither was there.
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
  # Stdout belongs to what is started.
  cargo build --locked --profile "$profile" --bin cosmos-rewind >&2
fi
[[ -x $built ]] || fail "$built is not there" "leave --no-build out"

if [[ -e local.settings.json ]]; then
  say "settings   local.settings.json, as it is"
else
  cp local.settings.example.json local.settings.json
  say "settings   local.settings.json, made from the example"
fi

# Why the real host cannot be used; empty when it can.
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
  # It takes this process over, and with it Ctrl-C.
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
