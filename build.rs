//! Compiles the C code: a default of the allocator, and memory functions for the static package, because musl's are
//! slow. Other builds link fast ones anyway. Chooses how binaries for development are loaded.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=native");
    allocator();
    memory();
    fixed_address();
}

fn target(part: &str) -> String {
    env::var(format!("CARGO_CFG_TARGET_{part}")).unwrap_or_default()
}

/// Linked as an object into the binaries: nothing calls it, so the linker would drop it from a library.
fn allocator() {
    let include = env::var("DEP_MIMALLOC_INCLUDE_DIR").expect("libmimalloc-sys says where its header is");
    // MSVC has no constructors of this form.
    if target("ENV") == "msvc" {
        return;
    }
    let objects =
        cc::Build::new().file("native/allocator.c").include(include).warnings_into_errors(true).compile_intermediates();
    for object in objects {
        println!("cargo::rustc-link-arg-bins={}", object.display());
    }
}

/// The crate's libraries precede the C library, so the linker uses these functions instead of its own.
fn memory() {
    if target("ENV") != "musl" || target("ARCH") != "x86_64" {
        return;
    }
    cc::Build::new()
        .file("native/memory.c")
        // Unoptimized, it would be slower than what it replaces.
        .opt_level(2)
        .warnings_into_errors(true)
        // Otherwise the compiler would turn the loops in memcpy into calls of memcpy.
        .flag("-fno-builtin")
        .flag_if_supported("-fno-tree-loop-distribute-patterns")
        .compile("memory");
}

/// At a fixed address, a binary for development starts in less than half the time: there are no relocations, which are
/// hundreds of thousands without optimization. The tests start it some thousands of times.
fn fixed_address() {
    let development = env::var("PROFILE").is_ok_and(|profile| profile == "debug");
    if development && target("OS") == "linux" && target("ENV") == "gnu" {
        println!("cargo::rustc-link-arg-bins=-no-pie");
    }
}
