//! Guests that do to their interrupt controllers what no operating system would, for
//! ever. Each prints "up" when it begins.
//!
//! A guest is [`with_handlers`], maybe [`others`], and its own code, one behind the
//! other: all of it runs wherever it lies. Words that they share:
//!
//! | GPA | what |
//! |---|---|
//! | 0x4000 | 1: the handler ends interrupts by the MSR of x2APIC mode |
//! | 0x4004 | interrupts handled by the first vCPU |
//! | 0x4008 | other vCPUs that run |
//! | 0x4010 | the next one's stack |
//! | 0x5f00, 0x6000 | handler and code of the others, in real mode |
//! | 0x30000 | interrupt descriptor table |

#![expect(
    unsafe_code,
    reason = "machine code is assembled here and its bytes are taken by symbol"
)]

use core::arch::global_asm;

guest!(
    /// A stack, and a handler for every vector, which ends the interrupt at the local
    /// APIC; #GP skips the two bytes of an MSR access. Turns the local APIC on. They
    /// return with interrupts on, without an IRET, which KVM's emulator has in real mode
    /// only; in the shadow of STI no interrupt comes before the RET.
    with_handlers, bad_guest_handlers_start, bad_guest_handlers_end,
    "   mov  esp, 0x80000",
    "   mov  dword ptr [0x4000], 0",
    "   mov  dword ptr [0x4004], 0",
    "   call 3f",
    // #GP: its address is on the stack now.
    "   add  esp, 4",
    "   add  dword ptr [esp], 2",
    "   push [esp + 8]",
    "   and  dword ptr [esp], 0xfffffdff",
    "   popfd",
    "   sti",
    "   ret  8",
    "3: pop edi",
    "   call 4f",
    // Everything else.
    "   push eax",
    "   push ecx",
    "   push edx",
    "   inc  dword ptr [0x4004]",
    "   cmp  dword ptr [0x4000], 1",
    "   je   7f",
    "   mov  dword ptr [0xfee000b0], 0",
    "   jmp  8f",
    "7: mov ecx, 0x80b",
    "   xor  eax, eax",
    "   xor  edx, edx",
    "   wrmsr",
    "8: pop edx",
    "   pop  ecx",
    "   pop  eax",
    "   push [esp + 8]",
    "   and  dword ptr [esp], 0xfffffdff",
    "   popfd",
    "   sti",
    "   ret  8",
    "4: pop esi",
    "   mov  ebx, 0x30000",
    "   xor  ecx, ecx",
    "5: mov eax, esi",
    "   cmp  ecx, 13",
    "   jne  6f",
    "   mov  eax, edi",
    "6: mov edx, eax",
    "   and  edx, 0xffff",
    // The loader's 32-bit code selector.
    "   or   edx, 0x200000",
    "   mov  [ebx], edx",
    "   and  eax, 0xffff0000",
    "   or   eax, 0x8e00",
    "   mov  [ebx + 4], eax",
    "   add  ebx, 8",
    "   inc  ecx",
    "   cmp  ecx, 256",
    "   jne  5b",
    "   push 0x30000",
    "   sub  esp, 2",
    "   mov  word ptr [esp], 0x7ff",
    "   lidt [esp]",
    "   add  esp, 6",
    "   mov  dword ptr [0xfee000f0], 0x1ff",
);

