//! What is measured, against whom, and the goals.

use super::machine::available_gib;

/// Keys of every server but those that are measured for their number.
pub(super) const KEYS: u64 = 100_000;

/// Keys of a server that is measured for something else.
pub(super) const FEW_KEYS: u64 = 1_000;

/// Memory that ten million keys take with room to spare, GiB.
pub(super) const LARGE_GIB: u64 = 8;

/// How much is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    Quick,
    Full,
}

/// A server to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Host {
    Larder,
    LarderTls,
    /// With so many keys.
    LarderKeys(u64),
    /// With so many accounts, which share the usual number of keys.
    LarderAccounts(u64),
    /// Started for one measurement.
    LarderFresh,
    Echo,
    Tonic,
    TonicTuned,
    TonicTls,
    GrpcGo,
    Redis,
}

/// What makes the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tool {
    /// `larder bench` with this `--api`.
    Larder(&'static str),
    /// A stock client of grpc-go.
    GoClient,
    /// nghttp2's load generator.
    H2load,
    /// `larder bench`, for the memory of connections that do next to nothing.
    Idle,
}

/// One measurement.
#[derive(Debug, Clone)]
pub(super) struct Case {
    /// As tables name it.
    pub(super) subject: String,
    pub(super) host: Host,
    pub(super) tool: Tool,
    pub(super) connections: u64,
    pub(super) streams: u64,
    /// As `larder bench --mix` takes it.
    pub(super) mix: &'static str,
    pub(super) keys: u64,
}

/// What the first case should come to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Goal {
    pub(super) measure: Measure,
    /// At the most.
    pub(super) at_most: f64,
}

