//! The promises of SECURITY.md: who can reach the program, how it handles hostile bytes, and what it leaves on disk.

mod hostile_files;
mod network;
mod own_files;
mod secrets;
mod source;
