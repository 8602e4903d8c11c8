//! Batches under ring hash, whose keys belong to different servers: each key is a call of its own,
//! and goes where it belongs.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use crate::client::Client;
use crate::error::Error;
use crate::options::DeleteOptions;
use crate::types::{BatchSetItem, DeleteOutcome, Entry, SetReply};

/// Calls of one batch under way at a time. They share their connections' writes.
const MAX_CALLS: usize = 64;

impl Client {
    /// Whether the keys of a batch belong to different servers.
    pub(crate) fn spreads_keys(&self) -> bool {
        self.channel.balanced.hashes_keys()
    }

    pub(crate) async fn spread_get<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
    ) -> Result<Vec<Option<Entry>>, Error> {
        let keys: Vec<&[u8]> = keys.iter().map(AsRef::as_ref).collect();
        let found = each(keys, |key| self.get(key)).await;
        found.into_iter().collect()
    }

    pub(crate) async fn spread_set(
        &self,
        items: Vec<BatchSetItem>,
    ) -> Vec<Result<SetReply, Error>> {
        each(items, |item| self.set(item.key, item.value, item.options)).await
    }

    pub(crate) async fn spread_delete<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
    ) -> Vec<Result<bool, Error>> {
        let keys: Vec<&[u8]> = keys.iter().map(AsRef::as_ref).collect();
        let replies = each(keys, |key| self.delete(key, DeleteOptions::new())).await;
        let is_deleted = |outcome| matches!(outcome, DeleteOutcome::Deleted);
        let results = replies.into_iter();
        results
            .map(|reply| reply.map(|reply| is_deleted(reply.outcome)))
            .collect()
    }
}

/// Makes a call for each item, [`MAX_CALLS`] at a time; their results in the order of the items.
async fn each<T, F: Future>(items: Vec<T>, call: impl Fn(T) -> F) -> Vec<F::Output> {
    let mut results: Vec<Option<F::Output>> = items.iter().map(|_| None).collect();
    let mut items = items.into_iter().enumerate();
    let mut running: Vec<(usize, Pin<Box<F>>)> = Vec::new();
    poll_fn(|cx| {
        loop {
            while running.len() < MAX_CALLS
                && let Some((at, item)) = items.next()
            {
                running.push((at, Box::pin(call(item))));
            }
            let before = running.len();
            running.retain_mut(|(at, call)| match call.as_mut().poll(cx) {
                Poll::Ready(result) => {
                    results[*at] = Some(result);
                    false
                }
                Poll::Pending => true,
            });
            match running.len() {
                0 if items.len() == 0 => return Poll::Ready(()),
                // There is room for others, which have to be polled once.
                after if after < before && items.len() > 0 => {}
                _ => return Poll::Pending,
            }
        }
    })
    .await;
    // Each has one by now.
    results.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn results_keep_their_order_and_calls_their_number() {
        for count in [0, 1, MAX_CALLS, 5 * MAX_CALLS + 1] {
            let (running, most) = (Cell::new(0), Cell::new(0));
            let (running, most) = (&running, &most);
            let results = each((0..count).collect(), |number| async move {
                running.set(running.get() + 1);
                most.set(most.get().max(running.get()));
                for _ in 0..number % 7 {
                    tokio::task::yield_now().await;
                }
                running.set(running.get() - 1);
                number
            })
            .await;
            assert_eq!(results, (0..count).collect::<Vec<_>>());
            assert!(most.get() <= MAX_CALLS, "{}", most.get());
        }
    }
}
