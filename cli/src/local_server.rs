//! The server with the default data directory, if one runs: it alone is shown the
//! administrator's token that lies there. On a loopback port anybody's program may
//! listen.

use std::fs::{File, TryLockError};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use larder_client::Endpoint;
use larder_server::ADDRESS_FILE;

use crate::data_dir::ADMIN_TOKEN_FILE;

/// Longest file of addresses read, bytes.
const MAX_ADDRESS_FILE_BYTES: u64 = 64 << 10;

/// Where the server listens whose data directory this is.
#[derive(Debug)]
pub(crate) struct LocalServer {
    dir: PathBuf,
    /// None, if no server has it open.
    addresses: Vec<String>,
}

/// Whether a URL leads to that server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// To it, and to nothing else.
    There,
    /// Perhaps to other programs as well; to it alone with this one.
    By(String),
    /// To something else, or perhaps to something else.
    Elsewhere,
}

/// Whether the server has to prove its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Certificate {
    Checked,
    Unchecked,
}

impl LocalServer {
    pub(crate) fn of(dir: PathBuf) -> Self {
        let addresses = addresses(&dir.join(ADDRESS_FILE)).unwrap_or_default();
        Self { dir, addresses }
    }

    pub(crate) fn token_file(&self) -> PathBuf {
        self.dir.join(ADMIN_TOKEN_FILE)
    }

    /// Whether what is sent to `endpoint` reaches this server and nobody else.
    pub(crate) fn way(&self, endpoint: &Endpoint, certificate: Certificate) -> Way {
        let way = |is_there| if is_there { Way::There } else { Way::Elsewhere };
        if let Some(path) = endpoint.socket_path() {
            return way(self.has_socket(path));
        }
        let Some((host, port)) = endpoint.host_and_port() else {
            return Way::Elsewhere;
        };
        if let Ok(ip) = host.parse::<IpAddr>() {
            let ip = ip.to_canonical();
            return way(ip.is_loopback() && self.listens(ip, port));
        }
        if !endpoint.is_loopback() {
            return Way::Elsewhere;
        }
        // `localhost` may lead to both, and on either another program may listen.
        let both = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        let mut its = both.into_iter().filter(|ip| self.listens(*ip, port));
        match its.next() {
            None => Way::Elsewhere,
            Some(ip) if !endpoint.is_tls() => {
                Way::By(format!("http://{}", SocketAddr::new(ip, port)))
            }
            Some(_) => way(certificate == Certificate::Checked || its.next().is_some()),
        }
    }

    /// Why the token was not sent, and what to do about it.
    pub(crate) fn withheld(&self) -> String {
        let token = self.token_file();
        let token = token.display();
        if self.addresses.is_empty() {
            return format!(
                "the token in {token} was not sent, for no server that uses this directory runs; \
                 --token-file sends it"
            );
        }
        format!(
            "the token in {token} was not sent, for it is of the server on {}; --token-file sends \
             it elsewhere",
            self.addresses.join(", ")
        )
    }

    fn listens(&self, ip: IpAddr, port: u16) -> bool {
        let listeners = self.addresses.iter().filter_map(|line| line.parse().ok());
        listeners.into_iter().any(|listener: SocketAddr| {
            let takes_all = listener.ip().is_unspecified() && listener.is_ipv4() == ip.is_ipv4();
            listener.port() == port && (listener.ip().to_canonical() == ip || takes_all)
        })
    }

    fn has_socket(&self, path: &Path) -> bool {
        let sockets = self.addresses.iter();
        let mut sockets = sockets.filter_map(|line| line.strip_prefix("unix:"));
        let Ok(path) = path.canonicalize() else {
            return false;
        };
        sockets.any(|socket| {
            Path::new(socket)
                .canonicalize()
                .is_ok_and(|its| its == path)
        })
    }
}

