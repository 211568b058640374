//! Work that is done on other threads before it is asked for, in order.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// The results of `work` on each item, in the order of the items.
pub(super) struct Ahead<R> {
    arriving: Receiver<(usize, thread::Result<R>)>,
    early: BTreeMap<usize, thread::Result<R>>,
    next: usize,
    permits: Sender<()>,
}

impl<R> Iterator for Ahead<R> {
    type Item = R;

    fn next(&mut self) -> Option<R> {
        loop {
            if let Some(result) = self.early.remove(&self.next) {
                self.next += 1;
                let _ = self.permits.send(()); // nobody takes it where all items are begun
                return Some(result.unwrap_or_else(|panic| resume_unwind(panic)));
            }
            let (place, result) = self.arriving.recv().ok()?;
            self.early.insert(place, result);
        }
    }
}

/// Gives `consume` the results of `work` on all `items` as it asks for them, while threads make those that follow: `room`
/// and one a thread at most, so that memory does not grow with the number of items, even where one takes very long. Where
/// `consume` ends early the rest is not done.
pub(super) fn ahead<T: Sync, R: Send, O>(
    items: &[T],
    room: usize,
    work: &(impl Fn(&T) -> R + Sync),
    consume: impl FnOnce(Ahead<R>) -> O,
) -> O {
    let threads = thread::available_parallelism().map_or(1, usize::from).min(items.len());
    let (permits, granted) = channel();
    for _ in 0..room + threads {
        let _ = permits.send(());
    }
    // An item is begun by permit, and a result that is handed over, in order, gives the permit for another.
    let begun = &Mutex::new((0, granted));
    let begin = || {
        let mut begun = begun.lock().unwrap_or_else(PoisonError::into_inner);
        let (next, granted) = &mut *begun;
        let place = *next;
        let item = items.get(place)?;
        granted.recv().ok()?; // nobody grants any more where `consume` has ended
        *next += 1;
        Some((place, item))
    };
    thread::scope(|scope| {
        let (done, arriving) = channel();
        for _ in 0..threads {
            let done = done.clone();
            scope.spawn(move || {
                while let Some((place, item)) = begin() {
                    // A panic is for who asks for the result.
                    let result = catch_unwind(AssertUnwindSafe(|| work(item)));
                    if done.send((place, result)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(done); // the last thread closes the channel
        consume(Ahead { arriving, early: BTreeMap::new(), next: 0, permits })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
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

    #[test]
    fn one_that_takes_long_holds_up_those_far_behind_it() {
        let (items, done) = ((0..1000).collect::<Vec<_>>(), AtomicUsize::new(0));
        let work = |&item: &usize| {
            if item == 0 {
                thread::sleep(Duration::from_millis(100));
                return done.load(Ordering::Relaxed);
            }
            done.fetch_add(1, Ordering::Relaxed)
        };
        let meanwhile = ahead(&items, 2, &work, |mut ready| ready.next());
        let threads = thread::available_parallelism().map_or(1, usize::from);
        assert!(meanwhile.is_some_and(|others| others <= 2 + threads), "{meanwhile:?}");
    }

    #[test]
    fn a_panic_reaches_who_asks_for_the_result() {
        let work = |&item: &usize| assert_ne!(item, 1, "not this one");
        let caught = std::panic::catch_unwind(|| ahead(&[0, 1, 2, 3], 1, &work, Iterator::count));
        assert!(caught.is_err());
    }
}
