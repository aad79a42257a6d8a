# shellcheck shell=bash
# kvm-check: is the lab's /dev/kvm complete? See probes/kvm-check.c.
check=$(lab_cc "$LAB_DIR/probes/kvm-check.c")
lab_file "$check" /bin/kvm-check
lab_command kvm-check
