//! The same loop without KVM: the guests are state machines on host threads,
//! as in a unikernel host or a simulator that sees its guests halt.

use pv_lock_host::{ApicId, HaltScheduler, Kicker, VcpuParker};

/// Why a guest comes back to its host.
enum Exit {
    Halt,
    Kick(ApicId),
    PowerOff,
}

/// A guest that kicks the other one and halts, by turns, then powers off.
struct Guest(u32, ApicId);

impl Guest {
    fn run(&mut self) -> Exit {
        self.0 -= 1;
        match self.0 {
            0 => Exit::PowerOff,
            n if n % 2 == 0 => Exit::Halt,
            _ => Exit::Kick(self.1),
        }
    }
}

fn vcpu_loop(mut guest: Guest, mut parker: VcpuParker, kicker: &Kicker) {
    loop {
        let reason = match parker.enter() {
            Err(why) => why.into(),
            Ok(()) => match guest.run() {
                Exit::Halt => parker.halt(),
                Exit::Kick(id) => {
                    parker.kick_by_guest(id);
                    continue;
                }
                Exit::PowerOff => {
                    kicker.stop_all();
                    continue;
                }
            },
        };
        if !parker.go_on(reason) {
            return;
        }
    }
}

fn main() -> Result<(), pv_lock_host::BuildError> {
    let ids = [ApicId(0), ApicId(1)];
    let (scheduler, parkers) = HaltScheduler::new(&ids)?;
    std::thread::scope(|scope| {
        for (parker, other) in parkers.into_iter().zip([ApicId(1), ApicId(0)]) {
            let guest = Guest(2000, other);
            let kicker = scheduler.kicker();
            scope.spawn(move || vcpu_loop(guest, parker, &kicker));
        }
    });
    println!("{:#?}", scheduler.counters().total());
    Ok(())
}
