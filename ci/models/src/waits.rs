//! What a model does at a wait of its own thread.

use std::cell::RefCell;

thread_local! {
    static HOOK: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
}

/// Has `what` done at the next wait, just before the thread would fall asleep:
/// so one thread brings a VM into a state that takes two vCPUs, in one order,
/// without a race for the checkers to take apart. Only while no other thread of
/// the model runs.
pub fn at_next_wait(what: impl FnOnce() + 'static) {
    HOOK.set(Some(Box::new(what)));
}

/// A wait begins.
pub(crate) fn begin() {
    if let Some(what) = HOOK.take() {
        what();
    }
}

/// An execution begins.
pub(crate) fn reset() {
    HOOK.set(None);
}