guest!(
    /// Starts three other vCPUs, which turn their local APICs on and halt in real mode
    /// with interrupts on. It waits for them.
    others, bad_guest_others_start, bad_guest_others_end,
    "   cld",
    "   xor  edi, edi",
    "   mov  eax, 0x5f00",
    "   mov  ecx, 256",
    "   rep  stosd",
    "   call 2f",
    ".code16",
    "   xor  ax, ax",
    "   mov  ds, ax",
    "   mov  ss, ax",
    "   mov  ax, 0x100",
    "   lock xadd word ptr [0x4010], ax",
    "   mov  sp, ax",
    "   mov  ecx, 0x1b",
    "   rdmsr",
    "   or   eax, 0xc00",
    "   wrmsr",
    "   mov  ecx, 0x80f",
    "   mov  eax, 0x1ff",
    "   xor  edx, edx",
    "   wrmsr",
    "   lock inc word ptr [0x4008]",
    "   sti",
    "3: hlt",
    "   jmp  3b",
    ".code32",
    "2: pop esi",
    "   mov  edi, 0x6000",
    "   mov  ecx, 0x80",
    "   rep  movsb",
    "   call 4f",
    ".code16",
    "   push eax",
    "   push ecx",
    "   push edx",
    "   mov  ecx, 0x80b",
    "   xor  eax, eax",
    "   xor  edx, edx",
    "   wrmsr",
    "   pop  edx",
    "   pop  ecx",
    "   pop  eax",
    "   iret",
    ".code32",
    "4: pop esi",
    "   mov  edi, 0x5f00",
    "   mov  ecx, 0x40",
    "   rep  movsb",
    "   mov  dword ptr [0x4008], 0",
    "   mov  dword ptr [0x4010], 0x7100",
    // To all others: INIT, then SIPI with page 6.
    "   mov  dword ptr [0xfee00300], 0xc4500",
    "   mov  dword ptr [0xfee00300], 0xc4606",
    "5: pause",
    "   cmp  word ptr [0x4008], 3",
    "   jne  5b",
);

guest!(
    /// Prints "up".
    up, bad_guest_up_start, bad_guest_up_end,
    "   mov  dx, 0x3f8",
    "   mov  al, 'u'",
    "   out  dx, al",
    "   mov  al, 'p'",
    "   out  dx, al",
);

guest!(
    /// From xAPIC to x2APIC mode.
    x2apic, bad_guest_x2apic_start, bad_guest_x2apic_end,
    "   mov  ecx, 0x1b",
    "   rdmsr",
    "   or   eax, 0xc00",
    "   wrmsr",
    "   mov  dword ptr [0x4000], 1",
);

guest!(
    /// Every vector from 16 on to all others, without end.
    vector_storm, bad_guest_vectors_start, bad_guest_vectors_end,
    "2: mov ebx, 0x10",
    "3: mov eax, 0xc4000",
    "   or   eax, ebx",
    "   mov  [0xfee00300], eax",
    "   inc  ebx",
    "   cmp  ebx, 0x100",
    "   jne  3b",
    "   jmp  2b",
);

guest!(
    /// NMIs to all others.
    nmi_storm, bad_guest_nmi_start, bad_guest_nmi_end,
    "2: mov dword ptr [0xfee00300], 0xc4400",
    "   jmp  2b",
);

guest!(
    /// INIT and SIPI to all others, and INIT deassert.
    init_storm, bad_guest_init_start, bad_guest_init_end,
    "2: mov dword ptr [0xfee00300], 0xc4500",
    "   mov  dword ptr [0xfee00300], 0xc8500",
    "   mov  dword ptr [0xfee00300], 0xc4606",
    "   mov  dword ptr [0xfee00300], 0xc4606",
    "   jmp  2b",
);

guest!(
    /// EOI, with nothing in service.
    eoi_alone, bad_guest_eoi_start, bad_guest_eoi_end,
    "   sti",
    "2: mov dword ptr [0xfee000b0], 0",
    "   jmp  2b",
);

guest!(
    /// Every delivery mode to an ID that nobody has, physical and logical.
    ipi_to_nobody, bad_guest_nobody_start, bad_guest_nobody_end,
    "   mov  dword ptr [0xfee00310], 0xee000000",
    "2: mov ecx, 0x4040",
    "3: mov [0xfee00300], ecx",
    "   mov  eax, ecx",
    "   or   eax, 0x800",
    "   mov  dword ptr [0xfee00310], 0",
    "   mov  [0xfee00300], eax",
    "   mov  dword ptr [0xfee00310], 0xee000000",
    "   add  ecx, 0x100",
    "   cmp  ecx, 0x4840",
    "   jne  3b",
    "   jmp  2b",
);

