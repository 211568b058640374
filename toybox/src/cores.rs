//! Work that is spread over the processor's cores.

use std::num::NonZero;

/// Does `work` to every item, on all cores; results stand in the items' order.
pub(crate) fn on_all_cores<I: Sync, T: Send>(items: &[I], work: impl Fn(&I) -> T + Sync) -> Vec<T> {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let part = |items: &[I]| -> Vec<T> { items.iter().map(&work).collect() };
    std::thread::scope(|scope| {
        let parts = items.chunks(items.len().div_ceil(cores).max(1));
        let parts: Vec<_> = parts.map(|items| scope.spawn(|| part(items))).collect();
        parts.into_iter().flat_map(|part| part.join().expect("work does not panic")).collect()
    })
}
