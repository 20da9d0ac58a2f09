# What people do here, by `just NAME` (https://just.systems). Each line works without just, too.

set shell := ["bash", "-euo", "pipefail", "-c"]

# Lists the recipes
default:
    @just --list

# Compiles everything, without running it
check:
    cargo check --all-targets

# Format, lints, documents of the code: what takes seconds
lint:
    cargo fmt --all --check
    cargo clippy --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps

# All tests
test:
    cargo test

# Tests that need no process: units, simulations on memory, documents, layers
test-fast:
    cargo test --lib
    cargo test --test main -- simulation::capture architecture:: docs:: reference:: fixtures:: fuzz_seeds:: infra:: security::source::values

# The whole story on this machine
demo:
    cargo run -- demo

# What a batch costs
bench:
    scripts/bench-capture.sh

# One fuzz target for a while (fuzz/README.md lists them)
fuzz target seconds="60":
    cargo +nightly fuzz run -s none {{target}} fuzz/corpus/{{target}} fuzz/seeds/{{target}} -- -max_total_time={{seconds}}

# Random runs for longer
soak minutes="30":
    scripts/soak.sh --minutes {{minutes}}

# Does the simulation notice what it should?
mutants *names:
    scripts/mutants.sh {{names}}

# Writes the generated pages of docs/reference, then checks all documents
docs:
    COSMOS_REWIND_WRITE_DOCS=1 cargo test --test main -- reference::
    cargo test --test main -- docs:: reference::

# What is deployed: a static binary and the app's files
package:
    scripts/package.sh

# Everything that has to hold before a release
release: ci package

# What decides whether a change lands
ci:
    .ci/run
