//! The local APIC against an oracle that is written down differently: arrays of
//! flags and loops, no shifts, no code in common. Any sequence of inputs must
//! leave both with the same registers and the same work.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that panics is a test that fails"
)]

use proptest::prelude::*;
use vmm_reference::irqchip::userspace::{
    ApicBus, Delivery, Destination, Effect, Features, Lapic, Message, Work,
};

const TARGET: u32 = 5;

/// Something that happens to a local APIC.
#[derive(Clone, Debug)]
enum Input {
    Post {
        vector: u8,
        level: bool,
    },
    Nmi,
    Init,
    Startup(u8),
    SelfIpi(u8),
    TaskPriority(u8),
    Eoi,
    /// The processor takes what is deliverable.
    Take,
    /// SVR bit 8.
    Enable(bool),
    /// LVT timer: vector and mask.
    TimerEntry {
        vector: u8,
        masked: bool,
    },
    /// One-shot, in nanoseconds.
    TimerStart(u32),
    Wait(u16),
    Scan,
}

fn input() -> impl Strategy<Value = Input> {
    // Few vectors, so that they meet.
    let vector = prop_oneof![
        0u8..0x12,
        0x30u8..0x34,
        0x40u8..0x42,
        Just(0xff),
        any::<u8>()
    ];
    prop_oneof![
        4 => (vector.clone(), any::<bool>()).prop_map(|(vector, level)| Input::Post { vector, level }),
        1 => Just(Input::Nmi),
        1 => prop::bool::weighted(0.3).prop_map(|init| if init { Input::Init } else { Input::Scan }),
        1 => any::<u8>().prop_map(Input::Startup),
        3 => vector.clone().prop_map(Input::SelfIpi),
        2 => any::<u8>().prop_map(Input::TaskPriority),
        4 => Just(Input::Eoi),
        5 => Just(Input::Take),
        1 => prop::bool::weighted(0.8).prop_map(Input::Enable),
        1 => (vector, any::<bool>()).prop_map(|(vector, masked)| Input::TimerEntry { vector, masked }),
        1 => (0u32..2000).prop_map(Input::TimerStart),
        2 => (0u16..1500).prop_map(Input::Wait),
        3 => Just(Input::Scan),
    ]
}

/// The oracle: what the SDM says, by flags.
#[derive(Clone, Debug)]
struct Oracle {
    requested: [bool; 256],
    in_service: [bool; 256],
    level: [bool; 256],
    task: u8,
    enabled: bool,
    timer_vector: u8,
    timer_masked: bool,
    ticks_left: u32,
    /// Not yet seen by the processor.
    nmi: bool,
    init: bool,
    sipi: Option<u8>,
    waits: bool,
}

impl Oracle {
    fn new() -> Self {
        Self {
            requested: [false; 256],
            in_service: [false; 256],
            level: [false; 256],
            task: 0,
            enabled: false,
            timer_vector: 0,
            timer_masked: true,
            ticks_left: 0,
            nmi: false,
            init: false,
            sipi: None,
            waits: true,
        }
    }

    fn arrives(&mut self, vector: u8, level: bool) {
        if vector >= 16 && self.enabled {
            self.requested[usize::from(vector)] = true;
            self.level[usize::from(vector)] = level;
        }
    }

    fn highest(flags: &[bool; 256]) -> Option<usize> {
        (0..256).rev().find(|&vector| flags[vector])
    }

    fn priority(&self) -> u8 {
        let class = Self::highest(&self.in_service).map_or(0, |vector| vector / 16);
        if usize::from(self.task) / 16 >= class {
            self.task
        } else {
            u8::try_from(class * 16).unwrap()
        }
    }

    fn deliverable(&self) -> Option<u8> {
        let vector = Self::highest(&self.requested)?;
        let above = vector / 16 > usize::from(self.priority()) / 16;
        (above && !self.waits).then(|| u8::try_from(vector).unwrap())
    }

    /// One nanosecond at a time.
    fn wait(&mut self, ns: u16) {
        for _ in 0..ns {
            if self.ticks_left > 0 {
                self.ticks_left -= 1;
                if self.ticks_left == 0 && !self.timer_masked {
                    self.arrives(self.timer_vector, false);
                }
            }
        }
    }

    fn scan(&mut self) -> Work {
        let mut work = Work::default();
        if self.init {
            let (nmi, sipi) = (self.nmi, self.sipi);
            *self = Self {
                nmi,
                sipi,
                ..Self::new()
            };
            work.init = true;
        }
        if let Some(vector) = self.sipi.take()
            && self.waits
        {
            self.waits = false;
            work.sipi = Some(vector);
        }
        if !self.waits {
            work.nmi = self.nmi;
            self.nmi = false;
        }
        work.interrupt = self.deliverable();
        work
    }
}

/// Both, side by side.
struct Pair {
    bus: ApicBus,
    lapic: Lapic,
    oracle: Oracle,
    now: u64,
}

