//! Where the two threads run.
#![expect(unsafe_code, reason = "std cannot pin a thread to a CPU")]

/// Where the two threads run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Each on a CPU of its own.
    Apart,
    /// Both on one CPU.
    Together,
    /// Wherever the scheduler puts them.
    Free,
}

impl Place {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        match name {
            "apart" => Some(Self::Apart),
            "together" => Some(Self::Together),
            "free" => Some(Self::Free),
            _ => None,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Apart => "apart",
            Self::Together => "together",
            Self::Free => "free",
        }
    }

    /// Pins the calling thread, number 0 or 1.
    pub(crate) fn pin(self, thread: usize) {
        let which = match self {
            Self::Free => return,
            Self::Together => 0,
            Self::Apart => thread,
        };
        let cpus = cpus();
        let Some(&cpu) = cpus.get(which) else {
            panic!("{} CPUs are needed, {} may be used", which + 1, cpus.len());
        };
        // SAFETY: all zero bits are an empty set, and a valid cpu_set_t.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: `cpu` came out of a set of this size, so it is within it.
        unsafe { libc::CPU_SET(cpu, &mut set) };
        // SAFETY: the set is a live local of the size that is passed with it.
        let failed = unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) };
        assert_eq!(failed, 0, "{}", std::io::Error::last_os_error());
    }
}

/// The CPUs that this process may use, as found by its first thread.
fn cpus() -> &'static [usize] {
    static CPUS: std::sync::OnceLock<Vec<usize>> = std::sync::OnceLock::new();
    CPUS.get_or_init(|| {
        // SAFETY: all zero bits are an empty set, and a valid cpu_set_t.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: getpid has no preconditions.
        let process = unsafe { libc::getpid() };
        // SAFETY: the set is a live local of the size that is passed with it.
        let failed = unsafe { libc::sched_getaffinity(process, size_of_val(&set), &raw mut set) };
        assert_eq!(failed, 0, "{}", std::io::Error::last_os_error());
        let bits = 8 * size_of_val(&set);
        (0..bits)
            // SAFETY: `cpu` is below the number of bits in the set.
            .filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) })
            .collect()
    })
}
