//! What a configuration may say, and how it is refused.

use super::*;

pub(super) fn parse(toml: &str) -> Result<Config, ConfigError> {
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
    check("accounts_cert = 'a'\naccounts_key = 'a'", "accounts_cert");
    let https = "accounts = 'https://example.com:1'\naccounts_ca = 'a'\n";
    check(&format!("{https}accounts_cert = 'a'"), "accounts_key");
    check(&format!("{https}accounts_key = 'a'"), "accounts_cert");
    let http = "accounts = 'http://127.0.0.1:1'\n";
    check(
        &format!("{http}accounts_cert = 'a'\naccounts_key = 'a'"),
        "accounts_cert",
    );
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
fn the_command_line_wins_over_the_environment_and_that_over_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("larder.toml");
    let file = "threads = 1\nmax_list_page = 1\nmax_batch_keys = 1\n[snapshot]\ninterval_seconds = 1\n\
                [transport.abuse]\npings = { burst = 1, per_second = 2 }";
    std::fs::write(&path, file).expect("the disk has room");
    let variable = |name: &str| {
        let value = match name {
            "LARDER_THREADS" | "LARDER_MAX_LIST_PAGE" => "2",
            "LARDER_TRANSPORT_ABUSE_PINGS_BURST" => "7",
            "LARDER_SNAPSHOT_LOAD_AFTER_CRASH" => "false",
            "LARDER_LISTEN" => "127.0.0.1:1, unix:a",
            "LARDER_LOG" => "debug",
            "LARDER_ANONYMOUS" => "123",
            "LARDER_ADMIN" => "",
            _ => return None,
        };
        Some(value.to_owned())
    };
    let line = Settings {
        threads: Some(3),
        ..Settings::default()
    };
    let layers = Layers::read(Some(&path), variable, &line).expect("settings");
    let all = &layers.settings;
    let numbers = (all.threads, all.max_list_page, all.max_batch_keys);
    assert_eq!(numbers, (Some(3), Some(2), Some(1)));
    let snapshot = all.snapshot.expect("a table");
    assert_eq!(snapshot.interval_seconds, Some(1));
    assert_eq!(snapshot.load_after_crash, Some(false));
    let pings = all
        .transport
        .expect("a table")
        .abuse
        .pings
        .expect("a budget");
    assert_eq!((pings.burst, pings.per_second), (Some(7), Some(2)));
    assert_eq!(all.listen.as_deref().map(<[_]>::len), Some(2));
    assert_eq!(all.log_filter.as_deref(), Some("debug"));
    assert_eq!((all.anonymous.as_deref(), &all.admin), (Some("123"), &None));
    let check = |name: &str, source: &str| {
        assert!(layers.source(name).to_string().ends_with(source), "{name}");
    };
    check("threads", "command line");
    check("max_list_page", "$LARDER_MAX_LIST_PAGE");
    check("max_batch_keys", "larder.toml");
    check("transport.abuse.pings.per_second", "larder.toml");
    check("log_filter", "$LARDER_LOG");
    check("max_memory", "default");
}

#[test]
fn a_variable_of_a_nested_table_does_without_the_others() {
    let whole = parse("").expect("defaults").transport.limits.abuse;
    for name in names::names() {
        if !name.path.starts_with("transport.abuse.") {
            continue;
        }
        let variable = |asked: &str| (asked == name.variable()).then(|| "12345".to_owned());
        let layers = Layers::read(None, variable, &Settings::default());
        let settings = layers.expect(&name.path).settings;
        let config = Config::parse(Role::Cache, settings, Path::new("data"));
        let abuse = config.expect(&name.path).transport.limits.abuse;
        // One number differs, and it is this one.
        assert_ne!(abuse, whole, "{}", name.path);
        let printed = format!("{abuse:?}");
        assert_eq!(printed.matches("12345").count(), 1, "{}", name.path);
    }
}

#[test]
fn a_default_that_counts_only_with_another_setting_is_printed_as_such() {
    let page = parse("").expect("defaults").print(&Layers::default());
    for line in [
        "log_filter = \"info,access=info\" # default",
        "# accounts_max_age_seconds = 10 # default, without effect here",
        "# anonymous = \"default\" # default, while all listeners are local",
        "# reload_seconds = 10 # default, without effect here",
        "# client_certificates = \"required\" # default, without effect here",
        "# trace_ratio = 0.01 # default, without effect here",
        "# service_name = \"larder\" # default, without effect here",
        "# tls_cert is not set",
        "max_header_list_bytes = \"16KiB\" # default",
    ] {
        assert!(page.lines().any(|it| it == line), "{line}:\n{page}");
    }
}

