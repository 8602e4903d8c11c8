//! The source: any server that speaks Redis' protocol, walked with SCAN.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, ErrorKind, FromRedisValue,
    IntoConnectionInfo as _, RedisError, RedisResult, TlsCertificates,
};

use super::tally::Tally;
use super::{ImportArgs, Limits, PART_BYTES};
use crate::connect::read_secret;
use crate::failure::Failure;
use crate::output::escape;

/// Longest time for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest time for the answer to a pipeline: a source that is busy with a long command
/// answers nobody.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Where redis-cli looks for the password too.
const PASSWORD_VARIABLE: &str = "REDISCLI_AUTH";

/// What PTTL says of a key that is not there, and of one that does not expire
/// (redis.io/commands/pttl).
const NO_KEY: i64 = -2;
const NO_EXPIRY: i64 = -1;

/// The kind of values that larder has.
const STRING: &str = "string";

/// For a peer that speaks something else.
const HINT: &str =
    "; does it speak Redis' protocol (RESP), in clear text for redis:// and TLS for rediss://?";

/// A cursor that stays what it is through so many steps will not move.
const MAX_SAME_CURSOR: u32 = 100;

/// What TYPE says of a key that is not there.
const NOTHING: &str = "none";

/// An entry of the source.
pub(super) struct Found {
    pub(super) key: Bytes,
    pub(super) value: Bytes,
    /// What is left of its time; `None`: it does not expire.
    pub(super) ttl: Option<Duration>,
}

/// A string that the walk has met: its key, and how long its value was then.
struct Met {
    key: Vec<u8>,
    value_bytes: u64,
}

/// The walk through one database of the source.
pub(super) struct Redis {
    connection: MultiplexedConnection,
    /// Where it is, for words about failures; without credentials.
    address: String,
    pattern: Option<Vec<u8>>,
    limits: Limits,
    /// Where SCAN goes on; `None` once it has been everywhere.
    cursor: Option<u64>,
    /// How often in a row SCAN has answered with the cursor that it was asked with.
    same_cursor: u32,
    met: VecDeque<Met>,
}