guest!(
    /// Interrupts itself by the ICR's shorthand.
    self_ipi, bad_guest_self_start, bad_guest_self_end,
    "   sti",
    "2: mov dword ptr [0xfee00300], 0x44040",
    "   jmp  2b",
);

guest!(
    /// Interrupts itself by the self IPI register of x2APIC mode.
    self_ipi_x2apic, bad_guest_self2_start, bad_guest_self2_end,
    "   sti",
    "2: mov ecx, 0x83f",
    "   xor  edx, edx",
    "   mov  eax, 0x41",
    "   wrmsr",
    "   jmp  2b",
);

guest!(
    /// A periodic timer of no period, and of one tick; and halts in between.
    timer, bad_guest_timer_start, bad_guest_timer_end,
    "   mov  dword ptr [0xfee003e0], 0xb",
    "   mov  dword ptr [0xfee00320], 0x20050",
    "   sti",
    "   mov  dword ptr [0xfee00380], 0",
    "   mov  dword ptr [0xfee00380], 1",
    "2: hlt",
    "   jmp  2b",
);

guest!(
    /// A one-shot timer of one tick, again as soon as it has fired.
    timer_again, bad_guest_again_start, bad_guest_again_end,
    "   mov  dword ptr [0xfee003e0], 0xb",
    "   mov  dword ptr [0xfee00320], 0x50",
    "   sti",
    "2: mov dword ptr [0xfee00380], 0",
    "   mov  dword ptr [0xfee00380], 1",
    "   jmp  2b",
);

guest!(
    /// Vectors below 16: to itself, from the timer, of the spurious interrupt and of the
    /// interrupt that tells of such errors.
    low_vectors, bad_guest_low_start, bad_guest_low_end,
    "   sti",
    "2: xor ebx, ebx",
    "3: mov eax, 0x44000",
    "   or   eax, ebx",
    "   mov  [0xfee00300], eax",
    "   mov  [0xfee00370], ebx",
    "   mov  eax, ebx",
    "   or   eax, 0x100",
    "   mov  [0xfee000f0], eax",
    "   mov  eax, ebx",
    "   or   eax, 0x20000",
    "   mov  [0xfee00320], eax",
    "   mov  dword ptr [0xfee00380], 1",
    "   mov  dword ptr [0xfee00280], 0",
    "   mov  ecx, [0xfee00280]",
    "   inc  ebx",
    "   cmp  ebx, 16",
    "   jne  3b",
    "   jmp  2b",
);

guest!(
    /// Task priorities up and down over interrupts that wait, interrupts on and off.
    priorities, bad_guest_tpr_start, bad_guest_tpr_end,
    "2: xor ebx, ebx",
    "3: cli",
    "   mov  [0xfee00080], ebx",
    "   mov  eax, 0x44000",
    "   or   eax, ebx",
    "   or   eax, 0x10",
    "   mov  [0xfee00300], eax",
    "   sti",
    "   nop",
    "   mov  eax, 0xff",
    "   sub  eax, ebx",
    "   mov  [0xfee00080], eax",
    "   add  ebx, 7",
    "   and  ebx, 0xff",
    "   jmp  3b",
);

guest!(
    /// Turns its local APIC off, by software and by IA32_APIC_BASE, with interrupts that
    /// wait and a timer that runs, and on again.
    turned_off, bad_guest_off_start, bad_guest_off_end,
    "2: cli",
    "   mov  dword ptr [0xfee000f0], 0x1ff",
    "   mov  dword ptr [0xfee00320], 0x20050",
    "   mov  dword ptr [0xfee00380], 1",
    "   mov  dword ptr [0xfee00300], 0x44060",
    "   mov  dword ptr [0xfee00300], 0x440f1",
    "   mov  dword ptr [0xfee000f0], 0xff",
    "   sti",
    "   nop",
    "   cli",
    "   mov  dword ptr [0xfee000f0], 0x1ff",
    "   mov  dword ptr [0xfee00300], 0x44061",
    "   mov  ecx, 0x1b",
    "   rdmsr",
    "   and  eax, 0xfffff7ff",
    "   wrmsr",
    "   sti",
    "   nop",
    "   mov  dword ptr [0xfee00300], 0x44061",
    "   cli",
    "   or   eax, 0x800",
    "   wrmsr",
    "   jmp  2b",
);

