//! What is true for the session as a whole: limits of its own, and a prefix behind which all of it stands.

use std::sync::Arc;

use mgate_policies::{Grant, Outcome, Reason, SessionTerms};

use super::{Close, CloseReason, Context, Session};
use crate::rate::Rate;

impl Session {
    /// Puts all that the client says behind the prefix that comes with leave to connect, before anything goes
    /// to the upstream. Returns CONNECT as it goes on if its will moves, or why that cannot be.
    pub(super) fn begin_behind(
        &mut self,
        grant: &Grant,
        frame: &[u8],
        cx: &Context<'_>,
    ) -> Result<Option<Vec<u8>>, Reason> {
        let terms = terms_of(grant);
        // asked a second time, it is behind a prefix already
        let is_first = self.terms.topic_prefix().is_none();
        let Some(prefix) = terms.topic_prefix().filter(|_| is_first) else { return Ok(None) };
        let rewritten = self.mount_will(frame, prefix, cx)?;
        self.transforms = self.transforms.followed_by(Arc::new(prefix.clone()));
        self.adopt(terms, cx);
        Ok(rewritten)
    }

    /// Takes the terms that come with leave to be connected. A prefix stays what it was: what the client
    /// subscribed to would have another name at its end.
    pub(super) fn take_terms(&mut self, grant: &Grant, cx: &Context<'_>) -> Result<(), Close> {
        let terms = terms_of(grant);
        if terms.topic_prefix() != self.terms.topic_prefix() {
            return Err(CloseReason::TermsChanged.into());
        }
        if terms != self.terms {
            self.adopt(terms, cx);
        }
        Ok(())
    }

    /// Notes with any decision whether the terms are others by now.
    #[inline]
    pub(super) fn heed(&mut self, outcome: &Outcome, cx: &mut Context<'_>) -> Result<(), Close> {
        let said = match outcome {
            Outcome::Allowed(grant, _) => &grant.session,
            Outcome::Denied(reason) => &reason.session,
            Outcome::Pending(..) => &None,
        };
        match said {
            // one of several policies may say something else than all together: to ask once is enough
            Some(terms) if *terms != self.terms && Some(terms) != self.heard.as_ref() => {
                self.heard = Some(terms.clone());
                self.review_connection(cx)
            }
            _ => Ok(()),
        }
    }

    /// The largest packet that may pass.
    #[inline]
    pub(super) fn packet_bytes(&self, cx: &Context<'_>) -> usize {
        tighter(cx.endpoint.gate.limits.packet_bytes, self.terms.limits().packet_bytes)
    }

    /// Subscriptions that the client may hold at a time.
    pub(super) fn subscriptions(&self, cx: &Context<'_>) -> usize {
        tighter(cx.endpoint.gate.limits.subscriptions, self.terms.limits().subscriptions)
    }

    fn adopt(&mut self, terms: SessionTerms, cx: &Context<'_>) {
        self.terms = terms;
        let own = self.terms.limits().messages_per_second;
        let per_second = own.into_iter().chain(cx.endpoint.gate.limits.messages_per_second).min();
        self.rate = per_second.map(|per_second| match &self.rate {
            Some(rate) => rate.changed(per_second),
            None => Rate::new(per_second, cx.now.instant),
        });
    }
}

fn terms_of(grant: &Grant) -> SessionTerms {
    grant.session.clone().unwrap_or_default()
}

fn tighter(of_route: usize, own: Option<usize>) -> usize {
    own.map_or(of_route, |own| own.min(of_route))
}
