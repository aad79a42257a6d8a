//! Guests for tests: 32-bit multiboot programs, assembled here.
//!
//! Each is a flat image for 0x100000 whose first 32 bytes are its multiboot
//! header; [`elf`] puts the same code into an ELF file instead. They use integer
//! instructions only, so that KVM's emulator runs them too.

#![expect(
    unsafe_code,
    reason = "machine code is assembled here and its bytes are taken by symbol"
)]

use core::arch::global_asm;

/// Where the images go, and behind the header the entry.
const LOAD: u32 = 0x10_0000;
const HEADER: u32 = 32;

macro_rules! guest {
    ($(#[$about:meta])* $name:ident, $start:ident, $end:ident, $($line:literal),+ $(,)?) => {
        global_asm!(
            ".pushsection .rodata.test_guests, \"a\"",
            ".code32",
            concat!(stringify!($start), ":"),
            $($line,)+
            concat!(stringify!($end), ":"),
            ".code64",
            ".popsection",
        );
        $(#[$about])*
        pub(crate) fn $name() -> Vec<u8> {
            unsafe extern "C" {
                static $start: u8;
                static $end: u8;
            }
            let (start, end) = (&raw const $start, &raw const $end);
            let len = end as usize - start as usize;
            // SAFETY: both symbols delimit `len` bytes of this program's
            // read-only data, which live as long as it does.
            unsafe { core::slice::from_raw_parts(start, len) }.to_vec()
        }
    };
}

guest!(
    /// Prints its command line, a colon, its module's content and a newline on
    /// COM1, then writes 3 to the exit port; 1 if it was not started by a
    /// multiboot loader, 2 without exactly one module.
    module_printer, test_guest_module_start, test_guest_module_end,
    "   cmp  eax, 0x2badb002",
    "   mov  al, 1",
    "   jne  2f",
    // flags, bit 2: command line; bit 3: modules.
    "   mov  eax, [ebx]",
    "   and  eax, 0xc",
    "   cmp  eax, 0xc",
    "   mov  al, 2",
    "   jne  2f",
    "   cmp  dword ptr [ebx + 20], 1",
    "   jne  2f",
    // The command line up to its NUL, as a driver does it: wait for the
    // transmitter (line status, bit 5), then the byte.
    "   mov  esi, [ebx + 16]",
    "5: lodsb",
    "   test al, al",
    "   jz   7f",
    "   mov  cl, al",
    "   mov  dx, 0x3fd",
    "6: in   al, dx",
    "   test al, 0x20",
    "   jz   6b",
    "   mov  al, cl",
    "   mov  dx, 0x3f8",
    "   out  dx, al",
    "   jmp  5b",
    "7: mov al, ':'",
    "   mov  dx, 0x3f8",
    "   out  dx, al",
    // The module has no NUL: print it up to its end.
    "   mov  edi, [ebx + 24]",
    "   mov  esi, [edi]",
    "   mov  edi, [edi + 4]",
    "1: cmp esi, edi",
    "   jae  3f",
    "   lodsb",
    "   out  dx, al",
    "   jmp  1b",
    "3: mov al, 10",
    "   out  dx, al",
    "   mov  al, 3",
    "2: out 0xf4, al",
    "4: hlt",
    "   jmp  4b",
);

guest!(
    /// Prints "up", then reads COM1 and prints back what it reads, for ever.
    echo, test_guest_echo_start, test_guest_echo_end,
    "   mov  dx, 0x3f8",
    "   mov  al, 'u'",
    "   out  dx, al",
    "   mov  al, 'p'",
    "   out  dx, al",
    "1: mov dx, 0x3fd",
    "   in   al, dx",
    "   test al, 1",
    "   jz   1b",
    "   mov  dx, 0x3f8",
    "   in   al, dx",
    "   out  dx, al",
    "   jmp  1b",
);

guest!(
    /// Prints "up" and halts for ever with interrupts off.
    dead_halt, test_guest_halt_start, test_guest_halt_end,
    "   mov  dx, 0x3f8",
    "   mov  al, 'u'",
    "   out  dx, al",
    "   mov  al, 'p'",
    "   out  dx, al",
    "   cli",
    "1: hlt",
    "   jmp  1b",
);

guest!(
    /// Prints "up" and halts for ever with interrupts off; each time that it is
    /// woken, by a kick, it prints "k" and whatever COM1 has received.
    woken, test_guest_woken_start, test_guest_woken_end,
    "   cli",
    "   mov  dx, 0x3f8",
    "   mov  al, 'u'",
    "   out  dx, al",
    "   mov  al, 'p'",
    "   out  dx, al",
    "1: hlt",
    "   mov  dx, 0x3f8",
    "   mov  al, 'k'",
    "   out  dx, al",
    "2: mov  dx, 0x3fd",
    "   in   al, dx",
    "   test al, 1",
    "   jz   1b",
    "   mov  dx, 0x3f8",
    "   in   al, dx",
    "   out  dx, al",
    "   jmp  2b",
);

guest!(
    /// Prints "up" and loops in registers for ever.
    spin, test_guest_spin_start, test_guest_spin_end,
    "   mov  dx, 0x3f8",
    "   mov  al, 'u'",
    "   out  dx, al",
    "   mov  al, 'p'",
    "   out  dx, al",
    "1: pause",
    "   jmp  1b",
);

guest!(
    /// Prints without end.
    flood, test_guest_flood_start, test_guest_flood_end,
    "   mov  dx, 0x3f8",
    "   mov  al, 'x'",
    "1: out dx, al",
    "   jmp  1b",
);

guest!(
    /// Reads and writes every port (but writes none that ends the VM) in bytes,
    /// words and dwords, then loads and stores in every page of the hole for
    /// devices that is the VMM's, and ends with code 0.
    toucher, test_guest_toucher_start, test_guest_toucher_end,
    "   xor  edx, edx",
    "1: in al, dx",
    "   in   ax, dx",
    "   in   eax, dx",
    "   cmp  edx, 0xf4",
    "   je   2f",
    "   mov  eax, 0x5a5a5a5a",
    "   out  dx, al",
    "   out  dx, ax",
    "   out  dx, eax",
    "2: inc edx",
    "   cmp  edx, 0x10000",
    "   jne  1b",
    "   mov  edi, 0xc0000000",
    "3: mov eax, [edi]",
    "   mov  [edi], al",
    "   mov  [edi + 2], ax",
    "   mov  [edi + 4], eax",
    "   add  edi, 0x10000",
    "   cmp  edi, 0xfec00000",
    "   jb   3b",
    "   xor  eax, eax",
    "   out  0xf4, al",
    "4: hlt",
    "   jmp  4b",
);

guest!(
    /// No interrupt table, and an invalid instruction.
    triple_fault, test_guest_triple_start, test_guest_triple_end,
    "   mov  ecx, 0x1234abcd",
    "   push 0",
    "   push 0",
    "   mov  esp, 0x100800",
    "   mov  dword ptr [esp], 0",
    "   mov  dword ptr [esp + 4], 0",
    "   lidt [esp]",
    "   ud2",
);

guest!(
    /// Kicks itself by the doorbell port and halts on it 1,000 times, prints
    /// "k", then kicks itself and everyone without end.
    kicker, test_guest_kicker_start, test_guest_kicker_end,
    "   mov  edi, 1000",
    "1: mov eax, 5",
    "   xor  ebx, ebx",
    "   xor  ecx, ecx",
    "   out  0xe5, eax",
    "   hlt",
    "   dec  edi",
    "   jnz  1b",
    "   mov  dx, 0x3f8",
    "   mov  al, 'k'",
    "   out  dx, al",
    "2: mov eax, 5",
    "   xor  ecx, ecx",
    "   out  0xe5, eax",
    "   mov  eax, 5",
    "   mov  ecx, 0xff",
    "   out  0xe5, eax",
    "   jmp  2b",
);

guest!(
    /// Writes noise to registers of the local APIC and of the I/O APIC, and reads
    /// them, for ever; but for the interrupt command, by which it would reset
    /// itself. The timer is started periodic with a count of 1. Prints after 256.
    apic_noise, test_guest_apic_noise_start, test_guest_apic_noise_end,
    "   mov  ebx, 0xfee00000",
    "   mov  dword ptr [ebx + 0xf0], 0x1ff",
    "   mov  dword ptr [ebx + 0x320], 0x20040",
    "   mov  dword ptr [ebx + 0x380], 1",
    "   mov  edi, 256",
    "   mov  eax, 12345",
    "1: imul eax, eax, 1103515245",
    "   add  eax, 12345",
    "   mov  esi, eax",
    "   shr  esi, 12",
    "   and  esi, 0xffc",
    "   cmp  esi, 0x300",
    "   je   1b",
    "   mov  [ebx + esi], eax",
    "   mov  ecx, [ebx + esi]",
    "   mov  [0xfec00000], eax",
    "   mov  [0xfec00010], eax",
    "   mov  ecx, [0xfec00010]",
    "   dec  edi",
    "   jnz  1b",
    "   mov  edx, 0x3f8",
    "   mov  ecx, eax",
    "   mov  al, 'n'",
    "   out  dx, al",
    "   mov  eax, ecx",
    "   mov  edi, 256",
    "   jmp  1b",
);

guest!(
    /// Ports and MMIO by `rep ins`, `rep outs` and `rep movs`, in bytes, words and
    /// dwords. Writes 0 to the exit port if each element was its own, else the
    /// number of the check that failed.
    strings, test_guest_strings_start, test_guest_strings_end,
    "   cld",
    "   mov  ebp, 0x200000",
    // 1: the status of the keyboard controller, 0, 32 times.
    "   mov  ebx, 1",
    "   mov  edx, 0x64",
    "   mov  edi, ebp",
    "   mov  ecx, 32",
    "   rep  insb",
    "   mov  esi, ebp",
    "   mov  ecx, 32",
    "1: lodsb",
    "   test al, al",
    "   jnz  9f",
    "   dec  ecx",
    "   jnz  1b",
    // 2: in words; nothing answers for the upper byte.
    "   mov  ebx, 2",
    "   mov  edi, ebp",
    "   mov  ecx, 32",
    "   rep  insw",
    "   mov  esi, ebp",
    "   mov  ecx, 32",
    "2: lodsw",
    "   cmp  ax, 0xff00",
    "   jne  9f",
    "   dec  ecx",
    "   jnz  2b",
    // 3: in dwords.
    "   mov  ebx, 3",
    "   mov  edi, ebp",
    "   mov  ecx, 32",
    "   rep  insd",
    "   mov  esi, ebp",
    "   mov  ecx, 32",
    "3: lodsd",
    "   cmp  eax, 0xffffff00",
    "   jne  9f",
    "   dec  ecx",
    "   jnz  3b",
    // 4: a port that nothing answers.
    "   mov  ebx, 4",
    "   mov  edx, 0x1234",
    "   mov  edi, ebp",
    "   mov  ecx, 32",
    "   rep  insd",
    "   mov  esi, ebp",
    "   mov  ecx, 32",
    "4: lodsd",
    "   cmp  eax, 0xffffffff",
    "   jne  9f",
    "   dec  ecx",
    "   jnz  4b",
    // 5: MMIO that nothing answers, in bytes, words and dwords, onto zeroes.
    "   mov  ebx, 5",
    "   mov  edi, ebp",
    "   mov  ecx, 64",
    "   xor  eax, eax",
    "   rep  stosd",
    "   mov  edi, ebp",
    "   mov  esi, 0xc0000000",
    "   mov  ecx, 8",
    "   rep  movsb",
    "   mov  ecx, 8",
    "   rep  movsw",
    "   mov  ecx, 8",
    "   rep  movsd",
    "   mov  ecx, 14",
    "   mov  esi, ebp",
    "5: lodsd",
    "   cmp  eax, 0xffffffff",
    "   jne  9f",
    "   dec  ecx",
    "   jnz  5b",
    "   lodsd",
    "   test eax, eax",
    "   jnz  9f",
    // Stores there go nowhere.
    "   mov  edi, 0xc0000000",
    "   mov  esi, ebp",
    "   mov  ecx, 8",
    "   rep  movsb",
    "   mov  ecx, 8",
    "   rep  movsd",
    // What COM1 has received, once it says that there is something: 16 bytes that
    // came at once. And back, all at once.
    "   mov  edx, 0x3f8",
    "   mov  al, '?'",
    "   out  dx, al",
    "   mov  edx, 0x3fd",
    "6: in   al, dx",
    "   test al, 1",
    "   jz   6b",
    "   mov  edx, 0x3f8",
    "   mov  edi, ebp",
    "   mov  ecx, 16",
    "   rep  insb",
    "   mov  esi, ebp",
    "   mov  ecx, 16",
    "   rep  outsb",
    "   xor  ebx, ebx",
    "9: mov  al, bl",
    "   out  0xf4, al",
    "8: hlt",
    "   jmp  8b",
);

guest!(
    /// Prints 32,768 bytes, "0123456789abcdef" again and again, and writes 0 to the
    /// exit port.
    talker, test_guest_talker_start, test_guest_talker_end,
    "   mov  edx, 0x3f8",
    "   xor  ecx, ecx",
    "1: mov  eax, ecx",
    "   and  al, 15",
    "   add  al, '0'",
    "   cmp  al, '9'",
    "   jbe  2f",
    "   add  al, 'a' - '0' - 10",
    "2: out  dx, al",
    "   inc  ecx",
    "   cmp  ecx, 32768",
    "   jne  1b",
    "   xor  eax, eax",
    "   out  0xf4, al",
    "3: hlt",
    "   jmp  3b",
);

guest!(
    /// Resets the machine by the keyboard controller, once that is ready.
    resetter, test_guest_reset_start, test_guest_reset_end,
    "1: in al, 0x64",
    "   test al, 2",
    "   jnz  1b",
    "   mov  al, 0xfe",
    "   out  0x64, al",
    "2: hlt",
    "   jmp  2b",
);

guest!(
    /// Turns the machine off by ACPI.
    power_off, test_guest_off_start, test_guest_off_end,
    "   mov  dx, 0x604",
    "   mov  ax, 0x3400",
    "   out  dx, ax",
    "2: hlt",
    "   jmp  2b",
);

guest!(
    /// Starts every other vCPU by INIT and SIPI to all, waits until as many have
    /// come up as the command line says in decimal, prints "up" and halts. Each
    /// counts itself in real mode and halts. In x2APIC mode, so that IDs beyond
    /// 8 bits are heard too.
    smp, test_guest_smp_start, test_guest_smp_end,
    // The command line, into EBP.
    "   mov  esi, [ebx + 16]",
    "   xor  ebp, ebp",
    "1: movzx eax, byte ptr [esi]",
    "   inc  esi",
    "   sub  eax, '0'",
    "   jb   2f",
    "   imul ebp, ebp, 10",
    "   add  ebp, eax",
    "   jmp  1b",
    // What the others run, in 16-bit code at 0x6000: lock inc word ptr [0x5000];
    // cli; hlt; and back to the hlt.
    "2: mov dword ptr [0x5000], 0",
    "   mov  dword ptr [0x6000], 0x0006fff0",
    "   mov  dword ptr [0x6004], 0xebf4fa50",
    "   mov  byte ptr [0x6008], 0xfd",
    // IA32_APIC_BASE: on, x2APIC.
    "   mov  ecx, 0x1b",
    "   rdmsr",
    "   or   eax, 0xc00",
    "   wrmsr",
    // ICR: all but self; INIT, then SIPI with vector 6.
    "   mov  ecx, 0x830",
    "   xor  edx, edx",
    "   mov  eax, 0xc4500",
    "   wrmsr",
    "   mov  eax, 0xc4606",
    "   wrmsr",
    "3: pause",
    "   cmp  [0x5000], bp",
    "   jne  3b",
    "   mov  dx, 0x3f8",
    "   mov  al, 'u'",
    "   out  dx, al",
    "   mov  al, 'p'",
    "   out  dx, al",
    "   cli",
    "4: hlt",
    "   jmp  4b",
);

/// A flat multiboot image of `code`.
pub(crate) fn flat(code: &[u8]) -> Vec<u8> {
    flat_at(LOAD, code)
}

/// The same for this address, for code that does not care.
pub(crate) fn flat_at(load: u32, code: &[u8]) -> Vec<u8> {
    let entry = load + HEADER;
    // Page-aligned modules, memory information, addresses.
    let mut image = header(1 << 16 | 3);
    for address in [load, load, 0, 0, entry] {
        image.extend(address.to_le_bytes());
    }
    assert_eq!(image.len(), HEADER as usize);
    image.extend(code);
    image
}

/// Magic, flags, checksum.
fn header(flags: u32) -> Vec<u8> {
    let magic = 0x1bad_b002u32;
    let sum = 0u32.wrapping_sub(magic).wrapping_sub(flags);
    [magic, flags, sum]
        .iter()
        .flat_map(|w| w.to_le_bytes())
        .collect()
}

/// A 32-bit ELF file of `code` with a multiboot header, linked at 0xc0100000
/// and loaded at 0x100000, as kernels are.
pub(crate) fn elf(code: &[u8]) -> Vec<u8> {
    elf_of(code, 0xc000_0000, false)
}

/// A 32-bit ELF file as `ld -Ttext 0x100000` makes it: its headers are part of the
/// segment, and lie in memory before the code, below 1 MiB.
pub(crate) fn elf_with_headers(code: &[u8]) -> Vec<u8> {
    elf_of(code, 0, true)
}

/// Linked this far above where it lies; with its headers in its segment or not.
fn elf_of(code: &[u8], virtual_offset: u32, headers: bool) -> Vec<u8> {
    let header = header(3);
    let offset = if headers { 0x1000 } else { 0x100u32 };
    let header_bytes = u32::try_from(header.len()).unwrap();
    let size = header_bytes + u32::try_from(code.len()).unwrap();
    let entry = virtual_offset + LOAD + header_bytes;
    let before = if headers { offset } else { 0 };
    let mut image = b"\x7fELF\x01\x01\x01".to_vec();
    image.resize(16, 0);
    // Executable, 80386, version 1.
    for half in [2u16, 3] {
        image.extend(half.to_le_bytes());
    }
    for word in [1, entry, 52, 0, 0] {
        image.extend(u32::to_le_bytes(word));
    }
    for half in [52u16, 32, 1, 0, 0, 0] {
        image.extend(half.to_le_bytes());
    }
    // One program header: PT_LOAD, with room for a .bss.
    for word in [
        1,
        offset - before,
        virtual_offset + LOAD - before,
        LOAD - before,
        size + before,
        size + before + 0x1000,
        7,
        0x1000,
    ] {
        image.extend(u32::to_le_bytes(word));
    }
    image.resize(offset as usize, 0);
    image.extend(header);
    image.extend(code);
    image
}

/// The header of a 64-bit ELF file of no segments, entered at 0x100000: what
/// the smallest possible vmlinux looks like.
pub(crate) fn vmlinux() -> Vec<u8> {
    let mut image = b"\x7fELF\x02\x01\x01".to_vec();
    image.resize(16, 0);
    // Executable, x86-64; version, entry, program headers behind this one, none
    // of 56 bytes.
    for half in [2u16, 62] {
        image.extend(half.to_le_bytes());
    }
    image.extend(1u32.to_le_bytes());
    for double in [u64::from(LOAD), 64, 0] {
        image.extend(double.to_le_bytes());
    }
    image.extend(0u32.to_le_bytes());
    for half in [64u16, 56, 0, 0, 0, 0] {
        image.extend(half.to_le_bytes());
    }
    assert_eq!(image.len(), 64);
    image
}

/// A 64-bit ELF file of `code`, a vmlinux that does not use what it is handed.
pub(crate) fn elf64(code: &[u8]) -> Vec<u8> {
    const OFFSET: usize = 0x1000;
    let mut image = vmlinux();
    // The number of program headers, at 56, and two fields behind it.
    image.truncate(56);
    for half in [1u16, 0, 0, 0] {
        image.extend(half.to_le_bytes());
    }
    // PT_LOAD, executable.
    for word in [1u32, 7] {
        image.extend(word.to_le_bytes());
    }
    let (at, size) = (u64::from(LOAD), code.len() as u64);
    for double in [OFFSET as u64, at, at, size, size, 0x1000] {
        image.extend(double.to_le_bytes());
    }
    image.resize(OFFSET, 0);
    image.extend(code);
    image
}
