# shellcheck shell=bash
# bad-guests: guests that mean harm to their interrupt controllers, a verdict each.
#
#   ci/lab/run bad-guests [userspace|kernel] [SECONDS]
guests=$(lab_cargo vmm-reference --example bad_guests)
lab_file "$guests" /bin/bad_guests
lab_vmm_file
lab_command bad_guests /bin/vmm-reference "${@:-userspace}"
