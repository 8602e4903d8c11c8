//! The servers of a ring, for calls that are about no one key.

use std::sync::Arc;

use super::pick::Ring;

/// The servers of a ring, and which of them keys belong to.
#[derive(Debug, Clone)]
pub(crate) struct Homes {
    ring: Arc<Ring>,
    /// By name, each once.
    servers: Arc<[Arc<str>]>,
    /// A key is nowhere but at its home while that can be reached.
    keeps_places: bool,
}

impl Homes {
    pub(crate) fn new(ring: Arc<Ring>, keeps_places: bool) -> Self {
        Self {
            servers: ring.servers().into(),
            ring,
            keeps_places,
        }
    }

    /// By name, each once: whatever order a resolver gives them in.
    pub(crate) fn servers(&self) -> &[Arc<str>] {
        &self.servers
    }

    /// Whether a get of a key would ask this server, if all can be reached. Otherwise what it
    /// holds under the key was written while the key's own server was away.
    pub(crate) fn is_home(&self, server: &str, key: &[u8]) -> bool {
        !self.keeps_places || self.ring.home(key).is_some_and(|home| **home == *server)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_home_in_whatever_order_the_servers_come() {
        let ring = |names: [&str; 4]| Arc::new(Ring::new(&names.map(String::from), 1024, 4096));
        let homes = Homes::new(ring(["a:1", "b:1", "c:1", "a:1"]), true);
        let other = Homes::new(ring(["c:1", "a:1", "a:1", "b:1"]), true);
        let names: Vec<&str> = homes.servers().iter().map(|name| &**name).collect();
        assert_eq!(names, ["a:1", "b:1", "c:1"]);
        assert_eq!(homes.servers(), other.servers());
        let mut counts = [0; 3];
        for number in 0..1000 {
            let key = format!("key-{number}");
            let is_home = |homes: &Homes| {
                let servers = homes.servers().iter();
                let own = servers.map(|server| homes.is_home(server, key.as_bytes()));
                own.collect::<Vec<_>>()
            };
            let own = is_home(&homes);
            assert_eq!(own, is_home(&other), "{key}");
            assert_eq!(own.iter().filter(|own| **own).count(), 1, "{key}");
            for (count, own) in counts.iter_mut().zip(own) {
                *count += u32::from(own);
            }
        }
        assert!(counts.iter().all(|count| *count > 150), "{counts:?}");
        // With a bound on loads a key may be anywhere.
        let bounded = Homes::new(ring(["a:1", "b:1", "c:1", "d:1"]), false);
        assert!(
            bounded
                .servers()
                .iter()
                .all(|it| bounded.is_home(it, b"key"))
        );
    }
}