#[test]
fn a_variable_that_cannot_be_understood_is_named() {
    let check = |name: &str, value: &str| {
        let variable = |asked: &str| (asked == name).then(|| value.to_owned());
        let error = Layers::read(None, variable, &Settings::default()).expect_err(name);
        assert!(
            error.to_string().starts_with(&format!("{name}: ")),
            "{error}"
        );
    };
    check("LARDER_THREADS", "many");
    check("LARDER_MAX_MEMORY", "1 elephant");
    check("LARDER_LOG_FORMAT", "xml");
    check("LARDER_SNAPSHOT_ENABLED", "perhaps");
}

#[test]
fn what_is_printed_says_the_same() {
    let check = |toml: &str| {
        let config = parse(toml).expect(toml);
        let page = config.print(&Layers::default());
        let again = parse(&page).unwrap_or_else(|error| panic!("{error}:\n{page}"));
        assert_eq!(again, config, "{page}");
        for name in names::names() {
            let last = name.path.rsplit('.').next().expect("a name");
            let is_there = |line: &str| line.trim_start_matches("# ").starts_with(last);
            assert!(page.lines().any(is_there), "{last}");
        }
    };
    check("");
    check("listen = ['0.0.0.0:1', 'unix:/a b']\nallow_clear_text = true\nmax_memory = '17MiB'");
    check(
        "accounts = 'https://a.example:1'\naccounts_ca = 'ca'\naccounts_cert = 'c'\naccounts_key = 'k'\naccounts_max_age_seconds = 1\nanonymous = 'x'",
    );
    check(
        "tls_cert = 'c'\ntls_key = 'k'\nclient_ca = 'a'\nadmin = '127.0.0.1:1'\nlog_format = 'json'",
    );
    check(
        "cors_origin = ['https://a.example']\n[snapshot]\nenabled = false\n[transport]\nage_seconds = 9",
    );
    let config = parse("accounts = 'http://user:secret@localhost:1'").expect("a configuration");
    let page = config.print(&Layers::default());
    assert!(!page.contains("secret"), "{page}");
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
    assert_eq!((pings.burst, pings.per_second, pings.per_work), (7, 3, 1));
    let sizes =
        parse("[transport]\nmax_header_list_bytes = '64 KiB'\nmax_buffered_bytes = 2097152");
    let sizes = sizes.expect("sizes").transport;
    assert_eq!(sizes.limits.max_header_list_bytes, 64 << 10);
    assert_eq!(sizes.max_buffered_bytes, 2 << 20);
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
fn every_setting_is_documented() {
    let documented = include_str!("../../../docs/configuration.md");
    // A budget is one row.
    let names = names::names();
    let names = names.iter().map(|name| {
        let mut parts = name.path.split('.');
        match name.path.starts_with("transport.abuse.") {
            true => parts.nth(2),
            false => parts.next_back(),
        }
    });
    for name in names.flatten() {
        let is_row = |line: &str| line.starts_with("| `") && line.contains(&format!("`{name}`"));
        assert!(documented.lines().any(is_row), "{name}");
    }
}

#[test]
fn clear_text_leaves_the_machine_only_where_that_is_asked_for() {
    let check = |toml: &str, allowed: bool| {
        let refused = parse(toml).err().map(|error| error.to_string());
        assert_eq!(refused.is_none(), allowed, "{toml}: {refused:?}");
        if let Some(message) = refused {
            assert!(message.contains("--allow-clear-text"), "{message}");
        }
    };
    check("listen = ['0.0.0.0:1']", false);
    check("listen = ['127.0.0.1:1', '[::]:1']", false);
    check("listen = ['0.0.0.0:1']\nallow_clear_text = true", true);
    check(
        "listen = ['0.0.0.0:1']\ntls_cert = 'a'\ntls_key = 'b'",
        true,
    );
    check("accounts = 'http://example.com:1'", false);
    check("accounts = 'http://10.0.0.1:1'", false);
    check("accounts = 'http://127.1.2.3:1'", true);
    check(
        "accounts = 'http://example.com:1'\nallow_clear_text = true",
        true,
    );
    check(
        "accounts = 'https://example.com:1'\naccounts_ca = 'a'",
        true,
    );
    let settings: Settings = toml::from_str("listen = ['0.0.0.0:1']").expect("settings");
    let accounts = Config::parse(Role::Accounts, settings, Path::new("data"));
    assert!(accounts.is_err(), "the Accounts process has the same rule");
}

#[test]
fn certificates_stand_for_accounts_as_the_file_says() {
    const TLS: &str = "tls_cert = 'a'\ntls_key = 'b'\nclient_ca = 'c'\n";
    let config = parse(&format!(
        "{TLS}[tls]\nreload_seconds = 3\nclient_certificates = 'optional'\n\
         [[tls.account]]\nuri = 'spiffe://x/*'\naccount = 'web'\n\
         [[tls.account]]\ncommon_name = 'ops'\naccount = 'default'\nactions = ['admin']\n\
         namespaces = ['n']\nkey_prefixes = ['p']"
    ))
    .expect("a configuration");
    let tls = config.tls.expect("TLS");
    assert_eq!(tls.reload_interval, Duration::from_secs(3));
    assert_eq!(tls.client_certificates, ClientCertificates::Optional);
    let [web, ops] = &config.certificate_accounts[..] else {
        panic!("{:?}", config.certificate_accounts)
    };
    assert_eq!(
        (web.account.as_str(), ops.account.as_str()),
        ("web", "default")
    );
    assert!(web.rights.allows(larder_accounts::Action::Write));
    assert!(!ops.rights.allows(larder_accounts::Action::Read));
    assert!(ops.rights.allows_key(b"p1") && !ops.rights.allows_key(b"q"));

    let check = |toml: &str, setting: &str| {
        let error = parse(toml).expect_err(toml).to_string();
        assert!(error.starts_with(&format!("{setting}: ")), "{error}");
    };
    let rule = |rule: &str| format!("{TLS}[[tls.account]]\n{rule}");
    check(&rule("account = 'web'"), "tls.account");
    check(
        &rule("account = 'web'\nuri = 'a'\ndns = 'b'"),
        "tls.account",
    );
    check(&rule("account = 'web'\nuri = ''"), "tls.account");
    check(&rule("account = 'No Name'\nuri = 'a'"), "tls.account");
    check(
        &rule("account = 'web'\nuri = 'a'\nnamespaces = ['UP']"),
        "tls.account",
    );
    check(
        &rule("account = 'web'\nuri = 'a'\nkey_prefixes = ['']"),
        "tls.account",
    );
    check("[[tls.account]]\nuri = 'a'\naccount = 'web'", "tls.account");
    check("client_crl = 'a'", "client_crl");
    check(
        "tls_cert = 'a'\ntls_key = 'b'\n[tls]\nreload_seconds = 0",
        "tls.reload_seconds",
    );
    check(
        &format!(
            "accounts = 'http://127.0.0.1:1'\n{}",
            rule("account = 'web'\nuri = 'a'")
        ),
        "tls.account",
    );
    check(
        "[audit]\nfailures_per_second = 99999",
        "audit.failures_per_second",
    );
}

#[test]
fn what_is_remembered_of_requests_has_limits_of_its_own() {
    let limits = |text: &str| {
        let settings: Settings = toml::from_str(text).expect("a file");
        let limits = settings.request_ids.unwrap_or_default().limits();
        limits.map_err(|error| error.to_string())
    };
    assert_eq!(limits(""), Ok(larder_model::ReplayLimits::default()));
    let given = limits("[request_ids]\nwindow_seconds = 5\nmax_per_account = 7\nmax_total = 9");
    let given = given.expect("in range");
    assert_eq!(given.window.as_secs(), 5);
    assert_eq!((given.max_per_account, given.max_total), (7, 9));
    for name in ["window_seconds", "max_per_account", "max_total"] {
        let error = limits(&format!("[request_ids]\n{name} = 0")).expect_err("out of range");
        assert!(error.contains(&format!("request_ids.{name}")), "{error}");
    }
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
    check("[admission]\ntarget_ms = 101", "admission.target_ms");
    check("[deadlines]\nmax_seconds = 0", "deadlines.max_seconds");
    check(
        "[deadlines]\nmax_seconds = 5\ndefault_seconds = 6",
        "deadlines.default_seconds",
    );
}
