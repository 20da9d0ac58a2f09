//! MongoDB sources: so far the server of the tests alone.

mod ru_server;
