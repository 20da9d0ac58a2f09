#!/usr/bin/env bash
# Builds the package for Azure Functions: a zip with host.json, the function folders and a static Linux binary without
# the local environment. The result does not depend on the machine or the time of the build.
#
# Usage: scripts/package.sh [--out FILE.zip] [--profile dist|release|dev] [--mode latest|all-versions] [--target TRIPLE]
#                           [--jobs N] [--config FILE] [--binary FILE]
#   --out FILE.zip   path of the package [default: target/package/cosmos-rewind-TRIPLE.zip]
#   --profile NAME   dist: smallest, slow to build [default]; release: larger, faster to build; dev: large and slow, only for
#                    tests of the package
#   --mode MODE      all-versions: write this change feed mode into the package
#                    [default: latest, as in the repository's files]
#   --target TRIPLE  [default: x86_64-unknown-linux-musl]
#   --jobs N         number of parallel compiler jobs [default: cargo's]
#   --config FILE    additional configuration for cargo, an absolute path
#   --binary FILE    pack this static binary instead of building one
# Needs Rust, python3, and a C compiler for musl. The Rust target is added with rustup, and the compiler is installed
# with apt-get when run as root; otherwise the script reports what is missing. SOURCE_DATE_EPOCH sets the files' time;
# the default is the time of the last commit.
set -euo pipefail

usage() { sed -n '/^# Usage/,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; }
fail() {
  printf 'error: %s\n' "$1" >&2
  [[ -z ${2:-} ]] || printf '  fix: %s\n' "$2" >&2
  exit "${3:-1}"
}

out='' profile=dist mode=latest target=x86_64-unknown-linux-musl binary='' more=()
while [[ $# -gt 0 ]]; do
  case $1 in
    -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
    --out | --profile | --mode | --target | --jobs | --config | --binary)
      [[ -n ${2:-} ]] || fail "$1 needs a value" "scripts/package.sh --help" 2
      case $1 in
        --out) out=$2 ;;
        --profile) profile=$2 ;;
        --mode) mode=$2 ;;
        --target) target=$2 ;;
        --jobs | --config) more+=("$1" "$2") ;;
        --binary) binary=$2 ;;
      esac
      shift 2
      ;;
    *) usage >&2; exit 2 ;;
  esac
done
case $profile in dist | release | dev) ;; *) fail "profile $profile is not known" "dist, release or dev" 2 ;; esac
case $mode in latest | all-versions) ;; *) fail "mode $mode is not known" "latest or all-versions" 2 ;; esac
case $target in *-linux-musl) ;; *) fail "$target is not a static Linux target" "x86_64-unknown-linux-musl or aarch64-unknown-linux-musl" 2 ;; esac

