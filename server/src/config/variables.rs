//! Variables that look like settings and are none.

use super::check::distance;
use super::layers::LOG_FILTER;
use super::names::names;

/// What the variables of this program begin with.
const PREFIX: &str = "LARDER_";
/// Those of the `larder` command.
const OF_THE_COMMAND: [&str; 3] = ["LARDER_CONFIG", "LARDER_SERVER", "LARDER_TOKEN"];
/// Names that are no further away are taken for typing errors.
const MAX_TYPOS: usize = 3;

/// For each variable that begins with `LARDER_` and says nothing to a server, a sentence
/// that names it, and what may have been meant. Those that Kubernetes and Docker make for a
/// service of that name are left out. An empty variable says nothing either, on purpose.
pub fn unknown_variables(given: impl Iterator<Item = (String, String)>) -> Vec<String> {
    let known: Vec<String> = names().iter().map(super::names::Name::variable).collect();
    let is_known = |name: &str| {
        known.iter().any(|it| it == name) || name == LOG_FILTER.0 || OF_THE_COMMAND.contains(&name)
    };
    let mut unknown: Vec<_> = given
        .filter(|(name, value)| name.starts_with(PREFIX) && !value.is_empty() && !is_known(name))
        .filter(|(name, value)| !is_of_a_service(name, value))
        .map(|(name, _)| {
            let near = known.iter().map(|it| (distance(&name, it), it)).min();
            let hint = near
                .filter(|(typos, _)| *typos <= MAX_TYPOS)
                .map_or(String::new(), |(_, it)| format!("; did you mean {it}?"));
            format!("{name}: no setting has this variable, so it is ignored{hint}")
        })
        .collect();
    unknown.sort();
    unknown
}

/// `LARDER_SERVICE_HOST`, `LARDER_SERVICE_PORT_GRPC`, `LARDER_PORT=tcp://…`,
/// `LARDER_PORT_5051_TCP_ADDR`: a service of Kubernetes (its documentation, "Environment
/// variables"), or a linked container of Docker.
fn is_of_a_service(name: &str, value: &str) -> bool {
    let is_service = name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_");
    let is_link = name.rsplit_once("_PORT").is_some_and(|(_, rest)| {
        rest.is_empty()
            && ["tcp://", "udp://", "sctp://"]
                .iter()
                .any(|it| value.starts_with(it))
    });
    let is_part = name.split("_PORT_").skip(1).any(|rest| {
        let (number, protocol) = rest.split_once('_').unwrap_or((rest, ""));
        number.parse::<u16>().is_ok()
            && ["TCP", "UDP", "SCTP"]
                .iter()
                .any(|it| protocol.starts_with(it))
    });
    is_service || is_link || is_part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_is_no_setting_is_named_with_the_nearest_one() {
        let check = |name: &str, value: &str, expected: Option<&str>| {
            let given = [(name.to_owned(), value.to_owned())];
            let told = unknown_variables(given.into_iter());
            assert_eq!(told.len(), usize::from(expected.is_some()), "{told:?}");
            for (line, part) in told.iter().zip(expected) {
                assert!(line.starts_with(name) && line.contains(part), "{line}");
            }
        };
        let typo = "did you mean LARDER_MAX_MEMORY?";
        check("LARDER_MAX_MEMRY", "1GiB", Some(typo));
        let nested = "did you mean LARDER_SNAPSHOT_INTERVAL_SECONDS?";
        check("LARDER_SNAPSHOT_INTERVAL_SECOND", "1", Some(nested));
        check("LARDER_ZEBRA", "1", Some("is ignored"));
        check("LARDER_PORT", "5051", Some("is ignored"));
        for (name, value) in [
            ("LARDER_MAX_MEMORY", "1GiB"),
            ("LARDER_TRANSPORT_ABUSE_PINGS_BURST", "1"),
            ("LARDER_LOG", "info"),
            ("LARDER_CONFIG", "a"),
            ("LARDER_TOKEN", "a"),
            ("LARDER_ZEBRA", ""),
            ("PATH", "/bin"),
            ("LARDER_SERVICE_HOST", "10.0.0.1"),
            ("LARDER_SERVICE_PORT", "5051"),
            ("LARDER_SERVICE_PORT_GRPC", "5051"),
            ("LARDER_PORT", "tcp://10.0.0.1:5051"),
            ("LARDER_PORT_5051_TCP", "tcp://10.0.0.1:5051"),
            ("LARDER_PORT_5051_TCP_PROTO", "tcp"),
            ("LARDER_CACHE_SERVICE_HOST", "10.0.0.1"),
            ("LARDER_CACHE_PORT_5051_TCP_ADDR", "10.0.0.1"),
        ] {
            check(name, value, None);
        }
    }
}
