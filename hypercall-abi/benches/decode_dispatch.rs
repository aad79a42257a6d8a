//! What a hypercall costs between the exit and the handler.

use std::hint::black_box;

use cpuid_features::KvmFeatures;
use criterion::{Criterion, criterion_group, criterion_main};
use hypercall_abi::{
    Enforcement, Hypercall, HypercallHandler, HypercallResult, KickCpu, Mode, RawHypercall,
    dispatch,
};

/// As little as a handler can do with a kick.
struct Last(u32);

impl HypercallHandler for Last {
    fn kick_cpu(&mut self, call: KickCpu) -> HypercallResult {
        self.0 = call.destination();
        Ok(0)
    }
}

fn decode_dispatch(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode_dispatch");
    let kick = Hypercall::KickCpu(KickCpu::new(3)).encode(Mode::Bits64, 0);
    let enforced = Enforcement::Enforced(KvmFeatures::PV_UNHALT);
    let cases = [
        ("kick", kick, enforced),
        (
            "kick, 32 bits",
            RawHypercall {
                mode: Mode::Bits32,
                ..kick
            },
            enforced,
        ),
        (
            "kick, gate closed",
            kick,
            Enforcement::Enforced(KvmFeatures::empty()),
        ),
        ("kick, cpl 3", RawHypercall { cpl: 3, ..kick }, enforced),
        ("unknown", RawHypercall { nr: 99, ..kick }, enforced),
    ];
    for (name, raw, features) in cases {
        let mut handler = Last(0);
        group.bench_function(name, |b| {
            b.iter(|| {
                dispatch(
                    black_box(&raw),
                    black_box(features),
                    black_box(&mut handler),
                )
            });
        });
    }
    let mut handler = Last(0);
    group.bench_function("kick, dyn handler", |b| {
        b.iter(|| {
            let handler: &mut dyn HypercallHandler = black_box(&mut handler);
            dispatch(black_box(&kick), black_box(enforced), handler)
        });
    });
    group.finish();
}

criterion_group!(benches, decode_dispatch);
criterion_main!(benches);
