//! Which cells a study has, on a host with so many CPUs and these ways to halt
//! and kick.

use super::dataset::{CellKey, Halts, Load, Series, Transport, Waiter};

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// What fits into five minutes.
    Full,
    /// What fits into one.
    Quick,
}

/// The loads that a study has, in the order of the report.
pub const LOADS: [Load; 4] = [Load::Short, Load::Long, Load::Uncontended, Load::Mixed];

/// A way to halt and kick that a host has.
pub type Way = (Halts, Transport);

/// The series that a host can have: those that spin, and those that halt by each
/// of its ways; the first way is that of the queue lock.
pub fn series(ways: &[Way]) -> Vec<Series> {
    let spinning = [Waiter::Ticket, Waiter::TestAndSet, Waiter::Preemptable];
    let mut all: Vec<Series> = spinning
        .into_iter()
        .map(|waiter| Series {
            waiter,
            halts: Halts::Never,
            transport: Transport::None,
        })
        .collect();
    let halting = |waiter| {
        move |&(halts, transport): &Way| Series {
            waiter,
            halts,
            transport,
        }
    };
    all.extend(ways.iter().map(halting(Waiter::PvTicket)));
    all.extend(ways.iter().take(1).map(halting(Waiter::PvQueue)));
    all
}

/// vCPUs of one VM at these ratios.
fn vcpus(cpus: u32, ratios: &[f64]) -> Vec<u32> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a small ratio of the number of CPUs; `as` saturates"
    )]
    let all = ratios.iter().map(|ratio| (f64::from(cpus) * ratio) as u32);
    let mut all: Vec<u32> = all.filter(|&vcpus| vcpus > 0).collect();
    all.dedup();
    all
}

/// All cells, those of a figure together.
pub fn cells(extent: Extent, cpus: u32, ways: &[Way]) -> Vec<CellKey> {
    let series = series(ways);
    let mut all = Vec::new();
    let mut add = |load, vms: &[u32], vcpus: &[u32], which: &dyn Fn(&Series) -> bool| {
        for &series in series.iter().filter(|series| which(series)) {
            for &vms in vms {
                for &vcpus in vcpus {
                    all.push(CellKey {
                        load,
                        series,
                        vms,
                        vcpus,
                    });
                }
            }
        }
    };
    let every = |_: &Series| true;
    // The unfair locks add nothing where nobody waits.
    let plain = |series: &Series| series.waiter == Waiter::Ticket || series.is_pv();
    match extent {
        Extent::Full => {
            add(
                Load::Short,
                &[1],
                &vcpus(cpus, &[0.5, 1.0, 1.5, 2.0, 4.0, 8.0]),
                &every,
            );
            add(Load::Short, &[2, 4], &[cpus], &every);
            add(Load::Long, &[1], &vcpus(cpus, &[1.0, 2.0, 4.0]), &every);
            add(Load::Uncontended, &[1], &vcpus(cpus, &[1.0, 4.0]), &plain);
            // One vCPU can't be half of a load.
            let mixed = vcpus(cpus.max(2), &[1.0, 2.0, 4.0]);
            add(Load::Mixed, &[1], &mixed, &plain);
        }
        Extent::Quick => {
            add(Load::Short, &[1], &vcpus(cpus, &[1.0, 2.0, 4.0]), &every);
            add(Load::Short, &[2], &[cpus], &plain);
            add(Load::Uncontended, &[1], &[cpus], &plain);
            add(Load::Mixed, &[1], &vcpus(cpus.max(2), &[2.0]), &plain);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAYS: [Way; 2] = [
        (Halts::Userspace, Transport::Port),
        (Halts::Kernel, Transport::Port),
    ];

    #[test]
    fn no_cell_twice_and_none_without_vcpus() {
        for cpus in [1, 2, 3, 64] {
            for extent in [Extent::Full, Extent::Quick] {
                let all = cells(extent, cpus, &WAYS);
                assert!(all.iter().all(|key| key.vcpus > 0 && key.vms > 0));
                let mut once = all.clone();
                once.sort_unstable();
                once.dedup();
                assert_eq!(once.len(), all.len(), "{cpus} CPUs");
                // Every series has its own 1x.
                for series in series(&WAYS) {
                    let base =
                        |key: &CellKey| key.series == series && (key.vms, key.vcpus) == (1, cpus);
                    assert!(all.iter().any(base), "{series} on {cpus}");
                }
            }
        }
    }

    #[test]
    fn a_full_study_has_all_loads_and_no_other() {
        let mut loads: Vec<Load> = cells(Extent::Full, 2, &WAYS)
            .iter()
            .map(|key| key.load)
            .collect();
        loads.dedup();
        assert_eq!(loads, LOADS);
    }

    #[test]
    fn a_quick_study_has_a_third_of_the_cells() {
        let (full, quick) = (
            cells(Extent::Full, 2, &WAYS).len(),
            cells(Extent::Quick, 2, &WAYS).len(),
        );
        assert!(quick * 2 < full && quick > 20, "{quick} of {full}");
    }

    #[test]
    fn the_ratios_of_a_full_study() {
        let all = cells(Extent::Full, 2, &WAYS);
        let single = all.iter().filter(|key| {
            key.load == Load::Short && key.vms == 1 && key.series.waiter == Waiter::Ticket
        });
        let vcpus: Vec<u32> = single.map(|key| key.vcpus).collect();
        assert_eq!(vcpus, [1, 2, 3, 4, 8, 16]);
    }
}
