//! The whole of it against a model: the real handler, a host that plays Azure's, faults, kills, and the commands.

mod chaos;
mod world;

/// A number in the environment.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}
