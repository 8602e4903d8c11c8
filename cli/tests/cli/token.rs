//! To whom the administrator's token of the default data directory is shown.

use std::net::{Ipv6Addr, SocketAddr};
use std::process::Output;

use super::server::{ANY_PORT, Server};
use super::{code, larder_with, stderr};

/// Lists accounts, which takes an administrator, where `server` says, as a user whose
/// default data directory is that of `home`.
fn administer(home: &Server, server: &str) -> Output {
    let environment = [("XDG_DATA_HOME", home.data_home())];
    larder_with(&["account", "list", "--server", server], &environment, b"")
}

#[test]
fn the_default_token_is_sent_to_its_own_server_and_to_no_other_program() {
    let mut home = Server::start(ANY_PORT);
    let its = home.address.to_string();
    for server in [its.clone(), format!("localhost:{}", home.address.port())] {
        let output = administer(&home, &server);
        assert_eq!(code(&output), 0, "{server}: {output:?}");
    }
    let kept_back = |server: &str, hint: &str| {
        let output = administer(&home, server);
        assert_eq!(code(&output), 1, "{server}: {output:?}");
        let said = stderr(&output);
        // An unknown token would be TOKEN_INVALID.
        assert!(!said.contains("TOKEN_INVALID"), "{said}");
        for part in ["admin-token was not sent", hint, "--token-file"] {
            assert!(said.contains(part), "{part}: {said}");
        }
    };
    let other = Server::start(ANY_PORT);
    kept_back(
        &other.address.to_string(),
        &format!("it is of the server on {its}"),
    );
    let both = format!("ipv4:{its},{}", other.address);
    let output = administer(&home, &both);
    assert_eq!(code(&output), 1, "{output:?}");
    // One that listens where `localhost` leads as well. Not every machine has IPv6.
    let v6 = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), home.address.port());
    if std::net::TcpListener::bind(v6).is_ok() {
        let _imposter = Server::start(v6);
        kept_back(&v6.to_string(), &format!("it is of the server on {its}"));
        let output = administer(&home, &format!("localhost:{}", v6.port()));
        assert_eq!(code(&output), 0, "{output:?}");
    }

    // Its file of addresses is still there, and its port anybody's.
    home.kill();
    let imposter = Server::start(home.address);
    let output = administer(&home, &imposter.address.to_string());
    let said = stderr(&output);
    assert!(
        said.contains("no server that uses this directory runs"),
        "{said}"
    );
}
