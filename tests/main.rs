//! Integration tests in one binary: the real program over real HTTP, against the local account.

#![allow(clippy::unwrap_used, reason = "helpers of tests may unwrap as the tests themselves")]

// As in the program. Much of the tests' work is the local account's, inside this process.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

mod app_files;
mod architecture;
mod at;
mod backup;
mod backup_clock;
mod bulk;
mod busy;
mod capture;
mod capture_part;
mod cli;
mod cli_contract;
mod commands;
mod contract;
mod dead_letters;
mod demo;
mod dependencies;
mod docs;
mod doctor;
mod erase;
mod erase_keys;
mod erase_together;
mod find;
mod fixtures;
mod follow;
mod follow_model;
mod follow_sinks;
mod fork;
mod frontier;
mod fuzz_seeds;
mod history;
mod host_payloads;
mod infra;
mod interrupts;
mod library;
mod load_archive;
mod load_conflicts;
mod local;
mod local_clients;
mod local_cosmos;
mod local_payloads;
mod local_trigger;
mod log_lines;
#[cfg(feature = "mongodb")]
mod mongodb;
mod new_function;
mod otlp;
#[cfg(target_os = "linux")]
mod package;
mod prune;
mod prune_days;
mod reference;
mod restore;
mod restore_archive;
mod rewind;
mod rewind_faults;
mod rewind_keys;
mod rewind_model;
mod rewind_refusals;
mod rewind_revert;
mod rewind_together;
mod scan;
#[cfg(target_os = "linux")]
mod scripts;
mod sdks;
#[cfg(target_os = "linux")]
mod security;
mod settings;
mod simulation;
mod support;
mod trust;
mod truth;
mod unpolled;
