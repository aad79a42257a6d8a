//! Threads that are in the jail of a vCPU's thread before there are vCPUs.
//!
//! Making and installing filters takes a thread about as long as KVM takes for a
//! vCPU. So whoever wants a short start has the threads begin first, and they go
//! into the jail while the VM is built.

use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use super::VmError;
use super::vm_error::system;
use crate::jail::{self, JailError, ThreadKind};
use crate::signals;

/// What such a thread does once it is given something to do: it is told whether it
/// is in the jail.
type Work = Box<dyn FnOnce(Result<(), JailError>) + Send>;

/// One of them.
#[derive(Debug)]
pub(super) struct JailedThread {
    work: Sender<Work>,
    handle: JoinHandle<()>,
}

impl JailedThread {
    /// Has it do `work`, and end.
    pub(super) fn give(self, work: Work) -> JoinHandle<()> {
        // It waits for that, so it takes it.
        let _ = self.work.send(work);
        self.handle
    }
}

/// One thread for each vCPU, by index. One that is dropped without any work ends.
#[derive(Debug)]
pub struct JailedThreads(Vec<JailedThread>);

impl JailedThreads {
    /// Starts `vcpus` threads.
    ///
    /// # Errors
    /// The system refused one, or the handler of the signal that makes them leave the
    /// guest: none of them is left.
    pub fn spawn(vcpus: usize) -> Result<Self, VmError> {
        // Threads have the signal mask of the one that starts them, and this lets
        // theirs through.
        signals::install().map_err(system("install signal handlers"))?;
        let spawn = |index| {
            let (work, given) = channel::<Work>();
            let handle = std::thread::Builder::new()
                .name(format!("vcpu{index}"))
                .spawn(move || {
                    let jailed = jail::enter(ThreadKind::Vcpu);
                    // None will come if the VM could not be built.
                    if let Ok(work) = given.recv() {
                        work(jailed);
                    }
                })
                .map_err(system("start a vCPU thread"))?;
            Ok(JailedThread { work, handle })
        };
        let mut threads = Self(Vec::with_capacity(vcpus));
        for index in 0..vcpus {
            match spawn(index) {
                Ok(thread) => threads.0.push(thread),
                Err(e) => {
                    threads.end();
                    return Err(e);
                }
            }
        }
        Ok(threads)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Each of them, in the order of vCPUs.
    pub(super) fn into_each(self) -> impl Iterator<Item = JailedThread> {
        self.0.into_iter()
    }

    /// Waits for their end.
    fn end(self) {
        for JailedThread { work, handle } in self.0 {
            drop(work);
            // Nothing in them panics.
            let _ = handle.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_does_its_own_work() {
        let threads = JailedThreads::spawn(3).unwrap();
        assert_eq!(threads.len(), 3);
        let (done, names) = channel();
        for thread in threads.into_each() {
            let done = done.clone();
            let work = Box::new(move |jailed| {
                let name = std::thread::current().name().map(str::to_owned);
                done.send((jailed, name)).unwrap();
            });
            thread.give(work).join().unwrap();
        }
        drop(done);
        let wanted = ["vcpu0", "vcpu1", "vcpu2"];
        for (got, wanted) in names.iter().zip(wanted) {
            assert_eq!(got, (Ok(()), Some(wanted.to_owned())));
        }
    }

    #[test]
    fn without_work_they_end() {
        JailedThreads::spawn(2).unwrap().end();
    }
}
