//! The channel without its sockets: subchannels, the policy over them, ejection, and what calls
//! may know of it all. Events, time and a seed go in; actions and a [`View`] come out.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};

use super::address::{Address, interleave};
use super::balancing::{Balancing, Policy};
use super::outlier::{Calls, Ejector};
use super::pick::Ring;
use super::pick_first::{Outlook, PickFirst, Wish};
use super::subchannel::{Health, Id, State, Subchannel};

/// Most addresses that are used of what a resolver gives.
pub(crate) const MAX_ADDRESSES: usize = 1000;

/// Something happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// A call found nothing to go to, or this one idle.
    Asked(Option<Id>),
    /// The resolver's answer. One without addresses is a failure.
    Resolved(Vec<Address>),
    ResolveFailed(Arc<str>),
    Connected(Id),
    ConnectFailed(Id, Arc<str>),
    /// A connection takes no more calls.
    Lost(Id, Arc<str>),
    /// A call found all connections full.
    Full(Id),
    Health(Id, Health),
}

/// Something has to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Start an attempt, which ends in `Connected` or `ConnectFailed`.
    Connect(Id, Address),
    /// Give its attempts up, and let its connections end with the calls on them. No event of it is
    /// needed any more, unless it is connected to again.
    Close(Id),
    /// Look the names up, as soon as that may be.
    Resolve,
    /// Publish what there is once more: calls that wait for room ask again for another connection.
    Publish,
}

/// What calls may know: a picker without its connections.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum View {
    Idle,
    Connecting,
    Failing(Arc<str>),
    One(Id),
    /// At least one.
    RoundRobin(Vec<Id>),
    /// At least one.
    LeastRequest(Vec<Id>, u32),
    /// At least one, in the order of the ring's names.
    Ring(Arc<Ring>, Vec<RingSeat>, u32),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum RingSeat {
    Idle(Id),
    Connecting,
    Ready(Id),
    Failing(Arc<str>),
}

/// What a balancer is told once.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) balancing: Balancing,
    /// Whether the health of servers is watched (gRFC A17; pick_first never does).
    pub(crate) watches_health: bool,
    /// Most connections to one address (gRFC A105).
    pub(crate) max_connections: u32,
}

#[derive(Debug)]
pub(crate) struct Balancer {
    settings: Settings,
    subs: Vec<Subchannel>,
    next_id: u64,
    first: PickFirst,
    ring: Option<Arc<Ring>>,
    ejector: Option<Ejector>,
    /// Why there are no addresses.
    resolve_failure: Option<Arc<str>>,
    was_asked: bool,
    actions: Vec<Action>,
    rng: SmallRng,
}

impl Balancer {
    pub(crate) fn new(settings: Settings, seed: u64) -> Self {
        // pick_first has one connection, and nothing to compare it with.
        let ejection = settings.balancing.ejection.filter(|ejection| {
            ejection.is_enabled() && !matches!(settings.balancing.policy, Policy::PickFirst { .. })
        });
        Self {
            settings,
            subs: Vec::new(),
            next_id: 0,
            first: PickFirst::default(),
            ring: None,
            ejector: ejection.map(Ejector::new),
            resolve_failure: None,
            was_asked: false,
            actions: Vec::new(),
            rng: SmallRng::seed_from_u64(seed),
        }
    }

    /// Whether connections' health has to be watched.
    pub(crate) fn watches_health(&self) -> bool {
        self.settings.watches_health && !self.is_pick_first()
    }

    pub(crate) fn handle(&mut self, event: Event, now: Duration) {
        match event {
            Event::Asked(id) => self.asked(id, now),
            Event::Resolved(addresses) if addresses.is_empty() => {
                self.resolve_failed("the name has no addresses".into());
            }
            Event::Resolved(addresses) => self.resolved(addresses, now),
            Event::ResolveFailed(why) => self.resolve_failed(why),
            Event::Connected(id) => self.connected(id, now),
            Event::ConnectFailed(id, why) => self.connect_failed(id, why, now),
            Event::Lost(id, why) => self.lost(id, why, now),
            Event::Full(id) => self.full(id, now),
            Event::Health(id, health) => {
                if let Some(sub) = self.sub(id) {
                    sub.health(health, "the server says that it is not serving");
                }
            }
        }
    }

