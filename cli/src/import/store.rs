//! Stores what was read, a few batches at a time.

use std::time::Duration;

use larder_client::{
    BatchSetItem, Client, Code, Condition, Error, SetOptions, SetOutcome, SetReply,
};
use tokio::task::JoinSet;

use super::redis::Found;
use super::tally::Tally;
use super::{ImportArgs, OnConflict};
use crate::connect::Caller;
use crate::failure::Failure;

/// Batches on their way at a time.
const IN_FLIGHT: usize = 4;

/// Times that a batch is sent before its failure counts. Sending one again is safe: a write
/// without a condition leaves the same entry, and one that had been made already is then
/// found to be there.
const MAX_ATTEMPTS: u32 = 6;

/// Pause before the second attempt, doubled before each later one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Longest pause that a server is believed to want.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

type Answers = Result<Vec<Result<SetReply, Error>>, Error>;

/// The way into larder.
pub(super) struct Store<'a> {
    caller: &'a Caller,
    client: Client,
    condition: Condition,
    under_way: JoinSet<Answers>,
}

impl<'a> Store<'a> {
    pub(super) fn new(caller: &'a Caller, args: &ImportArgs) -> Self {
        Self {
            caller,
            client: caller.mutating(args.dry_run.dry_run),
            condition: match args.on_conflict {
                OnConflict::Replace => Condition::Always,
                OnConflict::Skip => Condition::IfAbsent,
            },
            under_way: JoinSet::new(),
        }
    }

    /// Sends a batch, after waiting for another to be answered while there are too many.
    pub(super) async fn push(
        &mut self,
        part: Vec<Found>,
        tally: &mut Tally,
    ) -> Result<(), Failure> {
        if part.is_empty() {
            return Ok(());
        }
        while self.under_way.len() >= IN_FLIGHT {
            self.wait_for_one(tally).await?;
        }
        let items = part.into_iter().map(|found| self.item(found)).collect();
        self.under_way.spawn(send(self.client.clone(), items));
        Ok(())
    }

    /// Waits for the last answers.
    pub(super) async fn finish(mut self, tally: &mut Tally) -> Result<(), Failure> {
        while !self.under_way.is_empty() {
            self.wait_for_one(tally).await?;
        }
        Ok(())
    }

    async fn wait_for_one(&mut self, tally: &mut Tally) -> Result<(), Failure> {
        let Some(joined) = self.under_way.join_next().await else {
            return Ok(());
        };
        let answers = joined.map_err(|error| Failure::Failed(error.to_string()))?;
        for answer in answers.map_err(|error| self.caller.failed(error))? {
            match answer {
                Ok(reply) => match reply.outcome {
                    SetOutcome::Applied(_) => tally.stored += 1,
                    SetOutcome::NotApplied(_) => tally.existing += 1,
                },
                Err(error) => tally.refuse(&error),
            }
        }
        Ok(())
    }

    fn item(&self, found: Found) -> BatchSetItem {
        let options = SetOptions::new().condition(self.condition);
        BatchSetItem {
            key: found.key,
            value: found.value,
            options: match found.ttl {
                // The server counts it from its write: no two clocks are compared.
                Some(ttl) => options.ttl(ttl),
                None => options,
            },
        }
    }
}

async fn send(client: Client, items: Vec<BatchSetItem>) -> Answers {
    let mut pause = FIRST_PAUSE;
    for _ in 1..MAX_ATTEMPTS {
        match client.batch_set(items.clone()).await {
            Err(error) if is_worth_another(&error) => {
                let wanted = error.retry_after().unwrap_or(pause);
                tokio::time::sleep(wanted.min(LONGEST_PAUSE)).await;
                pause *= 2;
            }
            answers => return answers,
        }
    }
    client.batch_set(items).await
}

/// Also where it is not known whether anything was written: it can be written again.
fn is_worth_another(error: &Error) -> bool {
    matches!(error.code(), Code::Unavailable | Code::DeadlineExceeded)
        || (error.code() == Code::ResourceExhausted && error.retry_after().is_some())
}