impl Pair {
    fn new() -> Self {
        let bus = ApicBus::new(&[TARGET]).unwrap();
        let inbox = bus.inbox(TARGET).unwrap();
        let mut lapic = Lapic::new(inbox, false, Features::default());
        lapic.write_base(lapic.base() | 1 << 10, 0).unwrap();
        let mut pair = Self {
            bus,
            lapic,
            oracle: Oracle::new(),
            now: 0,
        };
        pair.write(0x83e, 0b1011);
        pair
    }

    fn write(&mut self, msr: u32, value: u64) -> Option<Effect> {
        self.lapic.write_msr(msr, value, self.now).unwrap()
    }

    fn send(&mut self, delivery: Delivery, vector: u8, level: bool) {
        let message = Message {
            destination: Destination::Physical(TARGET),
            delivery,
            vector,
            level,
        };
        assert_eq!(self.bus.send(&message, None, &mut Vec::new()), 1);
    }

    fn scan(&mut self) -> Work {
        let work = self.lapic.scan(self.now);
        assert_eq!(work, self.oracle.scan());
        if work.init {
            // The oracle's ticks are not divided.
            self.write(0x83e, 0b1011);
        }
        work
    }

    fn step(&mut self, input: &Input) {
        match *input {
            Input::Post { vector, level } => {
                self.send(Delivery::Fixed, vector, level);
                // Two on their way at once have no order; here they have, for the
                // owner looks at once.
                self.oracle.arrives(vector, level);
                self.lapic.read_msr(0x802, self.now).unwrap();
            }
            Input::Nmi => {
                self.send(Delivery::Nmi, 0, false);
                self.oracle.nmi = true;
            }
            Input::Init => {
                self.send(Delivery::Init, 0, false);
                let Oracle {
                    nmi, sipi, init, ..
                } = &mut self.oracle;
                (*nmi, *sipi, *init) = (false, None, true);
            }
            Input::Startup(page) => {
                self.send(Delivery::Startup, page, false);
                self.oracle.sipi.get_or_insert(page);
            }
            Input::SelfIpi(vector) => {
                assert_eq!(self.write(0x83f, vector.into()), None);
                self.oracle.arrives(vector, false);
            }
            Input::TaskPriority(value) => {
                self.write(0x808, value.into());
                self.oracle.task = value;
            }
            Input::Eoi => {
                let effect = self.write(0x80b, 0);
                let ended = Oracle::highest(&self.oracle.in_service);
                let wanted = ended.and_then(|vector| {
                    self.oracle.in_service[vector] = false;
                    let vector8 = u8::try_from(vector).unwrap();
                    self.oracle.level[vector].then_some(Effect::Eoi(vector8))
                });
                assert_eq!(effect, wanted);
            }
            Input::Take => {
                if let Some(vector) = self.scan().interrupt {
                    assert!(self.lapic.acknowledge(vector));
                    self.oracle.requested[usize::from(vector)] = false;
                    self.oracle.in_service[usize::from(vector)] = true;
                }
            }
            Input::Enable(enabled) => {
                self.write(0x80f, if enabled { 0x1ff } else { 0xff });
                self.oracle.enabled = enabled;
                self.oracle.timer_masked |= !enabled;
            }
            Input::TimerEntry { vector, masked } => {
                self.write(0x832, u64::from(vector) | u64::from(masked) << 16);
                self.oracle.timer_vector = vector;
                self.oracle.timer_masked = masked || !self.oracle.enabled;
            }
            Input::TimerStart(count) => {
                self.write(0x838, count.into());
                self.oracle.ticks_left = count;
            }
            Input::Wait(ns) => {
                self.now += u64::from(ns);
                self.oracle.wait(ns);
            }
            Input::Scan => {
                self.scan();
            }
        }
        self.compare();
    }

    fn compare(&mut self) {
        let mut read = |msr| self.lapic.read_msr(msr, self.now).unwrap();
        let oracle = &self.oracle;
        for (msr, flags) in [
            (0x810, &oracle.in_service),
            (0x818, &oracle.level),
            (0x820, &oracle.requested),
        ] {
            for vector in 0..256u32 {
                let set = read(msr + vector / 32) / 2u64.pow(vector % 32) % 2 == 1;
                assert_eq!(set, flags[vector as usize], "MSR {msr:#x}, vector {vector}");
            }
        }
        assert_eq!(read(0x808), u64::from(oracle.task));
        assert_eq!(read(0x80a), u64::from(oracle.priority()));
        assert_eq!(read(0x839), u64::from(oracle.ticks_left));
    }
}

proptest! {
    #[test]
    fn any_sequence(inputs in prop::collection::vec(input(), 1..120)) {
        let mut pair = Pair::new();
        // Most sequences should find it running and enabled.
        for input in [Input::Startup(1), Input::Scan, Input::Enable(true)].iter().chain(&inputs) {
            pair.step(input);
        }
    }
}
