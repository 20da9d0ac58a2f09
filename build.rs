//! Compiles what is written in C: a default of the allocator, and, for the static package, functions that copy and
//! compare memory; what other builds link for that is fast enough.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=native");
    allocator();
    memory();
}

fn target(part: &str) -> String {
    env::var(format!("CARGO_CFG_TARGET_{part}")).unwrap_or_default()
}

/// An object of the binary, not of the library: nothing calls it, so the linker would leave it out of a library.
fn allocator() {
    let include = env::var("DEP_MIMALLOC_INCLUDE_DIR").expect("libmimalloc-sys says where its header is");
    // It has no constructors of this form.
    if target("ENV") == "msvc" {
        return;
    }
    let objects =
        cc::Build::new().file("native/allocator.c").include(include).warnings_into_errors(true).compile_intermediates();
    for object in objects {
        println!("cargo::rustc-link-arg-bins={}", object.display());
    }
}

/// A library of the crate comes before the C library, so the linker never gets to the functions there.
fn memory() {
    if target("ENV") != "musl" || target("ARCH") != "x86_64" {
        return;
    }
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