/// What a goal is about.
#[derive(Debug, Clone, Copy)]
pub(super) enum Measure {
    /// The cost of the first case in that of this other one.
    Against(&'static str),
    /// KiB of memory.
    Kib,
}

/// Cases that are measured one after the other, and compared: the first with
/// each of the others.
pub(super) struct Scenario {
    /// On the command line.
    pub(super) name: &'static str,
    pub(super) title: String,
    pub(super) cases: Vec<Case>,
    pub(super) goals: Vec<Goal>,
}

const GET: &str = "get:1";
const SET: &str = "set:1";
const BOTH: &str = "get:90,set:10";

const fn goal(against: &'static str, at_most: f64) -> Goal {
    Goal {
        measure: Measure::Against(against),
        at_most,
    }
}

/// Every scenario, in the order in which they are measured.
pub(super) fn all(scope: Scope) -> Vec<Scenario> {
    let mut all = Vec::new();
    for (name, title, mix, connections, streams, is_quick, goals) in beside_peers() {
        if scope == Scope::Full || is_quick {
            all.push(Scenario {
                name,
                title: title.to_owned(),
                cases: peers(mix, connections, streams),
                goals,
            });
        }
    }
    all.push(go_client());
    all.push(tls());
    all.push(own_contract());
    all.push(keys(scope));
    all.push(accounts(scope));
    all.push(connections());
    all.push(idle());
    all.push(h2load());
    all
}

/// Name, title, mix, connections, calls in flight on each, whether it is quick,
/// goals.
type Row = (
    &'static str,
    &'static str,
    &'static str,
    u64,
    u64,
    bool,
    Vec<Goal>,
);

fn beside_peers() -> Vec<Row> {
    let get_8_32 = vec![
        goal("tonic", 1.0 / 8.0),
        goal("grpc-go", 1.0 / 10.0),
        goal("Redis", 1.0),
    ];
    let get_64_1 = vec![goal("tonic", 1.0 / 2.2), goal("Redis", 1.7)];
    let set_8_32 = vec![goal("tonic", 1.0 / 6.0), goal("Redis", 1.3)];
    let set_64_1 = vec![goal("Redis", 1.8)];
    vec![
        (
            "get-8x32",
            "Get, 8 connections × 32 in flight",
            GET,
            8,
            32,
            true,
            get_8_32,
        ),
        ("get-1x64", "Get, 1 × 64", GET, 1, 64, false, vec![]),
        ("get-64x1", "Get, 64 × 1", GET, 64, 1, true, get_64_1),
        ("get-1x1", "Get, 1 × 1", GET, 1, 1, false, vec![]),
        (
            "set-8x32",
            "Set (Store), 8 × 32",
            SET,
            8,
            32,
            true,
            set_8_32,
        ),
        ("set-1x64", "Set (Store), 1 × 64", SET, 1, 64, false, vec![]),
        (
            "set-64x1",
            "Set (Store), 64 × 1",
            SET,
            64,
            1,
            true,
            set_64_1,
        ),
        ("set-1x1", "Set (Store), 1 × 1", SET, 1, 1, false, vec![]),
        (
            "mixed-8x32",
            "90 % Get, 10 % Set, 8 × 32",
            BOTH,
            8,
            32,
            true,
            vec![],
        ),
        (
            "mixed-1x64",
            "90 % Get, 10 % Set, 1 × 64",
            BOTH,
            1,
            64,
            false,
            vec![],
        ),
        (
            "mixed-64x1",
            "90 % Get, 10 % Set, 64 × 1",
            BOTH,
            64,
            1,
            false,
            vec![],
        ),
        (
            "mixed-1x1",
            "90 % Get, 10 % Set, 1 × 1",
            BOTH,
            1,
            1,
            false,
            vec![],
        ),
    ]
}

fn peers(mix: &'static str, connections: u64, streams: u64) -> Vec<Case> {
    let rpc = Tool::Larder("rpc");
    let redis = Tool::Larder("redis");
    [
        ("larder", Host::Larder, rpc),
        ("transport alone", Host::Echo, rpc),
        ("tonic", Host::Tonic, rpc),
        ("tonic tuned", Host::TonicTuned, rpc),
        ("grpc-go", Host::GrpcGo, rpc),
        ("Redis", Host::Redis, redis),
    ]
    .map(|(subject, host, tool)| case(subject, host, tool, mix, connections, streams))
    .into()
}

fn case(
    subject: &str,
    host: Host,
    tool: Tool,
    mix: &'static str,
    connections: u64,
    streams: u64,
) -> Case {
    Case {
        subject: subject.into(),
        host,
        tool,
        connections,
        streams,
        mix,
        keys: KEYS,
    }
}

fn go_client() -> Scenario {
    let hosts = [
        ("larder", Host::Larder),
        ("transport alone", Host::Echo),
        ("tonic", Host::Tonic),
        ("tonic tuned", Host::TonicTuned),
        ("grpc-go", Host::GrpcGo),
    ];
    Scenario {
        name: "go-client-8x32",
        title: "Get, 8 × 32, by a stock grpc-go client".into(),
        cases: hosts
            .map(|(subject, host)| case(subject, host, Tool::GoClient, GET, 8, 32))
            .into(),
        goals: vec![goal("tonic", 1.0 / 5.0)],
    }
}

fn tls() -> Scenario {
    let rpc = Tool::Larder("rpc");
    Scenario {
        name: "tls-8x32",
        title: "Get over TLS 1.3, 8 × 32".into(),
        cases: vec![
            case("larder", Host::LarderTls, rpc, GET, 8, 32),
            case("tonic", Host::TonicTls, rpc, GET, 8, 32),
        ],
        goals: vec![goal("tonic", 1.0 / 5.0)],
    }
}

/// The contract that larder has beside the simple one that the peers serve, too.
fn own_contract() -> Scenario {
    let larder = |subject, api, mix| case(subject, Host::Larder, Tool::Larder(api), mix, 8, 32);
    Scenario {
        name: "contract-8x32",
        title: "larder.cache.v1 beside rpc.Cache, 8 × 32".into(),
        cases: vec![
            larder("v1 Get", "v1", GET),
            larder("v1 Set", "v1", SET),
            larder("rpc Get", "rpc", GET),
            larder("rpc Store", "rpc", SET),
        ],
        goals: Vec::new(),
    }
}

/// Ten million keys beside ten thousand, as far as the memory goes.
fn keys(scope: Scope) -> Scenario {
    let many = match scope {
        Scope::Full if available_gib() > LARGE_GIB => 10_000_000,
        _ => 1_000_000,
    };
    let with = |subject: &str, keys| Case {
        keys,
        ..case(
            subject,
            Host::LarderKeys(keys),
            Tool::Larder("v1"),
            GET,
            8,
            32,
        )
    };
    Scenario {
        name: "growth-keys",
        title: format!("Get, 8 × 32, of {} million keys", many / 1_000_000),
        cases: vec![
            with(&format!("{} million", many / 1_000_000), many),
            with("10 thousand", 10_000),
        ],
        goals: vec![goal("10 thousand", 1.5)],
    }
}

fn accounts(scope: Scope) -> Scenario {
    let many = match scope {
        Scope::Full => 10_000,
        Scope::Quick => 1_000,
    };
    let with = |subject: &str, accounts| {
        case(
            subject,
            Host::LarderAccounts(accounts),
            Tool::Larder("v1"),
            GET,
            8,
            32,
        )
    };
    Scenario {
        name: "growth-accounts",
        title: format!(
            "Get, 8 × 32, of {},000 accounts, chosen by chance",
            many / 1_000
        ),
        cases: vec![
            with(&format!("{},000 accounts", many / 1_000), many),
            with("1 account", 1),
        ],
        goals: vec![goal("1 account", 1.2)],
    }
}

fn connections() -> Scenario {
    let rpc = Tool::Larder("rpc");
    Scenario {
        name: "growth-connections",
        title: "Get, 1,000 connections × 1".into(),
        cases: vec![
            case("1,000 connections", Host::Larder, rpc, GET, 1_000, 1),
            case("64 connections", Host::Larder, rpc, GET, 64, 1),
        ],
        goals: vec![goal("64 connections", 1.3)],
    }
}

fn idle() -> Scenario {
    Scenario {
        name: "idle",
        title: "Memory of an idle connection, of 1,000 that have made a few calls".into(),
        cases: vec![Case {
            keys: FEW_KEYS,
            ..case("larder", Host::LarderFresh, Tool::Idle, GET, 1_000, 1)
        }],
        goals: vec![Goal {
            measure: Measure::Kib,
            at_most: 16.0,
        }],
    }
}

fn h2load() -> Scenario {
    let hosts = [
        ("larder", Host::Larder),
        ("tonic", Host::Tonic),
        ("tonic tuned", Host::TonicTuned),
        ("grpc-go", Host::GrpcGo),
    ];
    Scenario {
        name: "h2load-8x32",
        title: "Get of one key, 8 × 32, by h2load: a check of the load generator".into(),
        cases: hosts
            .map(|(subject, host)| case(subject, host, Tool::H2load, GET, 8, 32))
            .into(),
        goals: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_are_against_cases_that_are_measured() {
        for scope in [Scope::Quick, Scope::Full] {
            for scenario in all(scope) {
                for goal in &scenario.goals {
                    let Measure::Against(against) = goal.measure else {
                        continue;
                    };
                    let is_case = |case: &Case| case.subject == against;
                    assert!(scenario.cases[1..].iter().any(is_case), "{}", scenario.name);
                }
            }
        }
    }

    #[test]
    fn quick_is_a_part_of_full() {
        let names = |scope| all(scope).into_iter().map(|s| s.name).collect::<Vec<_>>();
        let full = names(Scope::Full);
        assert!(names(Scope::Quick).iter().all(|name| full.contains(name)));
        let mut once = full.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), full.len());
    }
}
