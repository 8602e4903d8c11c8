//! What a configuration may say, and how it is refused.

use super::*;

fn parse(toml: &str) -> Result<Config, ConfigError> {
    let settings: Settings = toml::from_str(toml).expect("a table of settings");
    Config::parse(Role::Cache, settings, Path::new("data"))
}

#[test]
fn a_setting_that_cannot_be_is_refused_by_its_name() {
    let check = |toml: &str, setting: &str| match parse(toml) {
        Err(ConfigError::Setting { setting: named, .. }) => {
            assert_eq!(named, setting, "{toml}");
        }
        other => panic!("{toml}: {other:?}"),
    };
    check("listen = []", "listen");
    check("listen = ['here']", "listen");
    check("listen = ['unix:']", "listen");
    check("listen = ['0.0.0.0:1']", "listen");
    check("tls_cert = 'a'", "tls_key");
    check("tls_key = 'a'", "tls_cert");
    check("client_ca = 'a'", "client_ca");
    check("threads = 0", "threads");
    check("max_memory = '1MiB'", "max_memory");
    check("max_connections = 0", "max_connections");
    check("max_key_bytes = 0", "max_key_bytes");
    check("max_value_bytes = '4MiB'", "max_value_bytes");
    check("max_batch_keys = 100000", "max_batch_keys");
    check("max_list_page = 0", "max_list_page");
    check("drain_grace_seconds = 3601", "drain_grace_seconds");
    check("anonymous = 'No Such Name'", "anonymous");
    check("accounts_ca = 'a'", "accounts_ca");
    check("accounts_token_file = 'a'", "accounts_token_file");
    check("accounts = 'nonsense'", "accounts");
    check("accounts = 'ftp://localhost'", "accounts");
    check("accounts = 'http://example.com:1'", "accounts");
    check("accounts = 'https://example.com:1'", "accounts_ca");
    check(
        "accounts = 'http://[::1]:1'\naccounts_max_age_seconds = 9999",
        "accounts_max_age_seconds",
    );
    check("cors_origin = ['*']", "cors_origin");
    check("cors_origin = ['https://a.example/']", "cors_origin");
}

#[test]
fn a_file_that_cannot_be_understood_is_refused_by_line_and_key() {
    let check = |text: &str, parts: [&str; 3]| {
        let error = toml::from_str::<Settings>(text).expect_err("a malformed file");
        let message = one_line(text, &error);
        for part in parts {
            assert!(message.contains(part), "{text:?}: {message}");
        }
        assert!(!message.contains('\n'), "{message:?}");
    };
    check(
        "threads = 1\nmax_memry = 2",
        ["line 2", "max_memry", "unknown field"],
    );
    check("listen = 'x", ["line 1", "listen", "string"]);
    check(
        "\n\nthreads = 'many'",
        ["line 3", "threads", "invalid type"],
    );
    check(
        "max_memory = '1 elephant'",
        ["line 1", "max_memory", "unit"],
    );
    check("log_format = 'xml'", ["line 1", "log_format", "xml"]);
}

#[test]
fn anonymous_is_served_by_default_only_where_nobody_else_gets_in() {
    let check = |toml: &str, account: Option<&str>, by_default: bool| {
        let config = parse(toml).unwrap_or_else(|error| panic!("{toml}: {error}"));
        let anonymous = config.anonymous.as_ref().map(AccountName::as_str);
        assert_eq!(
            (anonymous, config.anonymous_by_default),
            (account, by_default),
            "{toml}"
        );
    };
    check("", Some("default"), true);
    check(
        "listen = ['unix:a', 'localhost:0', '[::1]:0']",
        Some("default"),
        true,
    );
    check(
        "listen = ['0.0.0.0:0']\nallow_clear_text = true",
        None,
        false,
    );
    check("tls_cert = 'a'\ntls_key = 'b'", None, false);
    check("accounts = 'http://127.0.0.1:1'", None, false);
    check("anonymous = 'guest'", Some("guest"), false);
}

