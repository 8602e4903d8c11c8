//! RFC 9113, sections 5.2, 6.5 and 6.9: what the server may send, as a client
//! counts it that keeps to the protocol.

use std::collections::{HashMap, VecDeque};

use larder_transport::frame::{INITIAL_WINDOW_BYTES, MAX_WINDOW_BYTES, MIN_MAX_FRAME_BYTES};

/// What a client sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientSettings {
    /// `SETTINGS_INITIAL_WINDOW_SIZE`, bytes.
    pub initial_window_bytes: u32,
    /// `SETTINGS_MAX_FRAME_SIZE`, bytes.
    pub max_frame_bytes: u32,
    /// `SETTINGS_HEADER_TABLE_SIZE`, bytes.
    pub header_table_bytes: u32,
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self {
            initial_window_bytes: INITIAL_WINDOW_BYTES,
            max_frame_bytes: MIN_MAX_FRAME_BYTES,
            header_table_bytes: 4096,
        }
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Flow {
    granted: i64,
    used: i64,
}

/// Both directions' flow control, and the settings that the server knows.
#[derive(Debug)]
pub struct Ledger {
    known: ClientSettings,
    sent: VecDeque<ClientSettings>,
    /// Without the initial window.
    streams: HashMap<u32, Flow>,
    connection: Flow,
    /// What the client may send.
    may_send: i64,
    stream_may_send: HashMap<u32, i64>,
    /// The least size of the table that the server was given since its last block.
    least_table_bytes: u32,
    table_bytes: u32,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            known: ClientSettings::default(),
            sent: VecDeque::new(),
            streams: HashMap::new(),
            connection: Flow {
                granted: i64::from(INITIAL_WINDOW_BYTES),
                used: 0,
            },
            may_send: i64::from(INITIAL_WINDOW_BYTES),
            stream_may_send: HashMap::new(),
            least_table_bytes: 4096,
            table_bytes: 4096,
        }
    }
}

impl Ledger {
    /// Settings were sent.
    pub fn set(&mut self, settings: ClientSettings) {
        self.sent.push_back(settings);
    }

    /// What was set last.
    #[must_use]
    pub fn newest(&self) -> ClientSettings {
        self.sent.back().copied().unwrap_or(self.known)
    }

    /// The server acknowledged settings.
    pub fn acknowledged(&mut self) {
        let settings = self.sent.pop_front();
        self.known = settings.expect("settings were acknowledged that were not sent");
        let table = self.known.header_table_bytes;
        self.least_table_bytes = self.least_table_bytes.min(table);
    }

    /// A window of the server's was opened; stream 0 is the connection.
    pub fn grant(&mut self, stream: u32, bytes: u32) {
        let flow = match stream {
            0 => &mut self.connection,
            _ => self.streams.entry(stream).or_default(),
        };
        flow.granted += i64::from(bytes);
    }

    /// How far a window can still be opened, whatever the initial window becomes.
    #[must_use]
    pub fn room(&self, stream: u32) -> u32 {
        let most = i64::from(MAX_WINDOW_BYTES);
        let flow = match stream {
            0 => self.connection,
            _ => self.streams.get(&stream).copied().unwrap_or_default(),
        };
        // The largest initial window that this client sets.
        let initial = if stream == 0 { 0 } else { 1 << 24 };
        // What the server has sent may not have been read yet, and is not counted.
        u32::try_from(most - initial - flow.granted).unwrap_or(0)
    }

    /// The server sent content.
    pub(crate) fn received(&mut self, stream: u32, bytes: usize) {
        let bytes = i64::try_from(bytes).expect("frames are short");
        let initial = i64::from(self.known.initial_window_bytes);
        self.connection.used += bytes;
        let flow = self.streams.entry(stream).or_default();
        flow.used += bytes;
        let beyond = flow.used > flow.granted + initial;
        assert!(bytes == 0 || !beyond, "content beyond a stream's window");
        let beyond = self.connection.used > self.connection.granted;
        assert!(!beyond, "content beyond the connection's window");
    }

    /// The server sent a frame of that length.
    pub(crate) fn check_frame(&self, bytes: usize) {
        let most = self.known.max_frame_bytes as usize;
        assert!(bytes <= most, "a frame of {bytes}, and {most} are allowed");
    }

    /// The server sent a field block that begins so (RFC 7541, section 4.2).
    pub(crate) fn check_block(&mut self, block: &[u8]) {
        if let Some(&first) = block.first()
            && first & 0xe0 == 0x20
        {
            let mut size = u32::from(first & 0x1f);
            if size == 0x1f {
                for (place, byte) in block[1..].iter().enumerate() {
                    size += u32::from(byte & 0x7f) << (7 * place);
                    if byte & 0x80 == 0 {
                        break;
                    }
                }
            }
            self.table_bytes = size;
        }
        let (table, least) = (self.table_bytes, self.least_table_bytes);
        assert!(table <= least, "a table of {table}, and {least} is allowed");
        self.least_table_bytes = self.known.header_table_bytes;
    }

    /// The server opened a window of the client's.
    pub(crate) fn may_send(&mut self, stream: u32, bytes: u32) {
        let window = match stream {
            0 => &mut self.may_send,
            _ => self.stream_may_send.entry(stream).or_default(),
        };
        *window += i64::from(bytes);
        assert!(*window <= i64::from(MAX_WINDOW_BYTES), "a window too large");
    }

    /// How much content the client may send, and takes it.
    pub fn spend(&mut self, stream: u32, bytes: usize) -> usize {
        let wanted = i64::try_from(bytes).expect("inputs are short");
        let on_stream = self.stream_may_send.entry(stream).or_default();
        // Nothing is known of the server's initial window but that it is no less.
        let initial = i64::from(INITIAL_WINDOW_BYTES);
        let most = wanted.min(self.may_send).min(*on_stream + initial).max(0);
        self.may_send -= most;
        *on_stream -= most;
        usize::try_from(most).expect("it is not negative")
    }
}
