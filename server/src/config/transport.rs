//! The transport's limits, as a configuration file may set them: the table
//! `[transport]`.

use std::time::Duration;

use larder_api::wire;
use larder_transport::limits::{AbuseLimits, Budget, Limits, Times};
use larder_transport::serve;
use serde::{Deserialize, Serialize};

use super::{ByteSize, Config, ConfigError, within};

/// How long calls in flight may take on a connection that is sent away because
/// of its age. At shutdown the server's own grace ends them before.
const CONNECTION_GRACE_SECONDS: u64 = 30;

/// Defines the settings, each with its type, range, and place.
macro_rules! settings {
    ($($name:ident: $kind:ty, $range:expr, $($place:ident).+;)+) => {
        /// Limits of connections and of what is on them. Each is named as in the
        /// transport; its default stands in `docs/configuration.md`.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct TransportSettings {
            $(
                #[doc = concat!("See `", stringify!($name), "` in `docs/configuration.md`.")]
                pub $name: Option<$kind>,
            )+
            /// What a client may do for nothing.
            #[serde(default)]
            pub abuse: AbuseSettings,
        }

        impl TransportSettings {
            fn set(&self, config: &mut serve::Config) -> Result<(), ConfigError> {
                $(
                    if self.$name.is_some() {
                        let name = concat!("transport.", stringify!($name));
                        let range = $range;
                        let value = within(name, self.$name, *range.start(), range)?;
                        config.$($place).+.put(value);
                    }
                )+
                self.abuse.set(&mut config.limits.abuse)
            }

            /// The settings that say how `config` is.
            pub(super) fn of(config: &serve::Config) -> Self {
                Self {
                    $($name: Some(config.$($place).+.written()),)+
                    abuse: AbuseSettings::of(&config.limits.abuse),
                }
            }
        }
    };
}

/// A limit, and how it is written.
trait Limit<T> {
    fn put(&mut self, written: T);
    fn written(&self) -> T;
}

impl<T: Copy> Limit<T> for T {
    fn put(&mut self, written: T) {
        *self = written;
    }

    fn written(&self) -> T {
        *self
    }
}

/// In seconds.
impl Limit<u64> for Duration {
    fn put(&mut self, written: u64) {
        *self = seconds(written);
    }

    fn written(&self) -> u64 {
        self.as_secs()
    }
}

/// With a unit.
impl Limit<ByteSize> for u32 {
    fn put(&mut self, written: ByteSize) {
        // Its range fits.
        *self = Self::try_from(written.0).unwrap_or(Self::MAX);
    }

    fn written(&self) -> ByteSize {
        ByteSize((*self).into())
    }
}

impl Limit<ByteSize> for usize {
    fn put(&mut self, written: ByteSize) {
        *self = Self::try_from(written.0).unwrap_or(Self::MAX);
    }

    fn written(&self) -> ByteSize {
        ByteSize(*self as u64)
    }
}

const fn bytes(least: u64, most: u64) -> std::ops::RangeInclusive<ByteSize> {
    ByteSize(least)..=ByteSize(most)
}

/// More than anybody waits.
const DAY: u64 = 24 * 3600;
const KIB: u64 = 1 << 10;
const GIB: u64 = 1 << 30;

settings! {
    max_unproven_connections: usize, 1..=1_000_000, max_unproven_connections;
    max_handshakes: usize, 1..=100_000, max_handshakes;
    max_buffered_bytes: ByteSize, bytes(1 << 20, 1 << 40), max_buffered_bytes;
    header_table_bytes: ByteSize, bytes(4 * KIB, 1 << 20), limits.header_table_bytes;
    max_concurrent_streams: u32, 1..=1_000_000, limits.max_concurrent_streams;
    stream_window_bytes: ByteSize, bytes(65_535, GIB), limits.stream_window_bytes;
    connection_window_bytes: ByteSize, bytes(65_535, GIB), limits.connection_window_bytes;
    max_header_list_bytes: ByteSize, bytes(KIB, 1 << 20), limits.max_header_list_bytes;
    max_header_block_bytes: ByteSize, bytes(KIB, 1 << 24), limits.max_header_block_bytes;
    max_continuations: u32, 0..=10_000, limits.max_continuations;
    max_frames_per_turn: u32, 1..=100_000, limits.max_frames_per_turn;
    max_output_bytes: ByteSize, bytes(16 * KIB, GIB), limits.max_output_bytes;
    max_unsent_bytes: ByteSize, bytes(64 * KIB, GIB), limits.max_unsent_bytes;
    max_assembly_bytes: ByteSize, bytes(64 * KIB, GIB), limits.max_assembly_bytes;
    handshake_seconds: u64, 1..=DAY, limits.times.handshake;
    first_request_seconds: u64, 1..=DAY, limits.times.first_request;
    preface_seconds: u64, 1..=DAY, limits.times.preface;
    header_block_seconds: u64, 1..=DAY, limits.times.header_block;
    settings_ack_seconds: u64, 1..=DAY, limits.times.settings_ack;
    stall_seconds: u64, 1..=DAY, limits.times.stall;
    keepalive_seconds: u64, 1..=DAY, limits.times.keepalive;
    keepalive_ack_seconds: u64, 1..=DAY, limits.times.keepalive_ack;
    idle_seconds: u64, 1..=365 * DAY, limits.times.idle;
    age_seconds: u64, 1..=365 * DAY, limits.times.age;
    age_grace_seconds: u64, 1..=DAY, limits.times.drain_grace;
}

