# shellcheck shell=bash
# linux: boots a Debian kernel in vmm-reference and asserts what it says of its
# CPUs, of PV spinlocks, and what KVM counted.
#
#   ci/lab/run linux --cpus 4
#   ci/lab/run linux --cpus 4 --guest-kernel 6.1 --pv=-pv-unhalt
#   ci/lab/run linux --cpus 4 --pv=+realtime
#   ci/lab/run linux --cpus 4 --cmdline nopvspin
#   ci/lab/run linux --cpus 4 --halt userspace --no-x2apic --hotplug 10
#   ci/lab/run linux --cpus 4 --halt kernel --transport xen
#   ci/lab/run linux --cpus 4 --halt userspace --pvh --end keys
#
#   --guest-kernel VERSION|PATH  as --kernel of the lab; default 6.12
#   --seconds N                  how long the guest takes the lock; default 3
#   --cmdline TEXT               more of a command line
#   --end HOW                    how the guest ends: poweroff (default), reboot;
#                                kexec: it starts its kernel again, which turns off;
#                                stop: by the control socket, keys: by Ctrl-A x on a
#                                terminal; for both it is paused and resumed before,
#                                and looked at meanwhile
#   --pvh                        its kernel is the vmlinux of the bzImage, by PVH
#   --hotplug N                  take CPUs off and on so often, an NMI to all after each
#   --expect WHAT                enabled, no-host, realtime, nopvspin, single; default
#                                what --cpus, --pv and --cmdline make of it
# and --cpus, --memory, --pv, --halt, --transport, --yield, --no-x2apic, --control of
# vmm-reference run.
#
# Two features that are hypercalls of their own stay off (--all-pv leaves them
# on), so that what KVM counts are kicks.
pv=-pv-send-ipi,-pv-sched-yield
guest_cpus=1 guest_kernel=6.12 seconds=3 cmdline='' expect='' end=poweroff options=()
halt=kernel transport=auto apic='' hotplug=0 pvh=''
while [[ $# -gt 0 ]]; do
  case $1 in
    --pv=*) pv+=${pv:+,}${1#--pv=} && shift && continue ;;
    --all-pv) pv='' && shift && continue ;;
    --pvh) pvh=yes && shift && continue ;;
    --no-x2apic) apic=xapic && options+=("$1") && shift && continue ;;
    --*) [[ $# -ge 2 ]] || usage_error "linux: $1 needs a value" ;;
    *) usage_error "linux: $1: not an option" ;;
  esac
  case $1 in
    --cpus) number "$1" "$2" && guest_cpus=$2 ;;
    --guest-kernel) guest_kernel=$2 ;;
    --seconds) number "$1" "$2" && seconds=$2 ;;
    --cmdline) cmdline=$2 ;;
    --expect) expect=$2 ;;
    --end) end=$2 ;;
    --pv) pv+=${pv:+,}$2 ;;
    --hotplug) number "$1" "$2" && hotplug=$2 ;;
    --halt) halt=$2 && options+=("$1" "$2") ;;
    --transport) transport=$2 && options+=("$1" "$2") ;;
    --memory | --control | --yield) options+=("$1" "$2") ;;
    *) usage_error "linux: $1: not an option" ;;
  esac
  shift 2
done
[[ $end =~ ^(poweroff|reboot|kexec|stop|keys)$ ]] ||
  usage_error "linux: --end $end: not poweroff, reboot, kexec, stop or keys"
[[ -z $pvh || $end != kexec ]] || usage_error "linux: --pvh --end kexec: kexec starts bzImages only"
if [[ -z $expect && $guest_cpus == 1 ]]; then
  expect=single
elif [[ -z $expect ]]; then
  case ",$pv, $cmdline " in
    *' nopvspin '*) expect=nopvspin ;;
    *,+realtime,*) expect=realtime ;;
    *,-pv-unhalt,*) expect=no-host ;;
    # Without the Xen intercept kicks do not come to the VMM.
    *) [[ $halt/$kernel == userspace/6.1 ]] && expect=no-host || expect=enabled ;;
  esac
fi
# The message of kvm_spinlock_init. Since its tests were put in another order a
# guest with the hint and without the feature names the hint.
hypercalls=none
case $expect in
  enabled) message='PV spinlocks enabled' hypercalls=some ;;
  no-host) message='PV spinlocks disabled, no host support' ;;
  realtime) message='PV spinlocks disabled with KVM_HINTS_REALTIME hints' ;;
  nopvspin) message='PV spinlocks disabled, forced by "nopvspin" parameter' ;;
  # vmm-reference offers one vCPU no PV_UNHALT.
  single) message='PV spinlocks disabled, (single CPU|no host support)' ;;
  *) usage_error "linux: --expect $expect: not enabled, no-host, realtime, nopvspin or single" ;;
esac

# Whether CPUs that share the lab's one see time stolen: not where nobody keeps it.
steal=some
case $guest_cpus,$halt/$transport,",$pv,$cmdline" in
  1,*) steal=any ;;
  *,kernel/xen,* | *,-steal-time,* | *no-steal-acc*) steal=none ;;
esac

# Who serves the hypercalls, and which APICs the guest has.
if [[ $halt == userspace ]]; then
  [[ $hypercalls == none ]] && hypercalls=nowhere || hypercalls=vmm
  : "${apic:=x2apic}"
elif [[ $transport == xen ]]; then
  [[ $hypercalls == none ]] && hypercalls=nowhere || hypercalls=passed
fi

# shellcheck source-path=SCRIPTDIR source=../guest/tree.sh
. "$LAB_DIR/guest/tree.sh"
guest_files "$guest_kernel"
[[ -z $pvh ]] || guest_vmlinux
case $end in
  kexec) guest_kexec ;;
  stop | keys)
    asker=$(lab_cc "$LAB_DIR/probes/ask.c")
    terminal=$(lab_cc "$LAB_DIR/probes/terminal.c")
    lab_file "$asker" /bin/ask
    lab_file "$terminal" /bin/terminal
    options+=(--control /tmp/control)
    ;;
esac
lab_file "$LAB_DIR/guest/check" /bin/check-linux
lab_file "$LAB_DIR/guest/operate" /bin/operate-linux
lab_vmm_file
lab_command check-linux "$guest_cpus" "$message" "$hypercalls" "${apic:-any}" "$hotplug" "$halt" \
  "$end" "${pvh:-no}" "$steal" \
  vmm-reference run --kernel /guest/vmlinuz --initrd /guest/initrd --stats \
  --cpus "$guest_cpus" "${options[@]}" --pv="$pv" \
  --cmdline "console=ttyS0 quiet panic=-1 type=yes contend=$seconds hotplug=$hotplug end=$end $cmdline"
