//! Work that is done on other threads before it is asked for, in order.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

/// The results of `work` on each item, in the order of the items.
pub(super) struct Ahead<R> {
    arriving: Receiver<(usize, R)>,
    early: BTreeMap<usize, R>,
    next: usize,
}

impl<R> Iterator for Ahead<R> {
    type Item = R;

    fn next(&mut self) -> Option<R> {
        loop {
            if let Some(result) = self.early.remove(&self.next) {
                self.next += 1;
                return Some(result);
            }
            let (place, result) = self.arriving.recv().ok()?;
            self.early.insert(place, result);
        }
    }
}

/// Gives `consume` the results of `work` on all `items` as it asks for them, while threads make those that follow: `room`
/// and a few more at most, so that memory does not grow with the number of items. Where `consume` ends early the rest is
/// not done.
pub(super) fn ahead<T: Sync, R: Send, O>(
    items: &[T],
    room: usize,
    work: &(impl Fn(&T) -> R + Sync),
    consume: impl FnOnce(Ahead<R>) -> O,
) -> O {
    let next = &AtomicUsize::new(0);
    let threads = thread::available_parallelism().map_or(1, usize::from).min(items.len());
    thread::scope(|scope| {
        let (done, arriving) = sync_channel(room);
        for _ in 0..threads {
            let done = done.clone();
            scope.spawn(move || {
                loop {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(place) else { break };
                    // Nobody listens any more where `consume` has ended.
                    if done.send((place, work(item))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(done); // the last thread closes the channel
        consume(Ahead { arriving, early: BTreeMap::new(), next: 0 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn results_come_in_order_however_long_each_takes() {
        let items: Vec<u64> = (0..50).collect();
        let work = |&x: &u64| {
            thread::sleep(Duration::from_millis(x * 7 % 5));
            x * x
        };
        let squares: Vec<u64> = items.iter().map(|x| x * x).collect();
        assert_eq!(ahead(&items, 3, &work, Iterator::collect::<Vec<_>>), squares);
        assert_eq!(ahead(&[], 3, &work, Iterator::count), 0);
    }

    #[test]
    fn little_is_done_that_nobody_asks_for() {
        let (items, done) = ([(); 1000], AtomicUsize::new(0));
        let work = |(): &()| done.fetch_add(1, Ordering::Relaxed);
        assert_eq!(ahead(&items, 2, &work, |ready| ready.take(5).count()), 5);
        let threads = thread::available_parallelism().map_or(1, usize::from);
        assert!(done.load(Ordering::Relaxed) <= 5 + 2 + 2 * threads);
    }
}
