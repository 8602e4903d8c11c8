//! The task that carries out what a [`Balancer`] wants: it makes connections, watches them, looks
//! names up, and publishes what calls may pick from. Calls never wait for it but when there is
//! nothing to go to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use larder_transport::client::{Connection, Readiness, RequestHead};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::address::Address;
use super::balancer::{Action, Balancer, Event, RingSeat, View};
use super::dial::Dialer;
use super::health::{self, draw};
use super::lane::{Counts, Lane, Tally};
use super::pick::{LeastRequest, Picker, RingHash, RoundRobin, Seat};
use super::resolve_schedule::Schedule;
use super::resolver::Names;
use super::subchannel::{Health, Id};

/// What tasks have said and the driver has not heard; more wait to say it.
const MAX_NEWS: usize = 64;

/// What calls pick from.
pub(crate) type Published = Picker<Arc<Lane>>;

/// What a driver is made of.
pub(crate) struct Parts {
    pub(crate) balancer: Balancer,
    pub(crate) names: Names,
    pub(crate) dialer: Dialer,
    pub(crate) counts: Counts,
    pub(crate) max_connections: u32,
    /// The head of `Watch` for each target, and whose health is asked for.
    pub(crate) health: Option<(Arc<[RequestHead]>, String)>,
    /// Where the turn of round robin begins.
    pub(crate) start: usize,
}

/// What calls ask of the driver. Each thing once, however many ask for it.
#[derive(Debug, Default)]
pub(crate) struct Asks {
    open: Mutex<Vec<Ask>>,
    notify: Notify,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// There is nothing to go to, or this one has to be connected to.
    Connect(Option<Id>),
    /// All connections of this one are full.
    More(Id),
}

pub(crate) struct Driver {
    parts: Parts,
    schedule: Schedule,
    subs: HashMap<Id, Sub>,
    /// The look-up under way.
    resolving: Option<Task>,
    asks: Arc<Asks>,
    picker: watch::Sender<Published>,
    tell: mpsc::Sender<News>,
    news: mpsc::Receiver<News>,
    began: Instant,
    last_view: View,
    /// Connections came or went, so that what was published is not what there is.
    is_stale: bool,
    /// Of attempts and connections.
    next_number: u64,
}

/// A subchannel's tasks and connections.
struct Sub {
    address: Address,
    shown: Arc<str>,
    attempt: Option<(u64, Task)>,
    links: Vec<Link>,
    /// The watch of health, and the connection that it is on.
    watch: Option<(u64, Task)>,
    tally: Arc<Tally>,
}

struct Link {
    number: u64,
    connection: Connection,
    _guard: Task,
}

/// Ends with its holder.
struct Task(AbortHandle);

/// What tasks have to say.
enum News {
    Dialed(Id, u64, Result<Connection, Arc<str>>),
    Gone(Id, u64, Arc<str>),
    Health(Id, u64, Health),
    Resolved(Result<Vec<Address>, Arc<str>>),
}

