//! What SECURITY.md promises: who can reach the program, what it makes of hostile bytes, and what it leaves on the disk.

mod hostile_files;
mod network;
mod own_files;
mod secrets;
mod source;