impl Redis {
    /// Connects, with the password that the arguments or the environment have.
    pub(super) async fn connect(args: &ImportArgs, limits: Limits) -> Result<Self, Failure> {
        let info = connection_info(args)?;
        let address = info.addr().to_string();
        let failed = |error: RedisError| {
            let hint = if error.is_connection_dropped() {
                HINT
            } else {
                ""
            };
            Failure::Failed(format!("{address}: {}{hint}", said(&error)))
        };
        let client = match &args.source_ca {
            None => Client::open(info),
            Some(path) => {
                let root = std::fs::read(path)
                    .map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))?;
                let certificates = TlsCertificates {
                    client_tls: None,
                    root_cert: Some(root),
                };
                Client::build_with_tls(info, certificates)
            }
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(ANSWER_TIMEOUT));
        let connection = client
            .map_err(failed)?
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .map_err(failed)?;
        Ok(Self {
            connection,
            address,
            pattern: args
                .pattern
                .as_ref()
                .map(|pattern| pattern.as_encoded_bytes().to_vec()),
            limits,
            cursor: Some(0),
            same_cursor: 0,
            met: VecDeque::new(),
        })
    }

    /// How many keys the database has, of any kind.
    pub(super) async fn size(&mut self) -> Result<Option<u64>, Failure> {
        let size = redis::cmd("DBSIZE").query_async(&mut self.connection).await;
        // Not everybody may ask; the walk does not need it.
        Ok(size.ok())
    }

    /// The next entries, perhaps none; `None` after the last. Other keys are counted.
    pub(super) async fn next_part(
        &mut self,
        tally: &mut Tally,
    ) -> Result<Option<Vec<Found>>, Failure> {
        if self.met.is_empty() {
            let Some(cursor) = self.cursor else {
                return Ok(None);
            };
            self.step(cursor, tally).await?;
        }
        let mut part = Vec::new();
        let mut bytes = 0;
        while let Some(met) = self.met.front() {
            let more = key_bytes(&met.key) + met.value_bytes;
            let is_full = part.len() >= self.limits.batch_keys || bytes + more > PART_BYTES;
            if is_full && !part.is_empty() {
                break;
            }
            bytes += more;
            part.extend(self.met.pop_front());
        }
        self.read(part, tally).await.map(Some)
    }

    /// One step of the walk: asks for keys, their kinds and their sizes.
    async fn step(&mut self, cursor: u64, tally: &mut Tally) -> Result<(), Failure> {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("COUNT").arg(self.limits.batch_keys);
        if let Some(pattern) = &self.pattern {
            scan.arg("MATCH").arg(pattern);
        }
        let answer = scan.query_async(&mut self.connection).await;
        let (next, keys): (u64, Vec<Vec<u8>>) = answer.map_err(|error| self.failed(&error))?;
        self.same_cursor = if next == cursor {
            self.same_cursor + 1
        } else {
            0
        };
        if next != 0 && self.same_cursor >= MAX_SAME_CURSOR {
            let why = format!(
                "SCAN answers {cursor} with the same cursor again and again: the walk would never end"
            );
            return Err(Failure::Failed(format!("{}: {why}", self.address)));
        }
        self.cursor = (next != 0).then_some(next);
        tally.scanned += u64::try_from(keys.len()).unwrap_or_default();
        let mut asked = redis::pipe();
        for key in &keys {
            asked.cmd("TYPE").arg(key).cmd("STRLEN").arg(key);
        }
        let answers = self.ask(&mut asked, keys.len()).await?;
        for (key, [kind, length]) in keys.into_iter().zip(answers) {
            let kind: String = self.one(kind)?;
            match kind.as_str() {
                STRING => self.meet(key, length, tally),
                NOTHING => tally.gone += 1,
                kind => tally.skip(kind, &key),
            }
        }
        Ok(())
    }

    /// A string: one that the server would refuse is not read.
    fn meet(&mut self, key: Vec<u8>, length: RedisResult<redis::Value>, tally: &mut Tally) {
        let Some(value_bytes) = length.ok().and_then(|it| u64::from_redis_value(it).ok()) else {
            // It has become something else since it was asked for its kind.
            tally.gone += 1;
            return;
        };
        if self.fits(&key, value_bytes, tally) {
            self.met.push_back(Met { key, value_bytes });
        }
    }

    fn fits(&self, key: &[u8], value_bytes: u64, tally: &mut Tally) -> bool {
        let Limits {
            key_bytes: most_key,
            value_bytes: most,
            ..
        } = self.limits;
        let length = key_bytes(key);
        if length > most_key {
            let message = format!("a key has {length} bytes; the server takes {most_key}");
            tally.refuse_unsent("KEY_TOO_LONG", message);
        } else if value_bytes > most {
            let message = format!(
                "the value of {} has {value_bytes} bytes; the server takes {most}",
                escape(key)
            );
            tally.refuse_unsent("VALUE_TOO_LARGE", message);
        } else {
            return true;
        }
        false
    }

    fn too_long(&self, key: &[u8], ttl: Duration) -> String {
        format!(
            "{} expires in {} s; the server takes {}",
            escape(key),
            ttl.as_secs(),
            self.limits.ttl.as_secs()
        )
    }

    /// Reads values and what is left of their time.
    async fn read(&mut self, part: Vec<Met>, tally: &mut Tally) -> Result<Vec<Found>, Failure> {
        let mut asked = redis::pipe();
        for met in &part {
            // A value that has grown since is cut one byte after what the server takes, so
            // that it costs no more memory than that.
            asked
                .cmd("GETRANGE")
                .arg(&met.key)
                .arg(0)
                .arg(self.limits.value_bytes)
                .cmd("PTTL")
                .arg(&met.key);
        }
        let answers = self.ask(&mut asked, part.len()).await?;
        let mut found = Vec::with_capacity(part.len());
        for (met, [value, ttl]) in part.into_iter().zip(answers) {
            let ttl: i64 = self.one(ttl)?;
            let value = value.and_then(|value| Ok(Vec::<u8>::from_redis_value(value)?));
            let (Ok(value), Some(ttl)) = (value, time_left(ttl)) else {
                tally.gone += 1;
                continue;
            };
            if let Some(ttl) = ttl.filter(|ttl| *ttl > self.limits.ttl) {
                tally.refuse_unsent("TTL_OUT_OF_RANGE", self.too_long(&met.key, ttl));
            } else if self.fits(&met.key, key_bytes(&value), tally) {
                found.push(Found {
                    key: met.key.into(),
                    value: value.into(),
                    ttl,
                });
            }
        }
        Ok(found)
    }

    /// Sends a pipeline of two commands for each key; an error of one command is its answer.
    async fn ask(
        &mut self,
        pipeline: &mut redis::Pipeline,
        keys: usize,
    ) -> Result<Vec<[RedisResult<redis::Value>; 2]>, Failure> {
        if keys == 0 {
            return Ok(Vec::new());
        }
        let pipeline = pipeline.ignore_errors();
        let answers = pipeline.query_async(&mut self.connection).await;
        let answers: Vec<RedisResult<redis::Value>> =
            answers.map_err(|error| self.failed(&error))?;
        let mut answers = answers.into_iter();
        let mut pairs = Vec::with_capacity(keys);
        while let (Some(first), Some(second)) = (answers.next(), answers.next()) {
            pairs.push([first, second]);
        }
        if pairs.len() != keys {
            let why = format!("{} answers to a pipeline of {keys} keys", pairs.len());
            return Err(Failure::Failed(format!("{}: {why}", self.address)));
        }
        Ok(pairs)
    }

    /// An answer that must not be an error.
    fn one<T: FromRedisValue>(&self, answer: RedisResult<redis::Value>) -> Result<T, Failure> {
        answer
            .and_then(|value| Ok(T::from_redis_value(value)?))
            .map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &RedisError) -> Failure {
        Failure::Failed(format!("{}: {}", self.address, said(error)))
    }
}