impl Asks {
    pub(crate) fn put(&self, ask: Ask) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if !open.contains(&ask) {
            open.push(ask);
            drop(open);
            self.notify.notify_one();
        }
    }

    fn take(&self) -> Vec<Ask> {
        std::mem::take(&mut *self.open.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Driver {
    /// Starts one. It ends, and lets its connections end with their calls, when nobody holds the
    /// receiver any more.
    pub(crate) fn start(parts: Parts) -> (watch::Receiver<Published>, Arc<Asks>) {
        let (picker, receiver) = watch::channel(Picker::Idle);
        let (tell, news) = mpsc::channel(MAX_NEWS);
        let asks = Arc::<Asks>::default();
        let driver = Self {
            parts,
            schedule: Schedule::default(),
            subs: HashMap::new(),
            resolving: None,
            asks: Arc::clone(&asks),
            picker,
            tell,
            news,
            began: Instant::now(),
            last_view: View::Idle,
            is_stale: false,
            next_number: 0,
        };
        tokio::spawn(driver.run());
        (receiver, asks)
    }

    async fn run(mut self) {
        loop {
            let wake = [self.parts.balancer.wake_at(), self.schedule.due()];
            let wake = wake.into_iter().flatten().min();
            let sleep = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(self.began + at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.picker.closed() => return,
                () = self.asks.notify.notified() => {}
                news = self.news.recv() => if let Some(news) = news {
                    self.hear(news);
                },
                () = sleep => {}
            }
            for ask in self.asks.take() {
                self.handle(match ask {
                    Ask::Connect(id) => Event::Asked(id),
                    Ask::More(id) => Event::Full(id),
                });
            }
            self.settle();
        }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn handle(&mut self, event: Event) {
        let now = self.now();
        self.parts.balancer.handle(event, now);
        self.act();
    }

    /// What time brings, and the picker of it all.
    fn settle(&mut self) {
        let now = self.now();
        let subs = &self.subs;
        self.parts.balancer.tick(now, || {
            let calls = subs.iter().map(|(id, sub)| sub.tally.take(*id));
            calls.collect()
        });
        self.act();
        if self.schedule.start(now) {
            let (names, tell) = (self.parts.names.clone(), self.tell.clone());
            let task = tokio::spawn(async move {
                let found = names.look_up().await;
                // Whoever is gone needs no answer.
                let _ = tell.send(News::Resolved(found)).await;
            });
            self.resolving = Some(Task(task.abort_handle()));
        }
        let view = self.parts.balancer.view();
        if self.is_stale || view != self.last_view {
            let picker = self.picker_of(&view);
            self.last_view = view;
            self.is_stale = false;
            self.picker.send_replace(picker);
        }
    }

    fn hear(&mut self, news: News) {
        match news {
            News::Dialed(id, number, made) => self.dialed(id, number, made),
            News::Gone(id, number, why) => self.gone(id, number, why),
            News::Health(id, number, health) => {
                let is_current = self.subs.get(&id).is_some_and(|sub| {
                    let mut watch = sub.watch.iter();
                    watch.any(|(on, _)| *on == number)
                });
                if is_current {
                    self.handle(Event::Health(id, health));
                }
            }
            News::Resolved(Ok(addresses)) => {
                let now = self.now();
                match addresses.is_empty() {
                    true => self.schedule.failed(now, draw()),
                    false => self.schedule.succeeded(now),
                }
                self.handle(Event::Resolved(addresses));
            }
            News::Resolved(Err(why)) => {
                self.schedule.failed(self.now(), draw());
                self.handle(Event::ResolveFailed(why));
            }
        }
    }

    fn dialed(&mut self, id: Id, number: u64, made: Result<Connection, Arc<str>>) {
        let Some(sub) = self.subs.get_mut(&id) else {
            return;
        };
        if !matches!(&sub.attempt, Some((current, _)) if *current == number) {
            return;
        }
        sub.attempt = None;
        // A lane remembers that more was asked for: whatever came of it, there is a new one.
        self.is_stale = true;
        match made {
            Ok(connection) => {
                let guard = tokio::spawn(guard(id, number, connection.clone(), self.tell.clone()));
                sub.links.push(Link {
                    number,
                    connection,
                    _guard: Task(guard.abort_handle()),
                });
                self.handle(Event::Connected(id));
                self.watch_health(id);
            }
            Err(why) => self.handle(Event::ConnectFailed(id, why)),
        }
    }

    fn gone(&mut self, id: Id, number: u64, why: Arc<str>) {
        let Some(sub) = self.subs.get_mut(&id) else {
            return;
        };
        let before = sub.links.len();
        sub.links.retain(|link| link.number != number);
        if sub.links.len() == before {
            return;
        }
        self.is_stale = true;
        sub.watch = sub.watch.take().filter(|(on, _)| *on != number);
        self.handle(Event::Lost(id, why));
        self.watch_health(id);
    }

    /// Has a subchannel's health watched on one of its connections, if it is to be.
    fn watch_health(&mut self, id: Id) {
        let Some((heads, service)) = &self.parts.health else {
            return;
        };
        let Some(sub) = self.subs.get_mut(&id) else {
            return;
        };
        let head = heads.get(sub.address.target);
        let (Some(link), Some(head), None) = (sub.links.first(), head, &sub.watch) else {
            return;
        };
        let (number, tell) = (link.number, self.tell.clone());
        let tell = move |health| {
            let tell = tell.clone();
            async move {
                let _ = tell.send(News::Health(id, number, health)).await;
            }
        };
        let watch = health::watch(link.connection.clone(), head.clone(), service.clone(), tell);
        let task = Task(tokio::spawn(watch).abort_handle());
        sub.watch = Some((number, task));
    }

    fn act(&mut self) {
        for action in self.parts.balancer.actions() {
            match action {
                Action::Connect(id, address) => self.connect(id, address),
                Action::Close(id) => {
                    // Dropped, attempts end, and connections with the calls on them.
                    self.subs.remove(&id);
                    self.is_stale = true;
                }
                Action::Resolve => self.schedule.want(),
                Action::Publish => self.is_stale = true,
            }
        }
    }

    fn connect(&mut self, id: Id, address: Address) {
        self.next_number += 1;
        let number = self.next_number;
        let (dialer, tell, to) = (
            self.parts.dialer.clone(),
            self.tell.clone(),
            address.clone(),
        );
        let task = tokio::spawn(async move {
            let made = dialer.dial(&to).await;
            let _ = tell.send(News::Dialed(id, number, made)).await;
        });
        let sub = self.subs.entry(id).or_insert_with(|| Sub {
            shown: address.to_string().into(),
            address,
            attempt: None,
            links: Vec::new(),
            watch: None,
            tally: Arc::default(),
        });
        sub.attempt = Some((number, Task(task.abort_handle())));
    }

    fn picker_of(&self, view: &View) -> Published {
        let lanes = |ids: &[Id]| -> Vec<_> { ids.iter().filter_map(|id| self.lane(*id)).collect() };
        match view {
            View::Idle => Picker::Idle,
            View::Connecting => Picker::Connecting,
            View::Failing(why) => Picker::Failing(Arc::clone(why)),
            View::One(id) => self.lane(*id).map_or(Picker::Connecting, Picker::One),
            View::RoundRobin(ids) => match lanes(ids) {
                lanes if lanes.is_empty() => Picker::Connecting,
                lanes => Picker::RoundRobin(RoundRobin::new(lanes, self.parts.start)),
            },
            View::LeastRequest(ids, choices) => match lanes(ids) {
                lanes if lanes.is_empty() => Picker::Connecting,
                lanes => Picker::LeastRequest(LeastRequest::new(lanes, *choices)),
            },
            View::Ring(ring, seats, percent) => {
                let seat = |seat: &RingSeat| match seat {
                    RingSeat::Idle(id) => Seat::Idle(*id),
                    RingSeat::Connecting => Seat::Connecting,
                    RingSeat::Ready(id) => self.lane(*id).map_or(Seat::Connecting, Seat::Ready),
                    RingSeat::Failing(why) => Seat::Failing(Arc::clone(why)),
                };
                let seats = seats.iter().map(seat).collect();
                Picker::RingHash(RingHash::new(Arc::clone(ring), seats, *percent))
            }
        }
    }

    fn lane(&self, id: Id) -> Option<Arc<Lane>> {
        let sub = self.subs.get(&id).filter(|sub| !sub.links.is_empty())?;
        let count = u32::try_from(sub.links.len()).unwrap_or(u32::MAX);
        let connections = sub.links.iter().map(|link| link.connection.clone());
        Some(Arc::new(Lane::new(
            id,
            Arc::clone(&sub.shown),
            sub.address.target,
            connections.collect(),
            count < self.parts.max_connections,
            Arc::clone(&sub.tally),
            self.parts.counts,
        )))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Waits until a connection takes no more calls.
async fn guard(id: Id, number: u64, connection: Connection, tell: mpsc::Sender<News>) {
    let mut last = connection.readiness();
    while !matches!(last, Readiness::Closing | Readiness::Closed) {
        last = connection.changed(last).await;
    }
    let why = match connection.why_closed() {
        Some(closed) => closed.to_string(),
        None => "the connection was closed".into(),
    };
    let _ = tell.send(News::Gone(id, number, why.into())).await;
}
