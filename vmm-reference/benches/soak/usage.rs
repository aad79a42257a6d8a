//! What a process has of memory, descriptors and threads, and whether that grows.

use std::fs;

/// A process at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) memory_kib: u64,
    pub(crate) descriptors: u64,
    pub(crate) threads: u64,
}

impl Usage {
    /// None of a process that is gone.
    pub(crate) fn of(process: u32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_ascii_whitespace().next()?.parse().ok()
        };
        let open = fs::read_dir(format!("/proc/{process}/fd")).ok()?.count();
        Some(Self {
            memory_kib: number("VmRSS:")?,
            descriptors: u64::try_from(open).ok()?,
            threads: number("Threads:")?,
        })
    }

    /// Of each the less.
    fn least(self, other: Self) -> Self {
        Self {
            memory_kib: self.memory_kib.min(other.memory_kib),
            descriptors: self.descriptors.min(other.descriptors),
            threads: self.threads.min(other.threads),
        }
    }
}

/// What memory may grow by: the allocator's pages, and what is done for the first
/// time late.
pub(crate) const MEMORY_KIB: u64 = 512;

/// The samples of one process, in their order.
#[derive(Debug, Default)]
pub(crate) struct Samples(Vec<Usage>);

impl Samples {
    /// One more, of a process that is there.
    pub(crate) fn extend(&mut self, usage: Option<Usage>) {
        self.0.extend(usage);
    }

    /// The least of the second quarter and of the last. What is there for a while
    /// only, such as a client's descriptor, is not in the least; what is never given
    /// back is. The first quarter is what a process needs to come up.
    pub(crate) fn ends(&self) -> Option<(Usage, Usage)> {
        let quarter = self.0.len() / 4;
        let least = |of: Option<&[Usage]>| of?.iter().copied().reduce(Usage::least);
        let early = least(self.0.get(quarter..quarter * 2))?;
        let late = least(self.0.get(quarter * 3..))?;
        Some((early, late))
    }

    /// What has grown, in words.
    pub(crate) fn growth(&self) -> Option<String> {
        let (early, late) = self.ends()?;
        let grown = |what: &str, from: u64, to: u64, allowed: u64| {
            (to > from.saturating_add(allowed)).then(|| format!("{what}: from {from} to {to}"))
        };
        grown("descriptors", early.descriptors, late.descriptors, 0)
            .or_else(|| grown("threads", early.threads, late.threads, 0))
            .or_else(|| grown("KiB", early.memory_kib, late.memory_kib, MEMORY_KIB))
    }
}

/// Processes whose parent is `parent`, with their command lines.
pub(crate) fn children(parent: u32) -> Vec<(u32, String)> {
    let parent = parent.to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(id) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // proc(5): the name in parentheses, the state, the parent.
        let Some((_, rest)) = stat.rsplit_once(')') else {
            continue;
        };
        if rest.split_ascii_whitespace().nth(1) == Some(parent.as_str()) {
            let line = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
            found.push((id, line.trim_end_matches('\0').replace('\0', " ")));
        }
    }
    found
}
