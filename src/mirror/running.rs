//! The mirrors of a gateway that are at work, also while its configuration changes.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use crate::health::Health;
use crate::mirror::nats::{NatsMirror, Running};

/// Mirrors at work. They are kept by the routes that have them.
#[derive(Default)]
pub(crate) struct RunningMirrors(Mutex<Vec<Weak<Running>>>);

impl RunningMirrors {
    /// Starts mirrors that a route has; those whose names are at work already go on as they are. If one cannot
    /// start, nothing has changed.
    pub(crate) fn start(&self, mirrors: &[Arc<NatsMirror>], health: &Health) -> anyhow::Result<()> {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|one| one.strong_count() > 0);
        let find = |name: &str| running.iter().filter_map(Weak::upgrade).find(|one| **one.name() == *name);
        // somebody else has each that is used
        let is_wanted =
            |mirror: &&Arc<NatsMirror>| mirror.running().is_none() && Arc::strong_count(mirror) > 1;
        let wanted: Vec<_> =
            mirrors.iter().filter(is_wanted).map(|mirror| (mirror, find(mirror.name()))).collect();
        for (mirror, _) in wanted.iter().filter(|(_, known)| known.is_none()) {
            mirror.start(health)?;
        }
        for (mirror, known) in wanted {
            if let Some(known) = known {
                mirror.go_on(&known, health);
            } else {
                running.extend(mirror.running().map(Arc::downgrade));
            }
        }
        Ok(())
    }

    /// Ends all, and waits for them until `deadline`, or a little longer where there is something to be kept.
    pub(crate) async fn stop(&self, deadline: Instant) {
        let all: Vec<_> = {
            let running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            running.iter().filter_map(Weak::upgrade).collect()
        };
        all.iter().for_each(|one| one.stop(deadline));
        for one in all {
            one.ended().await;
        }
    }
}
