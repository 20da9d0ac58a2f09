//! A port that nobody listens on, and nobody else gets while it is held: other tests take free ports all the time.

use std::net::SocketAddr;

use tokio::net::TcpSocket;

/// Connections to it are refused.
pub struct ClosedPort {
    socket: TcpSocket,
}

impl ClosedPort {
    /// Takes a port and does not listen. Must be called in a runtime.
    pub fn take() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        Self { socket }
    }

    pub fn address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }
}
