use std::sync::Arc;

use super::place::Table;
use super::problem::Problem;
use super::{Endpoint, Profile};

/// The routes of one listener, by numbers that never change.
pub struct Routes {
    endpoints: Vec<Arc<Endpoint>>,
    places: Table,
    /// The number of the one that speaks for the listener.
    leader: usize,
}

/// One of the routes of a listener.
pub struct Member {
    /// What its requests share.
    pub endpoint: Arc<Endpoint>,
    /// Whether it is here only until the next start, for requests that no other one takes.
    pub is_leaving: bool,
}

impl Routes {
    /// Routes that share a listener, at least one.
    pub fn new(members: Vec<Member>) -> Self {
        let is_leaving: Vec<bool> = members.iter().map(|member| member.is_leaving).collect();
        let leader = is_leaving.iter().position(|is_leaving| !is_leaving).unwrap_or_default();
        let endpoints: Vec<_> = members.into_iter().map(|member| member.endpoint).collect();
        let places = endpoints.iter().map(|endpoint| endpoint.options.place.clone()).collect();
        Self { endpoints, places: Table::new(places, &is_leaving), leader }
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

    /// Whether one of them takes messages.
    pub(super) fn takes_messages(&self) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.options.profile != Profile::Proxy)
    }
}
