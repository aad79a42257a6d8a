# shellcheck shell=bash
# supported-cpuid: what the lab's KVM would show a guest, as a raw dump; how
# those of cpuid-features/tests/dumps were recorded.
program=$(lab_cargo cpuid-features --example supported)
lab_file "$program" /bin/supported
lab_command supported