#[test]
fn the_command_line_wins_over_the_file() {
    let file: Settings = toml::from_str("threads = 2\nmax_list_page = 7").expect("settings");
    let line = Settings {
        threads: Some(3),
        ..Settings::default()
    };
    let both = line.over(file);
    assert_eq!((both.threads, both.max_list_page), (Some(3), Some(7)));
}

#[test]
fn sizes_are_read_and_shown_in_their_units() {
    let check = |text: &str, bytes: Option<u64>| {
        assert_eq!(text.parse::<ByteSize>().ok(), bytes.map(ByteSize), "{text}");
    };
    check("0", Some(0));
    check("4096", Some(4096));
    check("512MiB", Some(512 << 20));
    check("1g", Some(1 << 30));
    check("2 KiB", Some(2048));
    check("3MB", Some(3_000_000));
    for bad in [
        "",
        "MiB",
        "1.5GiB",
        "-1",
        "1XB",
        "99999999999999999999",
        "99999999TiB",
    ] {
        check(bad, None);
    }
    assert_eq!(ByteSize(1 << 30).to_string(), "1GiB");
    assert_eq!(ByteSize(1000).to_string(), "1000B");
}

#[test]
fn the_transport_is_told_what_the_file_says() {
    let config = parse(
        "[transport]\nidle_seconds = 5\n[transport.abuse]\npings = { burst = 7, per_second = 3 }",
    )
    .expect("a configuration");
    assert_eq!(config.transport.limits.times.idle, Duration::from_secs(5));
    let pings = config.transport.limits.abuse.pings;
    assert_eq!((pings.burst, pings.per_second, pings.per_work), (7, 3, 0));
    let check = |toml: &str, setting: &str| {
        let error = parse(toml).expect_err(toml).to_string();
        assert!(error.starts_with(&format!("{setting}: ")), "{error}");
    };
    check("[transport]\nage_seconds = 0", "transport.age_seconds");
    check(
        "[transport]\nstream_window_bytes = 1",
        "transport.stream_window_bytes",
    );
    check(
        "[transport.abuse]\npings = { burst = 0, per_second = 1 }",
        "transport.abuse.pings",
    );
    check("admin = 'here'", "admin");
}

#[test]
fn admission_and_deadlines_are_what_the_file_says() {
    let config = parse(
        "[admission]\nlate_ms = 0\nmax_streams_per_account = 2\n[deadlines]\nmax_seconds = 7",
    )
    .expect("a configuration");
    assert_eq!(config.admission.shedding, None);
    assert_eq!(config.admission.max_streams_per_account, 2);
    // The default is never above the maximum, unless it is asked for.
    assert_eq!(config.deadlines.default, Duration::from_secs(7));
    assert_eq!(config.deadlines.max, Duration::from_secs(7));
    let shedding = parse("").expect("a configuration").admission.shedding;
    assert_eq!(shedding, Some(crate::Shedding::default()));
    let check = |toml: &str, setting: &str| {
        let error = parse(toml).expect_err(toml).to_string();
        assert!(error.starts_with(&format!("{setting}: ")), "{error}");
    };
    check("[admission]\ntarget_ms = 0", "admission.target_ms");
    check("[admission]\ninterval_ms = 1", "admission.interval_ms");
    check("[deadlines]\nmax_seconds = 0", "deadlines.max_seconds");
    check(
        "[deadlines]\nmax_seconds = 5\ndefault_seconds = 6",
        "deadlines.default_seconds",
    );
}

#[test]
fn every_setting_of_a_table_is_documented() {
    let documented = include_str!("../../../docs/configuration.md");
    let transport = TransportSettings::NAMES.iter().chain(AbuseSettings::NAMES);
    let admission = AdmissionSettings::NAMES.iter();
    for name in transport.chain(admission).chain(DeadlineSettings::NAMES) {
        assert!(documented.contains(&format!("\n| `{name}` |")), "{name}");
    }
}
