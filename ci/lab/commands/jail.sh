# shellcheck shell=bash
# jail: each command of vmm-reference does its work under the filters, in the static
# program, on this kernel.
[[ $# == 0 ]] || usage_error "jail takes no arguments"
lab_vmm_file
lab_file "$LAB_DIR/guest/jail" /bin/guest-jail
lab_command guest-jail
