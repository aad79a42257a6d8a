//! Prints the system calls that each kind of thread is left, as they stand in
//! docs/JAIL.md behind its mark.

fn main() {
    print!("{}", vmm_reference::jail::document::markdown());
}
