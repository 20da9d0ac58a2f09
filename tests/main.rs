//! Integration tests, one binary: the real program over real HTTP, against the local account.

#![allow(clippy::unwrap_used, reason = "helpers of tests may unwrap as the tests themselves")]

#[cfg(feature = "local")]
mod app_files;
mod architecture;
#[cfg(feature = "local")]
mod at;
#[cfg(feature = "local")]
mod backup;
#[cfg(feature = "local")]
mod bulk;
#[cfg(feature = "local")]
mod capture;
#[cfg(feature = "local")]
mod capture_part;
#[cfg(feature = "local")]
mod cli;
#[cfg(feature = "local")]
mod cli_contract;
mod commands;
#[cfg(feature = "local")]
mod contract;
#[cfg(feature = "local")]
mod dead_letters;
#[cfg(feature = "local")]
mod demo;
mod dependencies;
mod docs;
#[cfg(feature = "local")]
mod doctor;
#[cfg(feature = "local")]
mod erase;
#[cfg(feature = "local")]
mod find;
#[cfg(feature = "local")]
mod fixtures;
#[cfg(feature = "local")]
mod follow;
#[cfg(feature = "local")]
mod follow_model;
mod follow_sinks;
mod fuzz_seeds;
#[cfg(feature = "local")]
mod history;
#[cfg(feature = "local")]
mod host_payloads;
mod infra;
#[cfg(feature = "local")]
mod library;
mod load_archive;
#[cfg(feature = "local")]
mod local;
#[cfg(feature = "local")]
mod local_clients;
#[cfg(feature = "local")]
mod local_cosmos;
#[cfg(feature = "local")]
mod local_payloads;
#[cfg(feature = "local")]
mod local_trigger;
#[cfg(feature = "local")]
mod log_lines;
#[cfg(all(feature = "local", feature = "mongodb"))]
mod mongodb;
#[cfg(feature = "local")]
mod new_function;
#[cfg(feature = "local")]
mod otlp;
#[cfg(all(feature = "local", target_os = "linux"))]
mod package;
#[cfg(feature = "local")]
mod prune;
#[cfg(feature = "local")]
mod reference;
mod restore;
mod restore_archive;
#[cfg(feature = "local")]
mod rewind;
#[cfg(feature = "local")]
mod rewind_faults;
#[cfg(feature = "local")]
mod rewind_keys;
#[cfg(feature = "local")]
mod rewind_model;
#[cfg(feature = "local")]
mod rewind_refusals;
#[cfg(feature = "local")]
mod rewind_revert;
#[cfg(feature = "local")]
mod rewind_together;
#[cfg(feature = "local")]
mod scan;
#[cfg(all(feature = "local", target_os = "linux"))]
mod scripts;
#[cfg(feature = "local")]
mod sdks;
#[cfg(all(feature = "local", target_os = "linux"))]
mod security;
#[cfg(feature = "local")]
mod settings;
#[cfg(feature = "local")]
mod simulation;
#[cfg(feature = "local")]
mod support;
#[cfg(feature = "local")]
mod trust;
#[cfg(feature = "local")]
mod truth;
