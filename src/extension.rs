//! What a program brings itself, called where it finds all that tokio offers: a worker's own runtime drives no
//! timers.

use std::sync::Arc;

use mgate_policies::{Answer, Editable, Now, Policy, Query, Refusal, Scope, Transform};
use mgate_proxy::background::{self, within};
use mgate_proxy::gate::{
    Authentication, Authenticator, Copied, Credentials, Memo, Message, Mirror, PacketSeen, SessionEvent,
};
use mgate_proxy::psk::KeySearch;

/// A policy, an authenticator, a mirror or a transform that is called in the background's runtime.
pub(crate) struct Extension<T: ?Sized>(pub(crate) Arc<T>);

impl Policy for Extension<dyn Policy> {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn evaluate(&self, query: &Query<'_>, now: Now) -> Answer {
        match within(|| self.0.evaluate(query, now)) {
            Answer::Pending(future) => Answer::Pending(Box::pin(background::run(future))),
            ready @ Answer::Ready(_) => ready,
        }
    }

    fn is_repeatable(&self) -> bool {
        self.0.is_repeatable()
    }

    fn forget(&self, scope: &Scope) {
        within(|| self.0.forget(scope));
    }

    fn foresee(&self, queries: &[Query<'_>], now: Now) {
        within(|| self.0.foresee(queries, now));
    }

    fn uses_name(&self, name: &str) -> bool {
        self.0.uses_name(name)
    }
}

impl Authenticator for Extension<dyn Authenticator> {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn authenticate(&self, credentials: &Credentials<'_>, now: Now) -> Authentication {
        match within(|| self.0.authenticate(credentials, now)) {
            Authentication::Pending(future) => Authentication::Pending(Box::pin(background::run(future))),
            ready @ Authentication::Ready(_) => ready,
        }
    }

    fn start(&self) {
        within(|| self.0.start());
    }

    fn key(&self, identity: &str, now: Now) -> KeySearch {
        match within(|| self.0.key(identity, now)) {
            KeySearch::Pending(future) => KeySearch::Pending(Box::pin(background::run(future))),
            ready => ready,
        }
    }
}

impl Mirror for Extension<dyn Mirror> {
    fn message(&self, message: &Message<'_>) -> Copied {
        stored_in_background(within(|| self.0.message(message)))
    }

    fn message_of_session(&self, message: &Message<'_>, memo: &mut Memo) -> Copied {
        stored_in_background(within(|| self.0.message_of_session(message, memo)))
    }

    fn wants_deliveries(&self) -> bool {
        self.0.wants_deliveries()
    }

    fn session(&self, event: &SessionEvent<'_>, now: Now) {
        within(|| self.0.session(event, now));
    }

    fn wants_packets(&self) -> bool {
        self.0.wants_packets()
    }

    fn packet(&self, seen: &PacketSeen<'_>, now: Now) {
        within(|| self.0.packet(seen, now));
    }
}

impl Transform for Extension<dyn Transform> {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply(&self, packet: &mut Editable<'_>, now: Now) -> Result<(), Refusal> {
        within(|| self.0.apply(packet, now))
    }
}

fn stored_in_background(copied: Copied) -> Copied {
    match copied {
        Copied::Storing(future) => Copied::Storing(Box::pin(background::run(future))),
        Copied::Taken => Copied::Taken,
    }
}