/// What an error says, in one line; one of a peer that speaks something else says so.
fn said(error: &RedisError) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    match error.kind() {
        ErrorKind::Parse => format!("{line}{HINT}"),
        _ => line.to_owned(),
    }
}

/// What PTTL means; the outer `None`: there is no such key.
fn time_left(pttl: i64) -> Option<Option<Duration>> {
    match pttl {
        NO_KEY => None,
        NO_EXPIRY => Some(None),
        // Less than a millisecond is left.
        0 => None,
        millis => u64::try_from(millis)
            .ok()
            .map(|millis| Some(Duration::from_millis(millis))),
    }
}

fn connection_info(args: &ImportArgs) -> Result<ConnectionInfo, Failure> {
    // The error does not repeat what may have a password in it.
    let info = args.source.0.as_str().into_connection_info();
    let info = info.map_err(|_| {
        Failure::Usage(
            "the source is no URL of the form redis://[USER[:PASSWORD]@]HOST[:PORT][/DB]".into(),
        )
    })?;
    let settings = info.redis_settings().clone();
    if settings.password().is_some() {
        return Ok(info);
    }
    let password = match &args.password_file {
        Some(path) => read_secret(path)
            .map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))?,
        None => std::env::var(PASSWORD_VARIABLE).unwrap_or_default(),
    };
    if password.is_empty() {
        return Ok(info);
    }
    Ok(info.set_redis_settings(settings.set_password(password)))
}

fn key_bytes(key: &[u8]) -> u64 {
    u64::try_from(key.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_a_time() {
        for (pttl, expected) in [
            (-2, None),
            (-1, Some(None)),
            (0, None),
            (1, Some(Some(Duration::from_millis(1)))),
            (86_400_000, Some(Some(Duration::from_secs(86_400)))),
            (i64::MIN, None),
        ] {
            assert_eq!(time_left(pttl), expected, "{pttl}");
        }
    }
}
