//! The program under test, as a server.

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::process::{Child, Command, Stdio};

/// Where nobody listens yet.
pub(crate) const ANY_PORT: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0));

/// A server that ends with the test.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    data_home: tempfile::TempDir,
}

impl Server {
    pub(crate) fn start(address: SocketAddr) -> Self {
        Self::start_with(address, &[])
    }

    /// One that is set so.
    pub(crate) fn start_with(address: SocketAddr, environment: &[(&str, &str)]) -> Self {
        let data_home = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_larder"))
            .args(["serve", "--listen", &address.to_string()])
            .env_clear()
            .env("XDG_DATA_HOME", data_home.path())
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines
            .find_map(|line| line.unwrap().strip_prefix("listening on ")?.parse().ok())
            .unwrap();
        Self {
            child,
            address,
            data_home,
        }
    }

    /// `XDG_DATA_HOME` of commands whose default data directory is the server's.
    pub(crate) fn data_home(&self) -> &str {
        self.data_home.path().to_str().unwrap()
    }

    /// SIGTERM: it sends its clients away, and ends when their calls have.
    pub(crate) fn drain(&mut self) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status().unwrap();
        assert!(sent.success());
        assert!(self.child.wait().unwrap().success());
    }

    /// SIGKILL: it says goodbye to nobody.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails where it has ended.
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }
}
