//! TCP, Unix sockets and TLS, never waiting: what would wait is
//! [`io::ErrorKind::WouldBlock`].

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use larder_client::{Route, Target};
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use rustls::pki_types::ServerName;

/// Where to connect to, with all names looked up.
#[derive(Clone)]
pub(in crate::bench) struct Address {
    place: Place,
    tls: Option<(Arc<rustls::ClientConfig>, ServerName<'static>)>,
}

#[derive(Clone)]
enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Address {
    /// Looks the name up, and takes the first address where somebody listens.
    pub(in crate::bench) fn find(route: &Route, timeout: Duration) -> io::Result<Self> {
        let place = match &route.target {
            Target::Unix(path) => Place::Unix(path.clone()),
            Target::Tcp(host, port) => {
                let mut found = Err(io::Error::other("the name has no address"));
                for address in (host.as_str(), *port).to_socket_addrs()? {
                    found = std::net::TcpStream::connect_timeout(&address, timeout)
                        .map(|_| Place::Tcp(address));
                    if found.is_ok() {
                        break;
                    }
                }
                found?
            }
        };
        Ok(Self {
            place,
            tls: route.tls.clone(),
        })
    }
}

/// A connection, perhaps still to be made.
pub(in crate::bench) struct Socket {
    stream: Stream,
    tls: Option<Box<rustls::ClientConnection>>,
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// Begins to connect; events come with `token`.
    pub(in crate::bench) fn connect(
        address: &Address,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Self> {
        let both = Interest::READABLE | Interest::WRITABLE;
        let stream = match &address.place {
            Place::Tcp(to) => {
                let mut stream = TcpStream::connect(*to)?;
                registry.register(&mut stream, token, both)?;
                Stream::Tcp(stream)
            }
            Place::Unix(path) => {
                let mut stream = UnixStream::connect(path)?;
                registry.register(&mut stream, token, both)?;
                Stream::Unix(stream)
            }
        };
        let tls = match &address.tls {
            None => None,
            Some((config, name)) => {
                let tls = rustls::ClientConnection::new(Arc::clone(config), name.clone());
                Some(Box::new(tls.map_err(io::Error::other)?))
            }
        };
        Ok(Self { stream, tls })
    }

    /// Whether the connection is made, once the socket was reported writable.
    pub(in crate::bench) fn is_connected(&self) -> io::Result<bool> {
        match &self.stream {
            Stream::Tcp(stream) => {
                if let Some(error) = stream.take_error()? {
                    return Err(error);
                }
                match stream.peer_addr() {
                    Ok(_) => stream.set_nodelay(true).map(|()| true),
                    Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
                    Err(error) => Err(error),
                }
            }
            Stream::Unix(stream) => stream.take_error()?.map_or(Ok(true), Err),
        }
    }

    /// True if a read of less than there was room for leaves nothing behind.
    pub(in crate::bench) const fn is_drained_by_short_reads(&self) -> bool {
        self.tls.is_none()
    }

    /// Reads what is there; 0 at the end.
    pub(in crate::bench) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            return self.stream.read(buffer);
        };
        loop {
            match tls.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
            if tls.read_tls(&mut self.stream)? == 0 {
                return Ok(0);
            }
            tls.process_new_packets().map_err(io::Error::other)?;
        }
    }

    /// Writes `out` from `sent` on, as far as the socket takes it, and what TLS
    /// has to say. True once all is written; `out` is empty then.
    pub(in crate::bench) fn flush(
        &mut self,
        out: &mut Vec<u8>,
        sent: &mut usize,
    ) -> io::Result<bool> {
        let result = match &mut self.tls {
            None => write_all(&mut self.stream, out, sent),
            Some(tls) => write_tls(tls, &mut self.stream, out, sent),
        };
        match result {
            Ok(()) => {
                out.clear();
                *sent = 0;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn write_all(stream: &mut Stream, out: &[u8], sent: &mut usize) -> io::Result<()> {
    while *sent < out.len() {
        match stream.write(&out[*sent..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(bytes) => *sent += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn write_tls(
    tls: &mut rustls::ClientConnection,
    stream: &mut Stream,
    out: &[u8],
    sent: &mut usize,
) -> io::Result<()> {
    loop {
        // The connection buffers a bounded part, and encrypts once it can.
        if *sent < out.len() {
            *sent += tls.writer().write(&out[*sent..])?;
        }
        while tls.wants_write() {
            tls.write_tls(stream)?;
        }
        if *sent == out.len() {
            return Ok(());
        }
        if tls.is_handshaking() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
    }
}

impl io::Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}

impl io::Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