guest!(
    /// Moves its local APIC's page through all of the address space, over RAM and the
    /// I/O APIC, and uses it there.
    moved_page, bad_guest_page_start, bad_guest_page_end,
    "   sti",
    "2: xor ebx, ebx",
    "3: mov ecx, 0x1b",
    "   xor  edx, edx",
    "   mov  eax, ebx",
    "   or   eax, 0x900",
    "   wrmsr",
    "   mov  dword ptr [ebx + 0xf0], 0x1ff",
    "   mov  dword ptr [ebx + 0xb0], 0",
    "   mov  eax, [ebx + 0x20]",
    // Beyond 32 bits, and beyond what addresses have.
    "   mov  eax, 0x900",
    "   mov  edx, 1",
    "   wrmsr",
    "   mov  edx, 0x80000000",
    "   wrmsr",
    "   xor  edx, edx",
    "   mov  eax, 0xfee00900",
    "   wrmsr",
    "   mov  dword ptr [0xfee00300], 0x44040",
    // Not over this code.
    "   add  ebx, 0xc00000",
    "   jnc  3b",
    "   jmp  2b",
);

guest!(
    /// Reads and writes every MSR from 0x800 to 0x8ff: with nothing, all ones, and each
    /// bit.
    all_msrs, bad_guest_msrs_start, bad_guest_msrs_end,
    "   sti",
    "2: mov esi, 0x800",
    "3: mov ecx, esi",
    "   rdmsr",
    "   xor  eax, eax",
    "   xor  edx, edx",
    "   wrmsr",
    "   not  eax",
    "   not  edx",
    "   wrmsr",
    "   mov  edi, 1",
    "4: mov eax, edi",
    "   xor  edx, edx",
    "   wrmsr",
    "   rdmsr",
    "   xor  eax, eax",
    "   mov  edx, edi",
    "   wrmsr",
    "   add  edi, edi",
    "   jnz  4b",
    "   inc  esi",
    "   cmp  esi, 0x900",
    "   jne  3b",
    "   jmp  2b",
);

guest!(
    /// With the test device: GSI 20, level-triggered, asserted for ever. Its interrupt
    /// comes again after each EOI; whether anything runs in between is no promise.
    stuck_line, bad_guest_stuck_start, bad_guest_stuck_end,
    // Redirection entry 20: vector 0x70, level-triggered, to APIC ID 0.
    "   mov  dword ptr [0xfec00000], 0x39",
    "   mov  dword ptr [0xfec00010], 0",
    "   mov  dword ptr [0xfec00000], 0x38",
    "   mov  dword ptr [0xfec00010], 0x8070",
    "   mov  dx, 0x2014",
    "   mov  al, 1",
    "   out  dx, al",
    "   sti",
    "2: hlt",
    "   jmp  2b",
);

guest!(
    /// In 64-bit mode: interrupts that wait behind CR8, which goes up and down; interrupts
    /// are off.
    cr8, bad_guest_cr8_start, bad_guest_cr8_end,
    ".code64",
    "   mov  ecx, 0x1b",
    "   rdmsr",
    "   or   eax, 0xc00",
    "   wrmsr",
    "   mov  ecx, 0x80f",
    "   mov  eax, 0x1ff",
    "   xor  edx, edx",
    "   wrmsr",
    "   mov  dx, 0x3f8",
    "   mov  al, 'u'",
    "   out  dx, al",
    "   mov  al, 'p'",
    "   out  dx, al",
    "2: mov ecx, 0x83f",
    "   xor  edx, edx",
    "   mov  eax, 0x41",
    "   wrmsr",
    "   mov  eax, 0xf1",
    "   wrmsr",
    "   mov  ebx, 15",
    "3: mov cr8, rbx",
    "   dec  ebx",
    "   jns  3b",
    "   jmp  2b",
    ".code32",
);
