#![doc = include_str!("../README.md")]

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
compile_error!("vmm-reference runs on x86-64 Linux");

pub mod backend;
pub mod bench;
pub mod boot;
pub mod c_library;
pub mod cli;
pub mod conformance;
pub mod control;
pub mod cpuid;
pub mod demo;
pub mod descriptor;
pub mod devices;
pub mod halt_mode;
pub mod host;
pub mod hypercall;
pub mod interrupts;
pub mod irqchip;
pub mod jail;
pub mod kicks;
pub mod memory;
pub mod payload;
pub mod policy;
pub mod probe;
pub mod run;
pub mod signals;
pub mod snapshot;
pub mod stats;
mod stderr;
pub mod study;
pub mod terminal;
pub mod threads;
pub mod trace;
pub mod transport;
pub mod vcpu;
pub mod vm;
