//! The file in the data directory that says where its server listens.
//!
//! The `larder` command shows the administrator's token of the default data directory
//! to nobody but the server that has this directory open: on a port of this machine,
//! anybody's program may listen.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Name of the file in the data directory: an address on each line, as `--server` takes
/// them.
pub const ADDRESS_FILE: &str = "addresses";

/// The file, for as long as the server may listen. The lock on it tells a server that
/// runs from one that was killed and left its file behind.
#[derive(Debug)]
pub(crate) struct AddressFile {
    path: PathBuf,
    file: File,
}

impl AddressFile {
    /// Writes it for the owner alone, in one step, and locks it. Whoever calls has the
    /// data directory to itself.
    ///
    /// # Errors
    /// It cannot be written, or be locked.
    pub(crate) fn write<'a>(
        dir: &Path,
        addresses: impl Iterator<Item = &'a str>,
    ) -> io::Result<Self> {
        let path = dir.join(ADDRESS_FILE);
        let new = path.with_added_extension("new");
        // Left over from a crash.
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        let options = options.write(true).create_new(true).mode(0o600);
        let mut file = options.open(&new)?;
        // Its reader may come before its name does.
        file.try_lock()?;
        for address in addresses {
            writeln!(file, "{}", absolute(address)?)?;
            if let Some(ipv4) = taken_too(address) {
                writeln!(file, "{ipv4}")?;
            }
        }
        std::fs::rename(&new, &path)?;
        Ok(Self { path, file })
    }
}

impl Drop for AddressFile {
    fn drop(&mut self) {
        // It may have been removed by hand already.
        let _ = std::fs::remove_file(&self.path);
        // Closing the file does not do: a child process that is just being started
        // holds a copy of it until it runs its own program.
        let _ = self.file.unlock();
    }
}

/// Where a listener on all of IPv6 takes connections of IPv4 as well. Where that is not known, another
/// program may.
fn taken_too(address: &str) -> Option<SocketAddr> {
    let address: SocketAddr = address.parse().ok()?;
    if address.ip() != IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        return None;
    }
    let v6_only = std::fs::read_to_string("/proc/sys/net/ipv6/bindv6only").ok()?;
    (v6_only.trim() == "0").then(|| (Ipv4Addr::UNSPECIFIED, address.port()).into())
}

/// The path of a Unix socket as others find it, wherever they run.
fn absolute(address: &str) -> io::Result<String> {
    match address.strip_prefix("unix:") {
        None => Ok(address.to_owned()),
        Some(path) => Ok(format!("unix:{}", std::path::absolute(path)?.display())),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::TryLockError;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_file_says_where_the_server_listens_and_goes_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(ADDRESS_FILE);
        // A server was killed twice, once while it wrote.
        std::fs::write(&path, "127.0.0.1:1\n").unwrap();
        std::fs::write(folder.path().join("addresses.new"), "127.0").unwrap();

        let addresses = [
            "127.0.0.1:5051",
            "unix:/run/larder.sock",
            "unix:larder.sock",
        ];
        let written = AddressFile::write(folder.path(), addresses.into_iter()).unwrap();
        let here = std::env::current_dir().unwrap();
        let expected = format!(
            "127.0.0.1:5051\nunix:/run/larder.sock\nunix:{}/larder.sock\n",
            here.display()
        );
        assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let locked = File::open(&path).unwrap().try_lock_shared();
        assert!(
            matches!(locked, Err(TryLockError::WouldBlock)),
            "{locked:?}"
        );

        drop(written);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
