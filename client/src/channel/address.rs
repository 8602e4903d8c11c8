//! An address that can be connected to, and the order in which several are tried.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Where a connection goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Address {
    pub(crate) socket: Socket,
    /// Which of the channel's targets it came from: its name stands in `:authority`, and is what
    /// the certificate has to have.
    pub(crate) target: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Socket {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.socket {
            Socket::Tcp(address) => address.fmt(f),
            Socket::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Families in turn, beginning with the first address's, each family in its own order: RFC 8305,
/// section 4, as gRFC A61 asks of pick_first.
pub(crate) fn interleave<T>(items: Vec<T>, address: impl Fn(&T) -> &Address) -> Vec<T> {
    let is_v6 = |item: &T| matches!(address(item).socket, Socket::Tcp(SocketAddr::V6(_)));
    let count = items.len();
    let first_is_v6 = items.first().is_some_and(is_v6);
    let (mut first, mut second): (VecDeque<_>, VecDeque<_>) = items
        .into_iter()
        .partition(|item| is_v6(item) == first_is_v6);
    let mut order = Vec::with_capacity(count);
    while let Some(item) = first.pop_front() {
        order.push(item);
        order.extend(second.pop_front());
    }
    order.extend(second);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        for (given, wanted) in [
            ("", ""),
            ("a", "a"),
            ("abc", "abc"),
            ("ABab", "AaBb"),
            ("aABC", "aABC"),
            ("ABCab", "AaBbC"),
            ("abA", "aAb"),
        ] {
            // Capitals are IPv6.
            let address = |name: char| Address {
                socket: Socket::Tcp(SocketAddr::new(
                    match name.is_ascii_uppercase() {
                        true => [0, 0, 0, 0, 0, 0, 0, 1].into(),
                        false => [127, 0, 0, 1].into(),
                    },
                    u32::from(name).try_into().unwrap(),
                )),
                target: 0,
            };
            let given: Vec<_> = given.chars().map(|name| (name, address(name))).collect();
            let order = interleave(given, |(_, address)| address);
            let order: String = order.into_iter().map(|(name, _)| name).collect();
            assert_eq!(order, wanted);
        }
    }
}
