//! What is read, and what is refused by its name.

use larder_api::errors::Code;

use super::*;
use crate::channel::balancing::{OutlierEjection, Policy, RingHash};
use crate::channel::retry::MAX_ATTEMPTS;

const GET: &str = "/larder.cache.v1.CacheService/Get";

fn read(json: &str) -> ServiceConfig {
    ServiceConfig::parse(json).unwrap_or_else(|error| panic!("{json}: {error}"))
}

#[test]
fn the_default_is_what_stock_clients_load() {
    let stock = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../clients/service-config.json"
    );
    let stock = read(&std::fs::read_to_string(stock).unwrap());
    let ours = ServiceConfig::standard();
    assert_eq!(ours.balancing, stock.balancing);
    assert_eq!(ours.throttle, stock.throttle);
    assert_eq!(ours.health_service, stock.health_service);
    for method in ["Get", "Set", "BatchSet", "Touch", "Load", "GetUsage"] {
        let path = format!("/larder.cache.v1.CacheService/{method}");
        assert_eq!(ours.methods.of(&path), stock.methods.of(&path), "{method}");
    }
    let Tries::Retry(policy) = &ours.methods.of(GET).tries else {
        panic!("Get is retried");
    };
    assert!(policy.retryable.contains(Code::Unavailable));
    assert_eq!(policy.initial_backoff.as_millis(), 100);
    assert_eq!(ours.methods.of("/rpc.Cache/Get").tries, Tries::Once);
}

#[test]
fn methods_are_found_from_the_exact_to_the_default() {
    let config = read(
        r#"{"methodConfig": [
            {"name": [{}], "timeout": "1s"},
            {"name": [{"service": "a.B"}], "timeout": "2s", "waitForReady": true},
            {"name": [{"service": "a.B", "method": "C"}, {"service": "d.E", "method": "F"}],
             "timeout": "3.000000001s", "maxRequestMessageBytes": "7", "maxResponseMessageBytes": 8}
        ]}"#,
    );
    for (path, millis, waits) in [
        ("/a.B/C", 3000, None),
        ("/d.E/F", 3000, None),
        ("/d.E/G", 1000, None),
        ("/a.B/D", 2000, Some(true)),
        ("/a.BC/D", 1000, None),
        ("", 1000, None),
    ] {
        let method = config.methods.of(path);
        assert_eq!(method.timeout.unwrap().as_millis(), millis, "{path}");
        assert_eq!(method.wait_for_ready, waits, "{path}");
    }
    let exact = config.methods.of("/a.B/C");
    assert_eq!(exact.timeout.unwrap().subsec_nanos(), 1);
    assert_eq!(exact.max_request_bytes, Some(7));
    assert_eq!(exact.max_response_bytes, Some(8));
    assert_eq!(**read("{}").methods.of("/a.B/C"), MethodConfig::default());
}

#[test]
fn retries_and_hedging() {
    let config = read(
        r#"{"retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1239},
            "connectionScaling": {"maxConnectionsPerSubchannel": 99},
            "somethingNew": [1, {"a": null}],
            "methodConfig": [
            {"name": [{"service": "a.B"}], "unknown": 1, "hedgingPolicy": null, "retryPolicy":
              {"maxAttempts": 9, "initialBackoff": "0.5s", "maxBackoff": "5s", "unknown": {},
               "backoffMultiplier": "1.5", "retryableStatusCodes": ["unavailable", 8, "ABORTED"]}},
            {"name": [{"service": "a.C"}], "hedgingPolicy":
              {"maxAttempts": 3.0, "hedgingDelay": "0.020s", "nonFatalStatusCodes": [14]}},
            {"name": [{"service": "a.D"}], "hedgingPolicy": {"maxAttempts": 2}}
        ]}"#,
    );
    let throttle = config.throttle.unwrap();
    assert_eq!((throttle.max_tokens, throttle.ratio_thousandths), (10, 123));
    assert_eq!(config.max_connections, MAX_CONNECTIONS);
    let Tries::Retry(retry) = &config.methods.of("/a.B/X").tries else {
        panic!("a retry policy");
    };
    assert_eq!(retry.max_attempts, MAX_ATTEMPTS);
    assert_eq!(retry.backoff_multiplier.to_bits(), 1.5f64.to_bits());
    for code in [Code::Unavailable, Code::ResourceExhausted, Code::Aborted] {
        assert!(retry.retryable.contains(code), "{code}");
    }
    assert!(!retry.retryable.contains(Code::Internal));
    let Tries::Hedge(hedge) = &config.methods.of("/a.C/X").tries else {
        panic!("a hedging policy");
    };
    assert_eq!((hedge.max_attempts, hedge.delay.as_millis()), (3, 20));
    let Tries::Hedge(hedge) = &config.methods.of("/a.D/X").tries else {
        panic!("a hedging policy");
    };
    assert!(hedge.delay.is_zero() && hedge.non_fatal.is_empty());
}

