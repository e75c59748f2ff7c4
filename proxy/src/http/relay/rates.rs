use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use mgate_policies::Client;

use crate::rate::Rate;

/// How fast each client of a route may be, whichever connections it uses.
pub(in crate::http) struct Rates {
    keys: RandomState,
    most: usize,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    rates: HashMap<u64, (Rate, Instant)>,
    /// When those who were silent were last taken out.
    cleared: Option<Instant>,
}

impl Rates {
    /// For so many clients within a second, or a few more.
    pub(in crate::http) fn new(clients: usize) -> Self {
        Self { keys: RandomState::new(), most: clients.max(MIN_CLIENTS), table: Mutex::default() }
    }

    /// Takes one request of a client; or says how many seconds it should wait.
    pub(super) fn take(&self, client: &Client, per_second: u32, now: Instant) -> Result<(), u64> {
        self.take_or_wait(client, per_second, now).map_err(|from| seconds(from - now))
    }

    /// Takes one message of a client; or says from when on it may have one.
    pub(in crate::http) fn take_or_wait(
        &self,
        client: &Client,
        per_second: u32,
        now: Instant,
    ) -> Result<(), Instant> {
        let key = self.key(client);
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if !table.rates.contains_key(&key) && table.rates.len() >= self.most && !table.clear(now) {
            return Err(now + REST);
        }
        let (rate, last) = table.rates.entry(key).or_insert_with(|| (Rate::new(per_second, now), now));
        *last = now;
        rate.take(now)
    }

    /// Who has no name is known by the address.
    fn key(&self, client: &Client) -> u64 {
        let principal = &client.principal;
        let address: Option<IpAddr> = principal.id.is_empty().then(|| client.peer.ip().to_canonical());
        self.keys.hash_one((&principal.tenant, &principal.id, address))
    }
}

impl Table {
    /// Takes out those who may do all that they may again; says whether that made room. Looks at most once a second.
    fn clear(&mut self, now: Instant) -> bool {
        if self.cleared.is_some_and(|cleared| now < cleared + REST) {
            return false;
        }
        let before = self.rates.len();
        self.cleared = Some(now);
        self.rates.retain(|_, (_, last)| now < *last + REST);
        self.rates.len() < before
    }
}

/// So many whole seconds that the time is over.
fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

/// After so long a silence, a bucket is full.
const REST: Duration = Duration::from_secs(1);
const MIN_CLIENTS: usize = 1024;

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use mgate_policies::{Now, Principal, Protocol};

    use super::*;

    #[test]
    fn each_client_has_a_rate_of_its_own() {
        let (rates, now) = (Rates::new(1), Now::read().instant);
        assert_eq!(rates.take(&client("a", 1), 2, now), Ok(()));
        assert_eq!(rates.take(&client("a", 2), 2, now), Ok(()), "another connection");
        assert_eq!(rates.take(&client("a", 3), 2, now), Err(1));
        assert_eq!(rates.take(&client("b", 1), 2, now), Ok(()));
        assert_eq!(rates.take(&client("", 1), 1, now), Ok(()));
        assert_eq!(rates.take(&client("", 1), 1, now), Err(1));
    }

    #[test]
    fn table_is_bounded_and_makes_room_for_those_who_come_later() {
        let (rates, now) = (Rates::new(1), Now::read().instant);
        let many = (0..MIN_CLIENTS).map(|number| rates.take(&client(&number.to_string(), 1), 1, now));
        assert!(many.collect::<Result<Vec<_>, _>>().is_ok());
        assert_eq!(rates.take(&client("more", 1), 1, now), Err(1));
        assert_eq!(rates.take(&client("more", 1), 1, now + REST), Ok(()));
        assert!(rates.table.lock().unwrap().rates.len() < 10);
    }

    fn client(id: &str, port: u16) -> Client {
        Client {
            principal: Principal { id: id.into(), ..Principal::default() },
            client_id: "".into(),
            username: None,
            peer: SocketAddr::from(([192, 0, 2, 1], port)),
            route: "web".into(),
            protocol: Protocol::Http,
            is_encrypted: false,
        }
    }
}
