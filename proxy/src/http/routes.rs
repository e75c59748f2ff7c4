use std::sync::Arc;

use super::place::Table;
use super::problem::Problem;
use super::{Endpoint, Guest, Profile};

/// The routes of one listener, by numbers that never change.
pub struct Routes {
    endpoints: Vec<Arc<Endpoint>>,
    places: Table,
    /// The number of the one that speaks for the listener.
    leader: usize,
    /// Those first that win.
    guests: Vec<Arc<Guest>>,
}

/// One of the routes of a listener.
pub struct Member {
    /// What its requests share.
    pub endpoint: Arc<Endpoint>,
    /// Whether it is here only until the next start, for requests that no other one takes.
    pub is_leaving: bool,
}

impl Routes {
    /// Routes that share a listener, at least one, and those of other protocols.
    pub fn new(members: Vec<Member>, mut guests: Vec<Arc<Guest>>) -> Self {
        guests.sort_by_key(|guest| guest.is_leaving);
        let is_leaving: Vec<bool> = members.iter().map(|member| member.is_leaving).collect();
        let leader = is_leaving.iter().position(|is_leaving| !is_leaving).unwrap_or_default();
        let endpoints: Vec<_> = members.into_iter().map(|member| member.endpoint).collect();
        let places = endpoints.iter().map(|endpoint| endpoint.options.place.clone()).collect();
        Self { endpoints, places: Table::new(places, &is_leaving), leader, guests }
    }

    /// All of them, in the order of their numbers.
    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// What the requests of the route with this number share.
    pub(super) fn endpoint(&self, number: usize) -> &Arc<Endpoint> {
        &self.endpoints[number]
    }

    /// The one that says what belongs to the listener: all that stay agree about that.
    pub(super) fn leader(&self) -> &Arc<Endpoint> {
        &self.endpoints[self.leader]
    }

    /// The number of the route that a request is for.
    pub(super) fn find(&self, host: &str, path: &str) -> Result<usize, Problem> {
        self.places.find(host, path)
    }

    /// The one that takes what carries MQTT at a path, as it is written.
    pub(super) fn guest(&self, path: &str) -> Option<&Arc<Guest>> {
        self.guests.iter().find(|guest| guest.websocket.path == path)
    }

    /// Whether one of them takes messages.
    pub(super) fn takes_messages(&self) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.options.profile != Profile::Proxy)
    }
}
