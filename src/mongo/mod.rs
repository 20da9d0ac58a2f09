//! MongoDB, and what speaks its protocol on Azure: a source of changes, and a target of restores. The rest of this
//! program sees documents as text, and does not know where they come from.

mod address;
mod captured;
mod client;
mod dialect;
mod document;
mod failure;
mod kind;
mod live;
mod shards;
mod stream;

pub use self::{
    address::{Address, NotAnAddress, NotUnderstood},
    client::{Mongo, close},
    dialect::Dialect,
    live::MongoCollection,
    stream::{BadScope, ChangeStream, StreamScope, delete_item, last_of, place_of, still_reads_since},
};
