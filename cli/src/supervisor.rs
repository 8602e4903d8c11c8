//! What systemd is told of a server: `sd_notify(3)`, a datagram to the socket that
//! `NOTIFY_SOCKET` names. Without it, nothing.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use rustix::time::{ClockId, clock_gettime};

/// What there is to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// It serves, or serves with its new configuration.
    Ready,
    /// It reads its configuration again.
    Reloading,
    /// It drains.
    Stopping,
}

/// Tells the supervisor, if there is one.
pub(crate) fn notify(state: State) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
        return;
    };
    if let Err(error) = send(&socket, &message(state)) {
        tracing::warn!(%error, "the supervisor at NOTIFY_SOCKET cannot be told");
    }
}

fn message(state: State) -> String {
    match state {
        State::Ready => "READY=1\nSTATUS=serving".to_owned(),
        State::Stopping => "STOPPING=1\nSTATUS=draining".to_owned(),
        // `Type=notify-reload` asks for the time, to tell this reload from one before.
        State::Reloading => {
            let now = clock_gettime(ClockId::Monotonic);
            let microseconds = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
            format!("RELOADING=1\nMONOTONIC_USEC={microseconds}\nSTATUS=reloading")
        }
    }
}

/// A name that begins with `@` is in the abstract space.
fn send(socket: &OsStr, message: &str) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    let sender = UnixDatagram::unbound()?;
    // Whoever does not read is not waited for.
    sender.set_nonblocking(true)?;
    sender.send_to_addr(message.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_sockets_are_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let name = format!("larder-test-{}", std::process::id());
        let abstract_name = SocketAddr::from_abstract_name(&name).expect("a name");
        let sockets = [
            (UnixDatagram::bind(&path), path.display().to_string()),
            (UnixDatagram::bind_addr(&abstract_name), format!("@{name}")),
        ];
        for (socket, name) in sockets {
            let socket = socket.expect("a socket");
            send(OsStr::new(&name), &message(State::Reloading)).expect("it is there");
            let mut buffer = [0; 256];
            let length = socket.recv(&mut buffer).expect("a message");
            let text = std::str::from_utf8(&buffer[..length]).expect("text");
            assert!(text.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{text}");
        }
    }
}