/// The lines of the file, while the server that wrote it holds its lock: one that was
/// killed leaves the file behind, and its port to others.
fn addresses(path: &Path) -> io::Result<Vec<String>> {
    let file = File::open(path)?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(error)) => return Err(error),
        Ok(()) => return Ok(Vec::new()),
    }
    let text = io::read_to_string(io::Read::take(file, MAX_ADDRESS_FILE_BYTES))?;
    Ok(text.lines().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(listening: &[&str], target: &str, certificate: Certificate, expected: &Way) {
        let local = LocalServer {
            dir: PathBuf::new(),
            addresses: listening.iter().map(ToString::to_string).collect(),
        };
        let way = local.way(&Endpoint::parse(target).unwrap(), certificate);
        assert_eq!(&way, expected, "{listening:?} {target} {certificate:?}");
    }

    #[test]
    fn a_url_leads_to_the_server_only_if_nobody_else_can_listen_there() {
        let (checked, any) = (Certificate::Checked, Certificate::Unchecked);
        let by = |url: &str| Way::By(url.to_owned());
        let v4 = &["127.0.0.1:5051"][..];
        let v6 = &["[::1]:5051"][..];
        let everywhere = &["0.0.0.0:5051"][..];
        let everywhere_v6 = &["[::]:5051"][..];
        // What the server writes of such a listener where it takes IPv4 too.
        let all = &["[::]:5051", "0.0.0.0:5051"][..];
        let local = "https://localhost:5051";
        for (listening, target, certificate, expected) in [
            (v4, "http://127.0.0.1:5051", checked, Way::There),
            (v4, "http://[::ffff:127.0.0.1]:5051", checked, Way::There),
            (v4, "https://127.0.0.1:5051", any, Way::There),
            (v4, "http://127.0.0.1:9999", checked, Way::Elsewhere),
            (v4, "http://127.0.0.1", checked, Way::Elsewhere),
            (v4, "http://127.0.0.2:5051", checked, Way::Elsewhere),
            (v4, "http://[::1]:5051", checked, Way::Elsewhere),
            (v4, "https://[::1]:5051", checked, Way::Elsewhere),
            (v4, "http://10.0.0.1:5051", checked, Way::Elsewhere),
            (v4, "http://cache.example:5051", checked, Way::Elsewhere),
            (v4, "unix:/run/larder.sock", checked, Way::Elsewhere),
            (v6, "http://[::1]:5051", checked, Way::There),
            (v6, "http://127.0.0.1:5051", checked, Way::Elsewhere),
            (everywhere, "http://127.0.0.2:5051", checked, Way::There),
            (everywhere, "http://[::1]:5051", checked, Way::Elsewhere),
            (everywhere, "http://10.0.0.1:5051", checked, Way::Elsewhere),
            (everywhere_v6, "http://[::1]:5051", checked, Way::There),
            (
                everywhere_v6,
                "http://127.0.0.1:5051",
                checked,
                Way::Elsewhere,
            ),
            (all, "http://127.0.0.1:5051", checked, Way::There),
            // A name may lead to an address that is somebody else's.
            (
                v4,
                "http://LOCALHOST:5051",
                any,
                by("http://127.0.0.1:5051"),
            ),
            (v6, "http://localhost:5051", any, by("http://[::1]:5051")),
            (v4, "http://localhost:9999", any, Way::Elsewhere),
            (v4, local, checked, Way::There),
            (v4, local, any, Way::Elsewhere),
            (everywhere_v6, local, any, Way::Elsewhere),
            (all, local, any, Way::There),
            (&["127.0.0.1:5051", "[::1]:5051"], local, any, Way::There),
            (&[], "http://127.0.0.1:5051", checked, Way::Elsewhere),
            (
                &["nonsense"],
                "http://127.0.0.1:5051",
                checked,
                Way::Elsewhere,
            ),
        ] {
            check(listening, target, certificate, &expected);
        }
    }

    #[test]
    fn a_socket_is_the_servers_by_whatever_name() {
        let folder = tempfile::tempdir().unwrap();
        let (socket, other) = (folder.path().join("a.sock"), folder.path().join("b.sock"));
        let link = folder.path().join("c.sock");
        std::fs::write(&socket, "").unwrap();
        std::fs::write(&other, "").unwrap();
        std::os::unix::fs::symlink(&socket, &link).unwrap();
        let listening = format!("unix:{}", socket.display());
        let checked = Certificate::Checked;
        for (path, expected) in [
            (&socket, Way::There),
            (&link, Way::There),
            (&other, Way::Elsewhere),
            (&folder.path().join("none"), Way::Elsewhere),
        ] {
            check(
                &[&listening],
                &format!("unix:{}", path.display()),
                checked,
                &expected,
            );
        }
    }

    #[test]
    fn the_file_of_a_server_that_was_killed_says_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(ADDRESS_FILE);
        let file = File::create(&path).unwrap();
        std::fs::write(&path, "127.0.0.1:5051\nunix:/run/larder.sock\n").unwrap();
        assert!(LocalServer::of(folder.path().into()).addresses.is_empty());

        file.lock().unwrap();
        let local = LocalServer::of(folder.path().into());
        assert_eq!(local.addresses, ["127.0.0.1:5051", "unix:/run/larder.sock"]);
    }
}
