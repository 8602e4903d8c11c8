//! What tests of several modules share.

/// Random numbers that come again with the same seed (SplitMix64).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("a test is sound")
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.byte()).collect()
    }
}

/// Bytes of a hexadecimal dump.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .bytes()
        .filter_map(|c| char::from(c).to_digit(16))
        .map(|digit| u8::try_from(digit).expect("a test is sound"))
        .collect();
    digits.chunks(2).map(|two| two[0] << 4 | two[1]).collect()
}

/// What a connection shares with no other.
pub(crate) fn shared() -> std::sync::Arc<crate::shared::Shared> {
    std::sync::Arc::new(crate::shared::Shared::new(usize::MAX))
}

/// An instant from which a test counts its own time.
pub(crate) fn start() -> std::time::Instant {
    static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    *START.get_or_init(|| {
        // The one look at the clock: an `Instant` cannot be made otherwise.
        tokio::time::Instant::now().into_std()
    })
}

/// A head of these fields, not checked.
pub(crate) fn head(fields: &[(&str, &str)]) -> crate::message::Head {
    let mut block = Vec::new();
    for (name, value) in fields {
        crate::hpack::write_literal(&mut block, name.as_bytes(), value.as_bytes());
    }
    let mut head = crate::message::Head::default();
    crate::hpack::Decoder::new(0)
        .decode(&block, &mut head.fields, 1 << 20)
        .expect("literals can be decoded");
    head
}

pub(crate) mod service;
