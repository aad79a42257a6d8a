//! The rules by hand, with a clock of the test's own, and what holds of them
//! whatever happens.

use proptest::prelude::*;

use super::*;

const SLICE: Duration = Duration::from_millis(3);

/// A line, and the time.
struct Clocked {
    line: Line,
    now: Instant,
}

impl Clocked {
    fn new(places: usize, vcpus: usize) -> Self {
        Self {
            line: Line::new(places, vcpus, SLICE),
            now: Instant::now(),
        }
    }

    fn after(&mut self, time: Duration) -> &mut Self {
        self.now += time;
        self
    }

    fn after_us(&mut self, us: u64) -> &mut Self {
        self.after(Duration::from_micros(us))
    }

    fn enter(&mut self, me: usize) -> Turn {
        self.line.enter(me, self.now).0
    }

    fn runs(&mut self, me: usize) -> bool {
        self.enter(me) == Turn::Run
    }

    fn running(&self) -> Vec<usize> {
        let all = 0..self.line.vcpus.len();
        all.filter(|&vcpu| self.line.runs(vcpu)).collect()
    }
}

#[test]
fn as_many_run_as_there_are_places() {
    let mut line = Clocked::new(2, 3);
    assert!(line.runs(0));
    assert!(line.runs(1));
    assert!(!line.runs(2));
    // The first in line looks again when the first slice is over.
    let due = line.now + SLICE;
    assert_eq!(line.enter(2), Turn::Wait(Some(due)));
    line.after(SLICE);
    assert_eq!(line.enter(2), Turn::Overdue(0, Some(line.now + SLICE)));
    let calls = line.line.expire(0, line.now);
    assert_eq!(calls.look[1], Some(2));
    assert_eq!(line.running(), [1, 2]);
}

#[test]
fn a_kicker_gives_its_place_to_the_vcpu_it_kicks() {
    let mut line = Clocked::new(1, 2);
    assert!(line.runs(0));
    let calls = line.line.kick(1, Some((0, false)), line.now);
    assert_eq!(line.running(), [1]);
    assert_eq!(calls.moved, [Some((1, 0)), None], "a place of its own");
    assert!(!line.runs(0));
}

#[test]
fn one_kicked_from_outside_is_the_next() {
    let mut line = Clocked::new(1, 3);
    assert!(line.runs(0));
    assert!(!line.runs(1));
    let _ = line.line.kick(2, None, line.now);
    assert_eq!(line.running(), [0]);
    let calls = line.line.leave(0, line.now);
    assert_eq!(calls.look[1], Some(2));
    assert_eq!(line.running(), [2]);
}

/// Four vCPUs in a convoy on two places: one after the other leaves it, until
/// two are left that have a place each; then a third one is let in.
#[test]
fn a_convoy_dissolves() {
    let mut line = Clocked::new(2, 4);
    assert!(line.runs(0));
    let begin = line.now;
    // 0 has the lock, and was kicked; 1, 2 and 3 are halted for it.
    for kicked in 1..4 {
        let me = kicked - 1;
        line.after_us(20);
        let others_halted = kicked < 3;
        let _ = line.line.kick(kicked, Some((me, others_halted)), line.now);
        assert_eq!(line.line.runs(me), !others_halted, "{me} steps back");
        if others_halted {
            // The free place is reserved for the next kick.
            assert!(!line.runs(me));
        }
    }
    assert_eq!(line.running(), [2, 3]);
    assert!(line.now < begin + SLICE);
    // Nobody halts any more. 0 has its turn when a slice is over.
    assert!(!line.runs(0));
    line.after(SLICE);
    assert_eq!(line.enter(0), Turn::Overdue(2, Some(line.now + SLICE)));
}

#[test]
fn a_place_is_reserved_for_a_link_or_two_only() {
    let mut line = Clocked::new(2, 3);
    assert!(line.runs(0));
    line.after_us(20);
    let _ = line.line.kick(1, Some((0, true)), line.now);
    assert_eq!(line.running(), [1]);
    let reserved = match line.enter(0) {
        Turn::Wait(Some(until)) => until - line.now,
        other => panic!("{other:?}"),
    };
    assert!(reserved < SLICE / 4);
    line.after(reserved);
    assert!(line.runs(0));
}

/// What a vCPU took away with it when its slice was over, others may wait for.
#[test]
fn one_that_halts_gives_its_place_to_the_preempted() {
    let mut line = Clocked::new(1, 3);
    assert!(line.runs(0));
    assert!(!line.runs(1));
    assert!(!line.runs(2));
    line.after(SLICE);
    let _ = line.line.expire(0, line.now);
    assert_eq!(line.running(), [1]);
    assert!(!line.runs(0));
    line.after_us(10);
    let _ = line.line.leave(1, line.now);
    assert_eq!(line.running(), [0], "though 2 has waited for longer");
}

