# shellcheck shell=bash
# kvm-tests: tests of vmm-reference that a machine without a whole KVM leaves out:
# interrupts into a vCPU that has no local APIC in KVM, and run states. Here one that
# is left out is a failure.
[[ $# == 0 ]] || usage_error "kvm-tests takes no arguments"
# shellcheck source-path=SCRIPTDIR source=../guest/tree.sh
. "$LAB_DIR/guest/tree.sh"
said=$(cd "$LAB_ROOT" && cargo test --locked --no-run -p vmm-reference --test interrupt \
  --test run_states 2>&1) || { printf '%s\n' "$said" >&2 && lab_die "the tests did not build"; }
programs=$(sed -n 's/^ *Executable tests\/\(.*\)\.rs (\(.*\))$/\1 \2/p' <<<"$said")
[[ -n $programs ]] || lab_die "cargo named no test"
while read -r name program; do
  program=$(cd "$LAB_ROOT" && realpath "$program")
  lab_file "$program" "/tests/$name"
  while read -r library; do
    lab_file "$library" "$library"
  done < <(guest_with_libraries "$program" | grep -v "^$program$" | grep -v ':$')
done <<<"$programs"
# shellcheck disable=SC2016 # the lab's shell
lab_command sh -c '
  for test in /tests/*; do
    "$test" --nocapture --test-threads 1 >>/tmp/said 2>&1 || wrong=yes
  done
  cat /tmp/said
  [ -z "$wrong" ] && ! grep "not run here" /tmp/said'
