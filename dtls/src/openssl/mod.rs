//! Handshakes by OpenSSL.
//!
//! It sees one record after the other, numbered by us, and its own timers never matter: what it sends again is
//! dropped, for the endpoint does that. Cookies are the endpoint's, too; OpenSSL is told that they are good.

mod context;
mod handshake;
mod key_exchange;
mod piece;
mod pipe;
mod settings;
mod trust;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ::openssl::asn1::Asn1Time;
use ::openssl::error::ErrorStack;
use ::openssl::ssl::SslContext;

use self::context::Material;
use self::handshake::SslHandshake;
use crate::engine::{Flight, Handshake, HandshakeEngine, Refusal, Start};

pub use settings::{Certificate, ClientAuth, EngineSettings, Fault, Psk, Resumption};

/// Performs handshakes with OpenSSL.
pub struct Engine {
    material: Material,
    /// For clients that must not go on with an earlier session.
    fresh: SslContext,
    resuming: Mutex<Resuming>,
}

/// What knows the keys of tickets, and the sessions that are remembered.
struct Resuming {
    context: SslContext,
    /// When it began to be used.
    since: Option<Instant>,
}

impl Engine {
    /// Checks the settings, all of them.
    pub fn new(settings: &EngineSettings) -> Result<Self, Fault> {
        let material = Material::new(settings)?;
        let fresh = material.context(Resumption::Off).map_err(|errors| Fault::Library(errors.to_string()))?;
        let context =
            material.context(material.resumption()).map_err(|errors| Fault::Library(errors.to_string()))?;
        Ok(Self { material, fresh, resuming: Mutex::new(Resuming { context, since: None }) })
    }

    /// The context that knows earlier sessions; renewed from time to time, and with it the keys of tickets.
    fn resuming(&self, now: Instant) -> Result<SslContext, ErrorStack> {
        let mut resuming = self.resuming.lock().unwrap_or_else(PoisonError::into_inner);
        let since = *resuming.since.get_or_insert(now);
        if now.saturating_duration_since(since) >= RENEWAL {
            let context = self.material.context(self.material.resumption())?;
            *resuming = Resuming { context, since: Some(now) };
        }
        Ok(resuming.context.clone())
    }
}

impl HandshakeEngine for Engine {
    fn begin(&self, start: &Start<'_>, flight: &mut Flight) -> Result<Box<dyn Handshake>, Refusal> {
        let context = self.resuming(start.now).map_err(|errors| refusal(&errors))?;
        let mut answer = Flight::default();
        let mut handshake = SslHandshake::begin(&context, start, &mut answer);
        if let Ok(resumed) = &handshake
            && resumed.has_expired(&*Asn1Time::days_from_now(0).map_err(|errors| refusal(&errors))?)
        {
            answer.0.clear();
            handshake = SslHandshake::begin(&self.fresh, start, &mut answer);
        }
        flight.0.append(&mut answer.0);
        Ok(Box::new(handshake?))
    }
}

fn refusal(errors: &ErrorStack) -> Refusal {
    Refusal(errors.to_string())
}

/// How long the same keys protect tickets.
const RENEWAL: Duration = Duration::from_secs(24 * 60 * 60);
