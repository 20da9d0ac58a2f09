//! Gives the static package its own functions to copy and compare memory; what other builds link is fast enough.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=native/memory.c");
    let target = |part: &str| env::var(format!("CARGO_CFG_TARGET_{part}")).unwrap_or_default();
    if target("ENV") != "musl" || target("ARCH") != "x86_64" {
        return;
    }
    // A library of the crate comes before the C library, so the linker never gets to the functions there.
    cc::Build::new()
        .file("native/memory.c")
        // Unoptimised it would be slower than what it replaces.
        .opt_level(2)
        .warnings_into_errors(true)
        // Or the compiler makes calls of memcpy from the loops of memcpy.
        .flag("-fno-builtin")
        .flag_if_supported("-fno-tree-loop-distribute-patterns")
        .compile("memory");
}