const fn seconds(number: u64) -> Duration {
    Duration::from_secs(number)
}

/// A token bucket: so many at once, so many more a second, and so many more for
/// each call answered. What is left out keeps its default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BudgetSettings {
    /// At once.
    pub burst: Option<u32>,
    /// A second.
    pub per_second: Option<u32>,
    /// For each call answered.
    pub per_work: Option<u32>,
}

macro_rules! budgets {
    ($($name:ident,)+) => {
        /// What a client may do although it costs the server more than the client;
        /// excess ends its connection.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct AbuseSettings {
            $(
                #[doc = concat!("See `", stringify!($name), "` in `docs/configuration.md`.")]
                pub $name: Option<BudgetSettings>,
            )+
        }

        impl AbuseSettings {
            fn set(&self, limits: &mut AbuseLimits) -> Result<(), ConfigError> {
                $(
                    if let Some(given) = self.$name {
                        let name = concat!("transport.abuse.", stringify!($name));
                        let Budget { burst, per_second, per_work } = limits.$name;
                        limits.$name = Budget {
                            burst: within(name, given.burst, burst, 1..=u32::MAX)?,
                            per_second: given.per_second.unwrap_or(per_second),
                            per_work: given.per_work.unwrap_or(per_work),
                        };
                    }
                )+
                Ok(())
            }

            fn of(limits: &AbuseLimits) -> Self {
                Self {
                    $($name: Some({
                        let Budget { burst, per_second, per_work } = limits.$name;
                        BudgetSettings {
                            burst: Some(burst),
                            per_second: Some(per_second),
                            per_work: Some(per_work),
                        }
                    }),)+
                }
            }
        }
    };
}

budgets! {
    client_resets,
    server_resets,
    refused_streams,
    pings,
    settings,
    window_updates,
    priorities,
    empty_data,
    empty_headers,
    stray_frames,
    unknown_frames,
}

/// What the server asks of its transport, where nothing else is set.
fn defaults(config: &Config) -> serve::Config {
    let age_grace = CONNECTION_GRACE_SECONDS.max(config.drain_grace.as_secs() * 2);
    serve::Config {
        threads: config.threads,
        max_connections: config.max_connections,
        max_buffered_bytes: wire::MAX_REPLYING_BYTES,
        limits: Limits {
            max_concurrent_streams: wire::MAX_STREAMS_PER_CONNECTION,
            stream_window_bytes: wire::STREAM_WINDOW_BYTES,
            connection_window_bytes: wire::CONNECTION_WINDOW_BYTES,
            max_header_list_bytes: wire::MAX_METADATA_BYTES,
            max_message_bytes: wire::MAX_MESSAGE_BYTES,
            times: Times {
                first_request: wire::FIRST_REQUEST_TIMEOUT,
                request: wire::RECEIVE_TIMEOUT,
                drain_grace: seconds(age_grace),
                ..Times::default()
            },
            ..Limits::default()
        },
        ..serve::Config::default()
    }
}

impl Config {
    /// The transport's part.
    ///
    /// # Errors
    /// The first setting that is out of its range.
    pub(super) fn set_transport(
        mut self,
        settings: &TransportSettings,
    ) -> Result<Self, ConfigError> {
        let mut transport = defaults(&self);
        settings.set(&mut transport)?;
        self.transport = transport;
        Ok(self)
    }
}
