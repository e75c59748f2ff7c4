/// What passed, over all connections of one world.
#[derive(Clone, Copy, Default)]
pub(crate) struct Counts {
    /// Clients that are connected, and subscribed if they were to.
    pub(crate) ready: u64,
    /// Messages that clients wrote.
    pub(crate) sent: u64,
    /// Messages that came out at the upstream.
    pub(crate) arrived: u64,
    /// PUBACKs that came back to clients.
    pub(crate) acknowledged: u64,
    /// Messages that the upstream wrote.
    pub(crate) delivered: u64,
    /// Messages that came out at clients.
    pub(crate) received: u64,
}
