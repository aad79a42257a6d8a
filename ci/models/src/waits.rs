//! What a model does and learns at a wait of its own thread.

use std::cell::{Cell, RefCell};

thread_local! {
    static HOOK: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
    static HAD_A_DEADLINE: Cell<bool> = const { Cell::new(false) };
}

/// Has `what` done at the next wait, just before the thread would fall asleep:
/// so one thread brings a VM into a state that takes two vCPUs, in one order,
/// without a race for the checkers to take apart. Only while no other thread of
/// the model runs.
pub fn at_next_wait(what: impl FnOnce() + 'static) {
    HOOK.set(Some(Box::new(what)));
}

/// Whether the last wait had a deadline; see [`at_next_wait`] for when to ask.
pub fn last_wait_had_a_deadline() -> bool {
    HAD_A_DEADLINE.get()
}

/// A wait begins.
pub(crate) fn begin(deadline: Option<u64>) {
    HAD_A_DEADLINE.set(deadline.is_some());
    if let Some(what) = HOOK.take() {
        what();
        HAD_A_DEADLINE.set(deadline.is_some());
    }
}

/// An execution begins.
pub(crate) fn reset() {
    HOOK.set(None);
    HAD_A_DEADLINE.set(false);
}