# Relative arguments refer to the caller's working directory.
[[ -z $out || $out == /* ]] || out=$PWD/$out
[[ -z $binary || $binary == /* ]] || binary=$PWD/$binary
cd "$(dirname "$0")/.."
root=$(pwd -P)
out=${out:-$root/target/package/cosmos-rewind-$target.zip}
[[ $out == *.zip ]] || fail "$out is no zip file" "--out something.zip" 2

need() { command -v "$1" >/dev/null || fail "$1 is not installed" "$2"; }
need python3 "install python3, which writes the zip"

build() {
  need cargo "install Rust: https://rustup.rs"
  need rustc "install Rust: https://rustup.rs"

  # The standard library for the target.
  if [[ ! -d $(rustc --print sysroot)/lib/rustlib/$target/lib ]]; then
    command -v rustup >/dev/null || fail "Rust has no standard library for $target" "install it as your distribution says, or use rustup"
    rustup target add "$target" || fail "rustup could not add $target" "rustup target add $target"
  fi

  # The allocator and the cryptography library are C code.
  variable=${target//-/_}
  compiler_variable=CC_$variable
  compiler=${!compiler_variable:-}
  if [[ -z $compiler ]]; then
    case $target in
      "$(uname -m)"-*) compiler=musl-gcc ;;
      *) compiler=${target%%-*}-linux-musl-gcc ;;
    esac
    if ! command -v "$compiler" >/dev/null && [[ $compiler == musl-gcc && $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
      apt-get update -qq
      DEBIAN_FRONTEND=noninteractive apt-get install -y -qq musl-tools >/dev/null
    fi
  fi
  command -v "$compiler" >/dev/null || fail "$compiler is not installed: a static build needs a C compiler for musl" \
    "apt-get install musl-tools (as root), or set $compiler_variable to your compiler"
  export "$compiler_variable=$compiler"

  # Paths of this machine would change the bytes, and reveal where the package was built.
  cargo_home=${CARGO_HOME:-$HOME/.cargo}
  # The allocator contains its compilation time. It is a constant here, because a cached object would contain another
  # time.
  local c="-ffile-prefix-map=$root=/build -ffile-prefix-map=$cargo_home=/cargo"
  c+=' -Wno-builtin-macro-redefined -D__DATE__="1980-01-01" -D__TIME__="00:00:00"'
  export "CFLAGS_$variable=$c"
  upper=$(tr '[:lower:]' '[:upper:]' <<<"$variable")
  # Relocations in the compact form: the long form is a megabyte that every start reads and that stays in memory.
  local link=-Clink-arg=-Wl,-z,pack-relative-relocs
  export "CARGO_TARGET_${upper}_RUSTFLAGS=--remap-path-prefix=$root=/build --remap-path-prefix=$cargo_home=/cargo $link"
  # These would override the flags above.
  unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_RUSTFLAGS

  export CARGO_TARGET_DIR=$root/target
  begun=$SECONDS
  # SOURCE_DATE_EPOCH only concerns the zip: for each value, the C crates would be recompiled to the same bytes.
  env -u SOURCE_DATE_EPOCH cargo build --locked --no-default-features --bin cosmos-rewind --profile "$profile" --target "$target" ${more[@]+"${more[@]}"}
  # The folder of the profile dev has a different name.
  binary=$root/target/$target/${profile/#dev/debug}/cosmos-rewind
  echo "built      profile $profile in $((SECONDS - begun)) s"
}
[[ -n $binary ]] || build

epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || true)}
mkdir -p "$(dirname "$out")"
python3 - "$binary" "$out" "$mode" "${epoch:-315532800}" <<'PYTHON'
import hashlib, json, os, pathlib, stat, sys, time, zipfile

binary, out, mode, epoch = sys.argv[1:]
executable = "cosmos-rewind"


def fail(text):
    sys.exit(f"error: {text}")


def changed(path, change):
    """The file's JSON with a change, in the original order; the repository's file is not modified."""
    value = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    change(value)
    return (json.dumps(value, indent=2) + "\n").encode()


def host(value):
    # In the repository, the handler is in cargo's output folder; in the package it is next to host.json.
    value["customHandler"]["description"]["defaultExecutablePath"] = executable


def function(value):
    if mode == "all-versions":
        for binding in value["bindings"]:
            if binding["type"].lower() == "cosmosdbtrigger":
                binding["changeFeedMode"] = "AllVersionsAndDeletes"
                # The trigger refuses leases that were created in the other mode.
                if "leaseContainerPrefix" in binding:
                    binding["leaseContainerPrefix"] += "-all-versions"
                # This mode starts now or resumes from a lease; the trigger refuses a start from the beginning.
                binding.pop("startFromBeginning", None)
                binding.pop("startFromTime", None)


program = pathlib.Path(binary).read_bytes()
# ELF, 64 bit, little-endian: a program header of type PT_INTERP (3) names a dynamic loader.
if program[:6] != b"\x7fELF\x02\x01":
    fail(f"{binary} is no 64-bit ELF program")
offset = int.from_bytes(program[32:40], "little")
size, count = (int.from_bytes(program[at : at + 2], "little") for at in (54, 56))
kinds = [int.from_bytes(program[offset + i * size :][:4], "little") for i in range(count)]
if 3 in kinds:
    fail(f"{binary} is not static: it asks for a dynamic loader")

files = {"host.json": (0o644, changed("host.json", host)), executable: (0o755, program)}
functions = sorted(pathlib.Path(".").glob("*/function.json"))
if not functions:
    fail("no folder has a function.json")
for path in functions:
    files[path.as_posix()] = (0o644, changed(path, function))
if mode == "all-versions" and not any(b"AllVersionsAndDeletes" in content for _, content in files.values()):
    fail("no function has a Cosmos DB trigger to set the mode of")

# Times in a zip start in 1980 and have a resolution of two seconds.
when = time.gmtime(max(int(epoch), 315532800) // 2 * 2)[:6]
temporary = out + ".new"
with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as package:
    for name in sorted(files):
        mode_bits, content = files[name]
        entry = zipfile.ZipInfo(name, when)
        entry.create_system = 3  # Unix, or the modes are not read
        entry.external_attr = (stat.S_IFREG | mode_bits) << 16
        entry.compress_type = zipfile.ZIP_DEFLATED
        package.writestr(entry, content)
os.replace(temporary, out)

for name in sorted(files):
    mode_bits, content = files[name]
    print(f"{mode_bits:o} {len(content):>10,} {name}")
packed = pathlib.Path(out).read_bytes()
print(f"package    {out}")
print(f"mode       {mode}")
print(f"size       {len(packed):,} bytes")
print(f"sha256     {hashlib.sha256(packed).hexdigest()}")
PYTHON