#[test]
fn policies_of_balancing() {
    let ring = RingHash {
        min_ring_size: 16,
        max_ring_size: 65_536,
        balance_percent: 0,
    };
    for (json, wanted) in [
        (r#"[{"pick_first": {}}]"#, Balancing::pick_first()),
        (
            r#"[{"pick_first": {"shuffleAddressList": true}}]"#,
            Balancing::pick_first_shuffled(),
        ),
        (
            r#"[{"from_the_future": {"x": 1}}, {"round_robin": {}}, {"pick_first": {}}]"#,
            Balancing::round_robin(),
        ),
        (
            r#"[{"least_request_experimental": {"choiceCount": 99}}]"#,
            Balancing::new(Policy::LeastRequest { choices: 10 }),
        ),
        (
            r#"[{"ring_hash_experimental": {"minRingSize": 16, "maxRingSize": 8388608}}]"#,
            Balancing::ring_hash(ring),
        ),
        (
            r#"[{"ring_hash": {"hashBalanceFactor": 125}}]"#,
            Balancing::ring_hash(RingHash::default().with_bounded_load(125)),
        ),
        (
            r#"[{"outlier_detection_experimental": {
                "successRateEjection": {}, "failurePercentageEjection": {},
                "childPolicy": [{"round_robin": {}}]}}]"#,
            Balancing::round_robin().with_outlier_ejection(OutlierEjection::default()),
        ),
        (
            // Without a way to find one there is no ejection.
            r#"[{"outlier_detection": {"childPolicy": [{"round_robin": {}}]}}]"#,
            Balancing::round_robin(),
        ),
    ] {
        let config = read(&format!(r#"{{"loadBalancingConfig": {json}}}"#));
        assert_eq!(config.balancing, Some(wanted), "{json}");
    }
    assert_eq!(read("{}").balancing, None);
}

#[test]
fn wrong_values_are_refused_by_their_path() {
    let retry = |field: &str| {
        let fields = [
            ("maxAttempts", "3"),
            ("initialBackoff", "\"1s\""),
            ("maxBackoff", "\"1s\""),
            ("backoffMultiplier", "2"),
            ("retryableStatusCodes", "[14]"),
        ];
        let name = field.split(':').next().unwrap();
        let mut all: Vec<String> = fields
            .iter()
            .filter(|(other, _)| *other != name)
            .map(|(name, value)| format!("\"{name}\":{value}"))
            .collect();
        if let Some((name, value)) = field.split_once(':') {
            all.push(format!("\"{name}\":{value}"));
        }
        format!(
            r#"{{"methodConfig":[{{"retryPolicy":{{{}}}}}]}}"#,
            all.join(",")
        )
    };
    let policy = "methodConfig[0].retryPolicy";
    let mut table = vec![
        (
            "[]".to_owned(),
            "the document: must be an object".to_owned(),
        ),
        ("{".into(), "is no JSON".into()),
        (
            r#"{"methodConfig":1}"#.into(),
            "methodConfig: must be a list".into(),
        ),
        (
            r#"{"methodConfig":[{"name":[{"method":"x"}]}]}"#.into(),
            "methodConfig[0].name[0]: a method needs a service".into(),
        ),
        (
            r#"{"methodConfig":[{"name":[{"service":"a"},{"service":"a"}]}]}"#.into(),
            "methodConfig[0].name[1]: was named before".into(),
        ),
        (
            r#"{"methodConfig":[{"timeout":"0s"}]}"#.into(),
            "methodConfig[0].timeout: must be more".into(),
        ),
        (
            r#"{"methodConfig":[{"waitForReady":"yes"}]}"#.into(),
            "methodConfig[0].waitForReady: must be true or false".into(),
        ),
        (
            r#"{"methodConfig":[{"hedgingPolicy":{"maxAttempts":1}}]}"#.into(),
            "methodConfig[0].hedgingPolicy.maxAttempts: is 1".into(),
        ),
        (
            r#"{"retryThrottling":{"maxTokens":1001,"tokenRatio":1}}"#.into(),
            "retryThrottling.maxTokens: is 1001; must be from 1 to 1000".into(),
        ),
        (
            r#"{"retryThrottling":{"maxTokens":10,"tokenRatio":0.0001}}"#.into(),
            "retryThrottling.tokenRatio: must be from 0.001".into(),
        ),
        (
            r#"{"loadBalancingConfig":[{"new_policy":{}}]}"#.into(),
            "loadBalancingConfig: has no policy".into(),
        ),
        (
            r#"{"loadBalancingConfig":[{"a":{},"b":{}}]}"#.into(),
            "loadBalancingConfig[0]: must have one name".into(),
        ),
        (
            r#"{"loadBalancingConfig":[{"ring_hash":{"minRingSize":9,"maxRingSize":8}}]}"#.into(),
            "loadBalancingConfig[0].ring_hash: minRingSize is more".into(),
        ),
        (
            r#"{"loadBalancingConfig":[{"outlier_detection":{"maxEjectionPercent":101}}]}"#.into(),
            "outlier_detection.maxEjectionPercent: is 101; must be from 0 to 100".into(),
        ),
        (
            r#"{"healthCheckConfig":{"serviceName":1}}"#.into(),
            "healthCheckConfig.serviceName: must be a string".into(),
        ),
    ];
    for (field, wanted) in [
        ("maxAttempts:1", "maxAttempts: is 1; must be at least 2"),
        ("maxAttempts:2.5", "maxAttempts: must be a whole number"),
        ("maxAttempts:-3", "maxAttempts: must be a whole number"),
        ("maxAttempts", " needs maxAttempts"),
        ("initialBackoff", " needs initialBackoff"),
        ("initialBackoff:1", "initialBackoff: must be a string"),
        (
            "initialBackoff:\"1\"",
            "initialBackoff: \"1\" is no duration",
        ),
        (
            "initialBackoff:\"-1s\"",
            "initialBackoff: \"-1s\" is no duration",
        ),
        (
            "initialBackoff:\"1.s\"",
            "initialBackoff: \"1.s\" is no duration",
        ),
        ("initialBackoff:\"0s\"", "initialBackoff: must be more"),
        ("maxBackoff:\"1.1234567891s\"", "is no duration"),
        ("maxBackoff:\"999999999999s\"", "is no duration"),
        ("backoffMultiplier:0", "backoffMultiplier: must be more"),
        ("retryableStatusCodes:[]", "retryableStatusCodes: must name"),
        (
            "retryableStatusCodes:[17]",
            "retryableStatusCodes[0]: is no status code",
        ),
        (
            "retryableStatusCodes:[14,\"X\"]",
            "retryableStatusCodes[1]: is no",
        ),
    ] {
        table.push((
            retry(field),
            format!(
                "{policy}{}{wanted}",
                match wanted.as_bytes()[0] {
                    b' ' => ":",
                    b'i' if wanted.starts_with("is no") => ".maxBackoff: ",
                    _ => ".",
                }
            ),
        ));
    }
    for (json, wanted) in table {
        let error = ServiceConfig::parse(&json).expect_err(&json);
        assert!(error.is_configuration());
        let message = error
            .message()
            .replace("\"1.1234567891s\" ", "")
            .replace("\"999999999999s\" ", "");
        assert!(
            message.contains(&wanted),
            "{json}: {message}; wanted {wanted}"
        );
    }
}
