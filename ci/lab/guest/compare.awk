# What compare-halts measured, as tables or as JSON. A line of input is
#   TURN MODE WORKLOAD OPERATIONS SECONDS [NAME NUMBER]...
# The ratios are to the mode "kernel", turn by turn: median, lowest, highest.

{
  modes[$2] || (order[++mode_count] = $2); modes[$2] = 1
  works[$3] || (work_order[++work_count] = $3); works[$3] = 1
  turn = $1; cell = $3 SUBSEP $2
  turns[cell] = turns[cell] " " turn
  operations[cell, turn] = $4; seconds[cell, turn] = $5
  all_operations[cell] += $4
  for (i = 6; i < NF; i += 2) {
    sum[cell, $i] += $(i + 1)
    count[$i] = 1
  }
  line[NR] = $0
}

END { if (format == "json") json(); else text() }

function json(    n, i, words, fields, mine) {
  print "["
  for (n = 1; n <= NR; n++) {
    fields = split(line[n], words, " ")
    printf "  {\"turn\": %d, \"mode\": \"%s\", \"workload\": \"%s\", \"operations\": %d, \"seconds\": %s, \"counts\": {", \
      words[1], words[2], words[3], words[4], words[5] + 0
    for (i = 6; i < fields; i += 2)
      printf "%s\"%s\": %s", (i > 6 ? ", " : ""), words[i], words[i + 1]
    print "}}" (n < NR ? "," : "")
  }
  print "]"
}

function text(    w, m, work, cell, kernel) {
  for (w = 1; w <= work_count; w++) {
    work = work_order[w]
    kernel = work SUBSEP "kernel"
    printf "%s\n", title(work)
    printf "  %-16s %10s  %-22s %8s %7s %7s %7s %8s %7s %8s %7s %8s\n", "mode", unit(work), \
      "ratio to kernel", "exits", "hlt", "msr", "window", "host irq", "io", "hypercall", "rest", "to VMM"
    for (m = 1; m <= mode_count; m++) {
      cell = work SUBSEP order[m]
      if (cell in turns) row(work, order[m], cell, kernel)
    }
    print ""
  }
}

function title(work) {
  if (work == "boot") return "boot: seconds from the start of the VMM to the guest's init, and exits of one boot"
  if (work == "idle") return "idle: timer interrupts a second; exits for each"
  return work ": operations a second; exits for each"
}
function unit(work) { return work == "boot" ? "seconds" : "rate" }

# What a turn came to: seconds of a boot, else operations a second.
function value(work, cell, turn) {
  if (!((cell, turn) in seconds)) return 0
  if (work == "boot") return seconds[cell, turn]
  return seconds[cell, turn] > 0 ? operations[cell, turn] / seconds[cell, turn] : 0
}

function row(work, mode, cell, kernel,    n, i, list, values, ratios, pairs, known, exits, here, per) {
  n = split(turns[cell], list, " ")
  for (i = 1; i <= n; i++) {
    values[i] = value(work, cell, list[i])
    if (value(work, kernel, list[i]) > 0)
      ratios[++pairs] = values[i] / value(work, kernel, list[i])
  }
  sort(values, n); sort(ratios, pairs)
  per = all_operations[cell] > 0 ? all_operations[cell] : 1
  # KVM counts no hypercall that the Xen intercept takes, and no MSR access.
  hypercalls = get(cell, "hypercalls") + get(cell, "vmm_exit_hypercall")
  io = get(cell, "io_exits") + get(cell, "mmio_exits")
  exits = get(cell, "exits")
  known = get(cell, "halt_exits") + get(cell, "vmm_exit_msr") + get(cell, "irq_window_exits") + \
    get(cell, "irq_exits") + io + hypercalls
  here = get(cell, "vmm_exit_hlt") + get(cell, "vmm_exit_hypercall") + get(cell, "vmm_exit_pio") + \
    get(cell, "vmm_exit_mmio") + get(cell, "vmm_exit_msr") + get(cell, "vmm_exit_window") + \
    get(cell, "vmm_exit_signal") + get(cell, "vmm_exit_other")
  printf "  %-16s %10s  %-22s %8s %7s %7s %7s %8s %7s %8s %7s %8s\n", mode, figure(median(values, n)), \
    pairs ? sprintf("%.2f (%.2f to %.2f)", median(ratios, pairs), ratios[1], ratios[pairs]) : "-", \
    figure(exits / per), figure(get(cell, "halt_exits") / per), figure(get(cell, "vmm_exit_msr") / per), \
    figure(get(cell, "irq_window_exits") / per), figure(get(cell, "irq_exits") / per), figure(io / per), \
    figure(hypercalls / per), figure((exits - known) / per), figure(here / per)
}

function get(cell, name) { return sum[cell, name] + 0 }

# Three digits that say something.
function figure(x) {
  if (x == 0) return "0"
  if (x < 0) return "-" figure(-x)
  return sprintf(x >= 100 ? "%.0f" : x >= 10 ? "%.1f" : x >= 0.1 ? "%.2f" : "%.4f", x)
}

function sort(a, n,    i, j, x) {
  for (i = 2; i <= n; i++) {
    x = a[i]
    for (j = i - 1; j >= 1 && a[j] > x; j--) a[j + 1] = a[j]
    a[j + 1] = x
  }
}

function median(a, n) { return n % 2 ? a[(n + 1) / 2] : (a[n / 2] + a[n / 2 + 1]) / 2 }
