//! One client that reads a dump slowly.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{anyhow, ensure};
use larder_transport::frame::{
    INITIAL_WINDOW_BYTES, MAX_WINDOW_BYTES, PREFACE, SettingId, write_settings, write_settings_ack,
    write_window_update,
};
use tokio::net::TcpSocket;
use tokio::task::JoinSet;

use crate::calls;
use crate::wire::{Wire, request};

/// Bytes that a reader takes each second.
pub(super) const BYTES_PER_SECOND: u32 = 1024;
/// Looks that it has at its connection in a second.
const LOOKS_PER_SECOND: u32 = 4;
/// What the kernel keeps for a reader who does not read; the least that it takes.
const SOCKET_BYTES: u32 = 4096;

/// How a reader is slow.
#[derive(Debug, Clone, Copy)]
pub(super) enum Way {
    /// Its application is: it keeps its windows as shut.
    Windows,
    /// Its machine is: its windows are as wide as they can be, and its socket is full.
    Socket,
}

/// Which way through the server its call takes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Lane {
    Typed,
    General,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Windows => "windows opened slowly",
            Self::Socket => "sockets read slowly",
        })
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Typed => "typed lane",
            Self::General => "general lane",
        })
    }
}

/// Readers who go on until they are told to go.
pub(super) struct Crowd {
    reading: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<anyhow::Result<u64>>>,
}

impl Crowd {
    /// Starts a reader for each token.
    ///
    /// # Errors
    /// There can be no thread of it.
    pub(super) fn start(
        address: SocketAddr,
        tokens: Vec<String>,
        way: Way,
        lane: Lane,
    ) -> anyhow::Result<Self> {
        let (reading, stop) = (
            Arc::new(AtomicUsize::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let told = (Arc::clone(&reading), Arc::clone(&stop));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = std::thread::Builder::new()
            .name("readers".to_owned())
            .spawn(move || {
                let (reading, stop) = told;
                let mut readers = JoinSet::new();
                for token in tokens {
                    let (reading, stop) = (Arc::clone(&reading), Arc::clone(&stop));
                    let read =
                        async move { read(address, &token, way, lane, &reading, &stop).await };
                    readers.spawn_on(read, runtime.handle());
                }
                runtime.block_on(readers.join_all())
            })?;
        Ok(Self {
            reading,
            stop,
            thread,
        })
    }

    /// How many have begun to read.
    pub(super) fn reading(&self) -> usize {
        self.reading.load(Ordering::Relaxed)
    }

    /// Has them go, in the middle of what they read. What each has read, or why it does no
    /// longer.
    pub(super) fn go(self) -> Vec<anyhow::Result<u64>> {
        self.stop.store(true, Ordering::Relaxed);
        let gone = self.thread.join();
        gone.unwrap_or_else(|_| vec![Err(anyhow!("the readers panicked"))])
    }
}

async fn read(
    address: SocketAddr,
    token: &str,
    way: Way,
    lane: Lane,
    reading: &AtomicUsize,
    stop: &AtomicBool,
) -> anyhow::Result<u64> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(SOCKET_BYTES)?;
    let mut wire = Wire::over(socket.connect(address).await?)?;
    wire.send(&hello(token, way, lane)).await;
    let mut window = u64::from(INITIAL_WINDOW_BYTES);
    let mut is_reading = false;
    let share = BYTES_PER_SECOND / LOOKS_PER_SECOND;
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_secs(1) / LOOKS_PER_SECOND).await;
        match way {
            Way::Socket => wire.read_at_most(share as usize),
            Way::Windows => {
                wire.read();
                // What has come is taken bit by bit, and only that can come again.
                if wire.came.data_bytes >= window {
                    let mut more = Vec::new();
                    write_window_update(&mut more, 0, share);
                    write_window_update(&mut more, 1, share);
                    wire.send(&more).await;
                    window += u64::from(share);
                }
            }
        }
        let came = &wire.came;
        if let Some(ending) = &came.ending {
            return Err(anyhow!("the server ended the connection: {ending}"));
        }
        ensure!(came.resets.is_empty(), "the server reset the stream");
        ensure!(
            came.answers.is_empty(),
            "the dump ended: {:?}",
            came.answers
        );
        if !is_reading && came.read_bytes >= u64::from(BYTES_PER_SECOND) {
            is_reading = true;
            reading.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(wire.came.data_bytes)
}

/// All that a reader says, but for its windows.
fn hello(token: &str, way: Way, lane: Lane) -> Vec<u8> {
    let mut hello = PREFACE.to_vec();
    match way {
        Way::Windows => write_settings(&mut hello, &[]),
        Way::Socket => {
            let wide = (SettingId::INITIAL_WINDOW_SIZE, MAX_WINDOW_BYTES);
            write_settings(&mut hello, &[wide]);
            write_window_update(&mut hello, 0, MAX_WINDOW_BYTES - INITIAL_WINDOW_BYTES);
        }
    }
    write_settings_ack(&mut hello);
    let bearer = format!("Bearer {token}");
    let mut fields = vec![("authorization", &bearer[..])];
    if let Lane::General = lane {
        // No message uses it.
        fields.push(("grpc-encoding", "gzip"));
    }
    let block = calls::grpc_block(calls::DUMP, &fields);
    request(&mut hello, 1, &block, &calls::prefixed(&[]));
    hello
}