/// A slice is what a vCPU ran, however often it slept in between, and one whose
/// slice is over goes when it kicks.
#[test]
fn halting_does_not_make_a_slice_longer() {
    let mut line = Clocked::new(2, 3);
    assert!(line.runs(0));
    assert!(line.runs(1));
    assert!(!line.runs(2));
    for _ in 0..4 {
        line.after(SLICE / 4);
        let _ = line.line.leave(1, line.now);
        let _ = line.line.kick(1, Some((0, false)), line.now);
    }
    // The fourth time 0 had run for a slice, and 2 has its place.
    assert_eq!(line.running(), [1, 2]);
}

#[test]
fn who_has_run_least_is_first() {
    let mut line = Clocked::new(1, 4);
    assert!(line.runs(0));
    line.after_us(500);
    let _ = line.line.kick(1, Some((0, false)), line.now);
    assert!(!line.runs(0));
    line.after_us(100);
    let _ = line.line.kick(2, Some((1, false)), line.now);
    assert!(!line.runs(1));
    assert!(!line.runs(3));
    assert_eq!(line.line.back, [3, 1, 0]);
}

#[test]
fn one_out_of_patience_has_the_next_place() {
    let mut line = Clocked::new(1, 3);
    assert!(line.runs(0));
    assert!(!line.runs(1));
    let _ = line.line.squeeze(1, line.now);
    assert_eq!(line.running(), [0, 1]);
    assert!(!line.runs(2));
    // 0 leaves: 1 has its place, so there is none for 2.
    let calls = line.line.leave(0, line.now);
    assert_eq!(calls.moved, [Some((1, 0)), None]);
    assert_eq!(line.running(), [1]);
    let _ = line.line.leave(1, line.now);
    line.after(SLICE);
    assert!(line.runs(2));
}

#[test]
fn a_slice_of_nothing_is_none() {
    let mut line = Line::new(1, 2, Duration::ZERO);
    let now = Instant::now();
    assert_eq!(line.enter(0, now).0, Turn::Run);
    assert_eq!(line.enter(1, now).0, Turn::Wait(Some(now + SHORTEST_SLICE)));
}

/// What a vCPU does next, or what happens to it.
#[derive(Clone, Copy, Debug)]
enum Does {
    Enter,
    Expire,
    Leave,
    Kick { target: usize, link: bool },
    KickFromOutside,
}

fn does() -> impl Strategy<Value = Does> {
    prop_oneof![
        4 => Just(Does::Enter),
        1 => Just(Does::Expire),
        2 => Just(Does::Leave),
        4 => (0usize..8, any::<bool>()).prop_map(|(target, link)| Does::Kick { target, link }),
        2 => Just(Does::KickFromOutside),
    ]
}

proptest! {
    /// Never more than the places run, no place is had twice or lost, nobody is
    /// in line and runs; and whoever waits gets its turn, if only it looks
    /// again when it is told to or when its time has come.
    #[test]
    fn places_are_neither_lost_nor_doubled(
        places in 1usize..4,
        ops in proptest::collection::vec((0usize..8, does(), 0u64..2_000), 1..200),
    ) {
        let mut line = Clocked::new(places, 8);
        for (me, does, us) in ops {
            line.after_us(us);
            let now = line.now;
            match does {
                Does::Enter => {
                    let _ = line.enter(me);
                }
                Does::Expire => {
                    let _ = line.line.expire(me, now);
                }
                Does::Leave => {
                    let _ = line.line.leave(me, now);
                }
                Does::Kick { target, link } if target != me => {
                    let _ = line.line.kick(target, Some((me, link)), now);
                }
                Does::Kick { .. } => {}
                Does::KickFromOutside => {
                    let _ = line.line.kick(me, None, now);
                }
            }
            let state = &line.line;
            let mut had: Vec<usize> = line.running().iter()
                .filter_map(|&vcpu| state.vcpus[vcpu].place)
                .chain(state.free.iter().copied())
                .collect();
            had.sort_unstable();
            prop_assert_eq!(had, (0..places).collect::<Vec<_>>());
            prop_assert!(state.free.is_empty() || state.kicked.is_empty(), "one waits for nothing");
            let mut waiting: Vec<usize> = state.kicked.iter().chain(&state.back).copied().collect();
            waiting.sort_unstable();
            let expected: Vec<usize> = (0..8).filter(|&vcpu| state.waits(vcpu)).collect();
            prop_assert_eq!(&waiting, &expected);
            prop_assert!(waiting.iter().all(|&vcpu| !state.runs(vcpu)));
        }
        // Each gets its turn, if it and those that run look when they are told.
        for _ in 0..8 {
            let Some(first) = line.line.first() else { break };
            for _ in 0..4 {
                match line.enter(first) {
                    Turn::Run => break,
                    Turn::Wait(until) => line.now = until.expect("a time to look again"),
                    Turn::Overdue(vcpu, _) => {
                        let _ = line.line.expire(vcpu, line.now);
                    }
                }
            }
            prop_assert!(line.line.runs(first), "{first} in {:?}", line.line);
        }
    }
}
