use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// Work that is under way, by key: whoever wants the same waits for what is on its way already.
#[derive(Debug)]
pub(crate) struct Flights<T>(Arc<Mutex<HashMap<u128, watch::Receiver<Option<T>>>>>);

/// One who waits.
#[derive(Debug)]
pub(crate) struct Passenger<T>(watch::Receiver<Option<T>>);

impl<T> Default for Flights<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T: Clone + Send + Sync + 'static> Flights<T> {
    /// Waits for the work under `key`, which is begun if it is not under way. It is a task of its own, which
    /// goes on even if nobody waits any longer. Where `begin` gives none, there is nothing to wait for.
    pub(crate) fn join<F, E>(
        &self,
        key: u128,
        begin: impl FnOnce() -> Result<F, E>,
    ) -> Result<Passenger<T>, E>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut flights = lock(&self.0);
        if let Some(flight) = flights.get(&key) {
            return Ok(Passenger(flight.clone()));
        }
        let work = begin()?;
        let (landed, flight) = watch::channel(None);
        flights.insert(key, flight.clone());
        let landing = Landing { flights: Arc::clone(&self.0), key };
        tokio::spawn(async move {
            let output = work.await;
            drop(landing);
            // nobody may be there any longer
            let _ = landed.send(Some(output));
        });
        Ok(Passenger(flight))
    }
}

impl<T> Flights<T> {
    /// Whether there is work under way under `key`.
    pub(crate) fn is_under_way(&self, key: u128) -> bool {
        lock(&self.0).contains_key(&key)
    }
}

impl<T: Clone> Passenger<T> {
    /// What came out; `None` if the work was torn down.
    pub(crate) async fn arrive(mut self) -> Option<T> {
        let landed = self.0.wait_for(Option::is_some).await.ok()?;
        landed.clone()
    }
}

/// Takes a flight off the table, however it ends.
struct Landing<T> {
    flights: Arc<Mutex<HashMap<u128, watch::Receiver<Option<T>>>>>,
    key: u128,
}

impl<T> Drop for Landing<T> {
    fn drop(&mut self) {
        lock(&self.flights).remove(&self.key);
    }
}

fn lock<T>(flights: &Mutex<HashMap<u128, T>>) -> MutexGuard<'_, HashMap<u128, T>> {
    flights.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::{Notify, Semaphore};

    use super::*;

    #[tokio::test]
    async fn same_key_flies_once() {
        let (flights, go) = (Flights::default(), Arc::new(Semaphore::new(0)));
        let begun = AtomicUsize::new(0);
        let board = |key| {
            let go = Arc::clone(&go);
            let begin = || {
                begun.fetch_add(1, Ordering::Relaxed);
                Ok::<_, Infallible>(async move {
                    go.acquire().await.unwrap().forget();
                    key
                })
            };
            flights.join(key, begin).unwrap()
        };
        let passengers: Vec<_> = (0..1000).map(|number| board(number % 2)).collect();
        go.add_permits(2);
        for (number, passenger) in passengers.into_iter().enumerate() {
            assert_eq!(passenger.arrive().await, Some(number as u128 % 2));
        }
        assert_eq!(begun.load(Ordering::Relaxed), 2);
        assert!(lock(&flights.0).is_empty());
    }

    #[tokio::test]
    async fn flight_goes_on_when_all_have_left() {
        let (flights, go, done) = (Flights::default(), Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (start, end) = (Arc::clone(&go), Arc::clone(&done));
        let begin = || {
            Ok::<_, Infallible>(async move {
                start.notified().await;
                end.notify_one();
            })
        };
        drop(flights.join(1, begin).unwrap());
        go.notify_one();
        done.notified().await;
    }

    #[tokio::test]
    async fn flight_that_crashes_leaves_nobody_behind() {
        let flights = Flights::<()>::default();
        let passenger =
            flights.join(1, || Ok::<_, Infallible>(async { panic!("as the test wants") })).unwrap();
        assert_eq!(passenger.arrive().await, None);
        assert!(lock(&flights.0).is_empty());
    }

    #[tokio::test]
    async fn what_is_not_begun_is_not_waited_for() {
        let flights = Flights::<()>::default();
        let refused = flights.join(1, || Err::<std::future::Ready<()>, _>("full"));
        assert_eq!(refused.map(drop), Err("full"));
        assert!(lock(&flights.0).is_empty());
    }
}
