//! Multiboot guests, on /dev/kvm.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails by panicking")]

mod common;

use common::guests::{self, elf, elf_with_headers, flat, flat_at};
use common::{Scratch, finish, kvm, run};

fn print_module(image: &[u8], halt: &str) {
    let dir = Scratch::new(&format!("module-{halt}-{}", image.len()));
    let kernel = dir.file("kernel", image);
    let module = dir.file("module", b"what the module holds");
    let said = finish(run(&kernel).arg("--initrd").arg(module).args([
        "--cmdline",
        "hello world",
        "--halt",
        halt,
    ]));
    assert_eq!(
        said.stdout, "hello world:what the module holds\n",
        "{said:?}"
    );
    // (3 << 1) | 1
    assert_eq!(said.status, Some(7), "{said:?}");
    assert_eq!(said.stderr, "");
}

#[test]
fn a_flat_image_reads_its_module_and_ends_with_7() {
    if kvm() {
        print_module(&flat(&guests::module_printer()), "kernel");
        print_module(&flat(&guests::module_printer()), "userspace");
    }
}

#[test]
fn so_does_an_elf_file() {
    if kvm() {
        print_module(&elf(&guests::module_printer()), "kernel");
    }
}

/// Below 1 MiB, where programs of real mode lie; and an ELF file whose headers end
/// there.
#[test]
fn and_kernels_below_1_mib() {
    if kvm() {
        print_module(&flat_at(0x8000, &guests::module_printer()), "kernel");
        print_module(&elf_with_headers(&guests::module_printer()), "kernel");
    }
}

#[test]
fn what_lies_over_the_vmm_s_own_is_refused_by_name() {
    if !kvm() {
        return;
    }
    let dir = Scratch::new("over");
    for (load, what) in [
        (0x400, "over the VMM's own GDT at 0x500 to 0x528"),
        (0x8_e000, "over the VMM's own command line at 0x8e000 to"),
        (
            0x9_efff,
            "over the VMM's own multiboot information at 0x9e000",
        ),
        (0xd_fff0, "over the VMM's own ACPI tables at 0xe0000 to"),
    ] {
        let mut image = flat_at(load, &guests::spin());
        image.resize(0x200, 0);
        let said = finish(&mut run(&dir.file("kernel", &image)));
        assert_eq!(said.status, Some(1), "{said:?}");
        let place = format!("a segment at {load:#x} to {:#x}", load + 0x200);
        assert!(said.stderr.contains(&place), "{said:?}");
        assert!(said.stderr.contains(what), "{said:?}");
    }
}

#[test]
fn without_a_module_it_is_told_so() {
    if !kvm() {
        return;
    }
    let dir = Scratch::new("no-module");
    let kernel = dir.file("kernel", &flat(&guests::module_printer()));
    let said = finish(&mut run(&kernel));
    assert_eq!(said.status, Some(5), "{said:?}");
}

#[test]
fn reset_and_power_off_end_with_0() {
    if !kvm() {
        return;
    }
    let dir = Scratch::new("ends");
    for code in [guests::resetter(), guests::power_off()] {
        let kernel = dir.file("kernel", &flat(&code));
        let said = finish(run(&kernel).args(["--cpus", "2"]));
        assert_eq!(said.status, Some(0), "{said:?}");
        assert_eq!(said.stderr, "");
    }
}

#[test]
fn a_trace_says_that_the_vcpu_ran() {
    if !kvm() {
        return;
    }
    let dir = Scratch::new("trace");
    let kernel = dir.file("kernel", &flat(&guests::power_off()));
    for halt in ["kernel", "userspace"] {
        let trace = dir.path("trace.json");
        let said = finish(run(&kernel).args(["--halt", halt, "--trace"]).arg(&trace));
        assert_eq!((said.status, &*said.stderr), (Some(0), ""), "{said:?}");
        let text = std::fs::read(&trace).unwrap();
        let events: Vec<serde_json::Value> = serde_json::from_slice(&text).unwrap();
        let ran = |event: &&serde_json::Value| event["ph"] == "X" && event["name"] == "running";
        assert!(events.iter().any(|event| ran(&event)), "{events:?}");
    }
    let said = finish(run(&kernel).args(["--trace", "/nowhere/trace.json"]));
    assert_eq!(said.status, Some(1), "{said:?}");
    assert_eq!(
        said.stderr,
        "vmm-reference: can't write /nowhere/trace.json: No such file or directory (os error 2)\n"
    );
}

/// What `--pv` does reaches the user: the bit that was named, and what goes with
/// it; and nothing else, for a bit that nobody named is no news.
#[test]
fn the_effect_of_pv_is_printed() {
    if !kvm() {
        return;
    }
    let dir = Scratch::new("pv");
    let kernel = dir.file("kernel", &flat(&guests::power_off()));
    let said = finish(run(&kernel).arg("--pv=-steal-time,-pv-eoi"));
    assert_eq!(said.status, Some(0), "{said:?}");
    let named = "vmm-reference: steal-time dropped: the user turned it off\n";
    assert!(said.stderr.contains(named), "{said:?}");
    for line in said.stderr.lines() {
        let rest = line.trim_start_matches("vmm-reference: ");
        let is_one = ["steal-time ", "pv-eoi ", "pv-tlb-flush ", "pv-sched-yield "];
        assert!(is_one.iter().any(|bit| rest.starts_with(bit)), "{line}");
    }
}
