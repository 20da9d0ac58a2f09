//! Checks the properties of the fuzz targets for their seeds, which include every input that once broke one. Includes
//! the targets' code, so that it keeps compiling with the product.

#[path = "../fuzz/src/lib.rs"]
mod properties;

use std::{collections::BTreeSet, panic};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

fn folder(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(name)
}

#[test]
fn every_seed_of_every_target_keeps_its_properties() {
    let mut broken = Vec::new();
    for (name, target) in properties::TARGETS {
        let mut seeds = 0;
        for entry in std::fs::read_dir(folder("seeds").join(name)).unwrap() {
            let path = entry.unwrap().path();
            let seed = std::fs::read(&path).unwrap();
            seeds += 1;
            if panic::catch_unwind(|| target(&seed)).is_err() {
                broken.push(path);
            }
            // A truncated seed is another input.
            if panic::catch_unwind(|| target(&seed[..seed.len() / 2])).is_err() {
                broken.push(path_of_half(&seed, name));
            }
        }
        assert!(seeds > 0, "{name} has no seeds");
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

/// Random inputs: the fuzzers' starting point, without their learning. `COSMOS_REWIND_INPUTS` is the number for each
/// target, `COSMOS_REWIND_TARGET` selects one target.
#[test]
fn random_inputs_keep_the_properties_of_every_target() {
    let count = std::env::var("COSMOS_REWIND_INPUTS").map_or(100, |count| count.parse().unwrap());
    let wanted = std::env::var("COSMOS_REWIND_TARGET").ok();
    let mut broken = Vec::new();
    for (name, target) in properties::TARGETS {
        if wanted.as_ref().is_some_and(|wanted| wanted != name) {
            continue;
        }
        let mut rng = StdRng::seed_from_u64(42);
        let seeds: Vec<Vec<u8>> = std::fs::read_dir(folder("seeds").join(name))
            .unwrap()
            .map(|e| std::fs::read(e.unwrap().path()).unwrap())
            .collect();
        for _ in 0..count {
            let mut input: Vec<u8> = match rng.random_bool(0.5) {
                true => (0..rng.random_range(0..300)).map(|_| rng.random()).collect(),
                false => seeds[rng.random_range(0..seeds.len())].clone(),
            };
            for _ in 0..rng.random_range(0..4) {
                let place = rng.random_range(0..=input.len());
                match rng.random_range(0..3) {
                    0 => input.truncate(place),
                    1 => input.insert(place, rng.random()),
                    _ => input.rotate_left(place),
                }
            }
            if panic::catch_unwind(|| target(&input)).is_err() {
                broken.push(format!("{name}: {}", String::from_utf8_lossy(&input)));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

fn path_of_half(seed: &[u8], name: &str) -> std::path::PathBuf {
    format!("half of a seed of {name}: {:?}", String::from_utf8_lossy(&seed[..seed.len() / 2])).into()
}

#[test]
fn every_target_is_built_and_has_seeds() {
    let names = |path: std::path::PathBuf| -> BTreeSet<String> {
        let entries = std::fs::read_dir(path).unwrap();
        entries.map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect()
    };
    let mut known: BTreeSet<String> = properties::TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    if !cfg!(feature = "mongodb") {
        known.insert("bson_text".into());
    }
    assert_eq!(names(folder("seeds")), known);
    assert_eq!(names(folder("fuzz_targets")), known);
    let manifest = std::fs::read_to_string(folder("Cargo.toml")).unwrap();
    for name in known {
        assert!(manifest.contains(&format!("name = \"{name}\"\npath = \"fuzz_targets/{name}.rs\"")), "{name}");
        let text = std::fs::read_to_string(folder(&format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(text.contains(&format!("properties::{name}(data)")), "{name}");
    }
}
