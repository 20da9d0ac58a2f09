//! A port that refuses connections. It stays reserved while held, because other tests keep taking free ports.

use std::net::SocketAddr;

use tokio::net::TcpSocket;

/// A reserved port; connections to it are refused.
pub struct ClosedPort {
    socket: TcpSocket,
}

impl ClosedPort {
    /// Reserves a port without listening on it. Must be called in a runtime.
    pub fn take() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        Self { socket }
    }

    pub fn address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }
}
