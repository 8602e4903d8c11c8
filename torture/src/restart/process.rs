//! One run of the server on a data directory.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context as _, ensure};

/// A server; killed when it is dropped.
pub(super) struct Process {
    child: Child,
    pub(super) address: SocketAddr,
    log: PathBuf,
}

impl Process {
    /// Starts it with its data below `home`, and waits until it listens.
    ///
    /// # Errors
    /// It does not.
    pub(super) fn start(larder: &Path, home: &Path, interval: &str) -> anyhow::Result<Self> {
        let log = home.join("log");
        let mut child = Command::new(larder)
            .args(["serve", "--listen", "127.0.0.1:0", "--log-format", "off"])
            .args(["--snapshot-interval", interval, "--data-dir"])
            .arg(home.join("data"))
            .env_clear()
            // A machine that is short of processors makes a server late.
            .env("LARDER_ADMISSION_LATE_MS", "0")
            .env("HOME", home)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log)?)
            .spawn()
            .with_context(|| format!("cannot start {}", larder.display()))?;
        let output = child.stdout.take().context("its output is a pipe")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let address = line.trim().strip_prefix("listening on ");
        let Some(address) = address.and_then(|text| text.parse().ok()) else {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
            let why = std::fs::read_to_string(&log)?;
            anyhow::bail!("it does not listen:\n{why}");
        };
        Ok(Self {
            child,
            address,
            log,
        })
    }

    /// Sends it a signal.
    pub(super) fn signal(&self, name: &str) -> anyhow::Result<()> {
        let id = self.child.id().to_string();
        let sent = Command::new("sh")
            .args(["-c", "kill -\"$0\" \"$1\"", name, &id])
            .status()?;
        ensure!(sent.success(), "SIG{name} cannot be sent");
        Ok(())
    }

    /// Ends it by SIGKILL.
    pub(super) fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    pub(super) fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// What it wrote to its standard error.
    pub(super) fn log(&self) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(&self.log)?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended, which was told.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// When the newest whole snapshot was begun, ms since 1970, as its header says.
pub(super) fn newest_snapshot(folder: &Path) -> anyhow::Result<Option<u64>> {
    let mut newest = None;
    for file in std::fs::read_dir(folder)? {
        let path = file?.path();
        if path.extension().is_some_and(|it| it == "snapshot") {
            newest = newest.max(Some(path));
        }
    }
    let Some(path) = newest else { return Ok(None) };
    let mut header = [0; 32];
    std::fs::File::open(path)?.read_exact(&mut header)?;
    let mut begun = [0; 8];
    begun.copy_from_slice(&header[24..]);
    Ok(Some(u64::from_le_bytes(begun)))
}