    /// What time brings. `calls` counts those since it was last asked, and is asked only at the
    /// end of an interval of outlier ejection.
    pub(crate) fn tick(&mut self, now: Duration, calls: impl FnOnce() -> Vec<Calls>) {
        let (mut is_over, mut may_grow) = (false, false);
        for sub in &mut self.subs {
            is_over |= sub.tick(now);
            may_grow |= sub.may_grow_again(now);
        }
        if may_grow {
            self.actions.push(Action::Publish);
        }
        if self.is_pick_first() {
            let wish = self.first.tick(now, &mut self.subs);
            self.grant(wish);
        } else if is_over {
            self.connect_wanted();
        }
        if let Some(ejector) = &mut self.ejector
            && ejector.wake_at().is_some_and(|at| at <= now)
        {
            ejector.look(now, &calls(), &mut self.rng);
            for sub in &mut self.subs {
                sub.eject(ejector.is_ejected(sub.id));
            }
        }
    }

    /// When the next `tick` is due.
    pub(crate) fn wake_at(&self) -> Option<Duration> {
        let subs = self.subs.iter().filter_map(Subchannel::wake_at);
        let ejector = self.ejector.as_ref().and_then(Ejector::wake_at);
        subs.chain(ejector).chain(self.first.wake_at()).min()
    }

    /// What has to be done since it was last asked.
    pub(crate) fn actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    pub(crate) fn view(&self) -> View {
        if self.subs.is_empty() {
            return match &self.resolve_failure {
                Some(why) => View::Failing(Arc::clone(why)),
                None if self.was_asked => View::Connecting,
                None => View::Idle,
            };
        }
        if let Policy::RingHash(config) = self.settings.balancing.policy
            && let Some(ring) = &self.ring
        {
            let seats = self.subs.iter().map(seat).collect();
            return View::Ring(Arc::clone(ring), seats, config.balance_percent);
        }
        if self.is_pick_first() {
            return match self.first.outlook(&self.subs) {
                Outlook::Idle => View::Idle,
                Outlook::Connecting => View::Connecting,
                Outlook::Failing(why) => View::Failing(why.unwrap_or_else(no_reason)),
                Outlook::Ready(id) => View::One(id),
            };
        }
        let ready = self.subs.iter().filter(|sub| sub.state() == State::Ready);
        let ready: Vec<Id> = ready.map(|sub| sub.id).collect();
        match &self.settings.balancing.policy {
            _ if ready.is_empty() => self.none_ready(),
            Policy::LeastRequest { choices } => View::LeastRequest(ready, *choices),
            _ => View::RoundRobin(ready),
        }
    }

    /// Subchannels and their states.
    #[cfg(test)]
    fn subchannels(&self) -> impl Iterator<Item = (Id, &Address, State)> {
        self.subs
            .iter()
            .map(|sub| (sub.id, &sub.address, sub.state()))
    }

    fn asked(&mut self, id: Option<Id>, now: Duration) {
        if !self.was_asked {
            self.was_asked = true;
            self.actions.push(Action::Resolve);
        }
        if self.is_pick_first() {
            let wish = self.first.ask(now, &mut self.subs);
            self.grant(wish);
        }
        if let Some(sub) = id.and_then(|id| self.sub(id)) {
            sub.want();
            self.connect_wanted();
        }
    }

    fn resolved(&mut self, addresses: Vec<Address>, now: Duration) {
        self.resolve_failure = None;
        let mut order: Vec<Address> = Vec::new();
        for address in addresses.into_iter().take(MAX_ADDRESSES) {
            if !order.contains(&address) {
                order.push(address);
            }
        }
        let mut old = std::mem::take(&mut self.subs);
        for address in order {
            let known = old.iter().position(|sub| sub.address == address);
            let sub = match known {
                Some(at) => old.remove(at),
                None => {
                    self.next_id += 1;
                    Subchannel::new(Id(self.next_id), address)
                }
            };
            self.subs.push(sub);
        }
        let gone = old.iter().map(|sub| Action::Close(sub.id));
        self.actions.extend(gone);
        if let Some(ejector) = &mut self.ejector {
            let ids: Vec<Id> = self.subs.iter().map(|sub| sub.id).collect();
            ejector.update(&ids, now);
        }
        self.arrange(now);
    }

    /// The policy takes over the subchannels there are.
    fn arrange(&mut self, now: Duration) {
        match self.settings.balancing.policy {
            Policy::PickFirst { shuffle } => {
                let mut ids: Vec<_> = self.subs.iter().collect();
                if shuffle {
                    ids.shuffle(&mut self.rng);
                }
                let order = interleave(ids, |sub| &sub.address);
                let order = order.into_iter().map(|sub| sub.id).collect();
                let wish = self.first.update(order, now, &mut self.subs);
                self.grant(wish);
            }
            Policy::RingHash(config) => {
                let names = self.subs.iter().map(|sub| sub.address.to_string());
                let ring = Ring::new(
                    &names.collect::<Vec<_>>(),
                    config.min_ring_size,
                    config.max_ring_size,
                );
                self.ring = Some(Arc::new(ring));
            }
            Policy::RoundRobin | Policy::LeastRequest { .. } => self.connect_wanted(),
        }
    }

