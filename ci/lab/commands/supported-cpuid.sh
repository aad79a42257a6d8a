# shellcheck shell=bash
# supported-cpuid: what the lab's KVM would show a guest, as cpuid(1) prints it
# raw; test data of cpuid-features comes from here.
probe=$(lab_cc "$LAB_DIR/probes/supported-cpuid.c")
lab_file "$probe" /bin/supported-cpuid
lab_command supported-cpuid