    fn resolve_failed(&mut self, why: Arc<str>) {
        // Addresses that worked may go on working: an answer of nothing takes none away.
        self.resolve_failure = Some(why);
    }

    fn connected(&mut self, id: Id, now: Duration) {
        let health = match self.watches_health() {
            true => Health::Unknown,
            false => Health::Unwatched,
        };
        let Some(sub) = self.sub(id) else {
            self.actions.push(Action::Close(id));
            return;
        };
        if !sub.connected(now, health) {
            self.actions.push(Action::Close(id));
            return;
        }
        if self.is_pick_first() {
            let wish = self.first.connected(id, &mut self.subs);
            self.grant(wish);
        }
    }

    fn connect_failed(&mut self, id: Id, why: Arc<str>, now: Duration) {
        let draw = self.rng.random();
        let Some(sub) = self.sub(id) else {
            return;
        };
        sub.failed(now, why, draw);
        if self.is_pick_first() {
            let wish = self.first.failed(now, &mut self.subs);
            self.grant(wish);
        } else {
            self.actions.push(Action::Resolve);
        }
    }

    fn lost(&mut self, id: Id, why: Arc<str>, now: Duration) {
        let draw = self.rng.random();
        let Some(sub) = self.sub(id) else {
            return;
        };
        sub.lost(now, why, draw);
        if self.is_pick_first() {
            let wish = self.first.lost(id, &self.subs);
            self.grant(wish);
        } else {
            self.actions.push(Action::Resolve);
            self.connect_wanted();
        }
    }

    fn full(&mut self, id: Id, now: Duration) {
        let most = self.settings.max_connections;
        if let Some(sub) = self.sub(id)
            && sub.connect_more(now, most)
        {
            let address = sub.address.clone();
            self.actions.push(Action::Connect(id, address));
        }
    }

    /// Connects to what the policy wants: all of them, or on a ring those that calls asked for.
    fn connect_wanted(&mut self) {
        let wants_all = !matches!(self.settings.balancing.policy, Policy::RingHash(_));
        for sub in &mut self.subs {
            if (wants_all || sub.is_wanted()) && sub.connect() {
                let action = Action::Connect(sub.id, sub.address.clone());
                self.actions.push(action);
            }
        }
    }

    fn grant(&mut self, wish: Wish) {
        let close = wish.close.into_iter().map(Action::Close);
        self.actions.extend(close);
        for id in wish.connect {
            if let Some(sub) = self.subs.iter().find(|sub| sub.id == id) {
                let action = Action::Connect(id, sub.address.clone());
                self.actions.push(action);
            }
        }
        if wish.resolve {
            self.actions.push(Action::Resolve);
        }
    }

    /// TRANSIENT_FAILURE once each has failed, until one is reached: the wait for one that is
    /// connected to anew would be in vain too often.
    fn none_ready(&self) -> View {
        if self.subs.iter().any(|sub| !sub.has_failed()) {
            return View::Connecting;
        }
        let why = self.subs.iter().rev().find_map(Subchannel::failure);
        View::Failing(why.cloned().unwrap_or_else(no_reason))
    }

    fn sub(&mut self, id: Id) -> Option<&mut Subchannel> {
        self.subs.iter_mut().find(|sub| sub.id == id)
    }

    const fn is_pick_first(&self) -> bool {
        matches!(self.settings.balancing.policy, Policy::PickFirst { .. })
    }
}

fn seat(sub: &Subchannel) -> RingSeat {
    match (sub.state(), sub.failure()) {
        (State::Ready, _) => RingSeat::Ready(sub.id),
        (State::TransientFailure, failure) => {
            RingSeat::Failing(failure.cloned().unwrap_or_else(no_reason))
        }
        // Connecting anew after a failure: as A42 has it, still failing until it is reached.
        (State::Connecting, Some(failure)) => RingSeat::Failing(Arc::clone(failure)),
        (State::Connecting, None) => RingSeat::Connecting,
        (State::Idle, _) => RingSeat::Idle(sub.id),
    }
}

fn no_reason() -> Arc<str> {
    "no connection".into()
}

#[cfg(test)]
mod tests;
