//! A VM that lives as long as the soak: its guest is woken and given letters to
//! print, while its operator does everything else to it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use oorandom::Rand32;
use rustix::process::Signal;

use crate::client::{BadClients, LIMIT, ask};
use crate::common::{Patience, Process, run, signal, spawn, vmm, wait};
use crate::heard::{Expected, Heard, MARK, letter};
use crate::usage::{Samples, Usage};
use crate::watch::{Fault, Watch};

/// What a resident runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) image: fn() -> Vec<u8>,
    pub(crate) arguments: &'static [&'static str],
    pub(crate) expected: Expected,
}

impl Kind {
    /// It halts until it is woken, and prints what it is given.
    fn is_woken(self) -> bool {
        self.expected == Expected::Letters
    }
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Resident {
    pub(crate) kind: Kind,
    socket: PathBuf,
    snapshot: PathBuf,
    process: Mutex<Process>,
    pub(crate) id: u32,
    stdin: Mutex<Option<ChildStdin>>,
    heard: Arc<Heard>,
    /// Lines on standard error.
    said: Arc<Mutex<Vec<String>>>,
    /// At moments when no client is there.
    samples: Mutex<Samples>,
}

const WAKE: &str = r#"{"request":"kick","apic_id":0}"#;

impl Resident {
    pub(crate) fn start(kind: Kind, watch: &Watch) -> Result<Self, Fault> {
        let kernel = watch.path(&format!("{}.kernel", kind.name));
        std::fs::write(&kernel, (kind.image)()).map_err(|e| e.to_string())?;
        let mut command = run(&kernel);
        command.args(kind.arguments);
        Self::spawn(kind, command, watch, kind.name)
    }

    /// What was saved, in a process of its own.
    fn restored(&self, watch: &Watch) -> Result<Self, Fault> {
        let kind = Kind {
            expected: Expected::Copy,
            ..self.kind
        };
        let mut command = vmm(&["run", "--restore"]);
        command.arg(&self.snapshot);
        Self::spawn(kind, command, watch, &format!("{}.copy", kind.name))
    }

    fn spawn(
        kind: Kind,
        mut command: std::process::Command,
        watch: &Watch,
        name: &str,
    ) -> Result<Self, Fault> {
        let socket = watch.path(&format!("{name}.socket"));
        command
            .env("TMPDIR", &watch.dir)
            .arg("--control")
            .arg(&socket)
            // It ends when the soak does, however that ends; one that is stopped by a
            // signal at that moment ends once it is continued.
            .args(["--parent", &std::process::id().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut process = spawn(&mut command);
        let (Some(stdin), Some(out), Some(err)) = (
            process.stdin.take(),
            process.stdout.take(),
            process.stderr.take(),
        ) else {
            return Err("no pipes".to_string());
        };
        let said: Arc<Mutex<Vec<String>>> = Arc::default();
        let lines = Arc::clone(&said);
        std::thread::spawn(move || {
            for line in BufReader::new(err).lines().map_while(Result::ok) {
                lines
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(line);
            }
        });
        let resident = Self {
            kind,
            socket,
            snapshot: watch.path(&format!("{name}.snapshot")),
            id: process.id(),
            process: Mutex::new(process),
            stdin: Mutex::new(Some(stdin)),
            heard: Heard::listen(out, kind.expected),
            said,
            samples: Mutex::default(),
        };
        // Its loop serves: it is up.
        ask(&resident.socket, r#"{"request":"status"}"#)
            .map_err(|e| format!("{name} does not come up: {e}; {:?}", resident.said()))?;
        Ok(resident)
    }

    fn said(&self) -> Vec<String> {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.clone()
    }

    fn signal(&self, which: Signal) {
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        signal(&process, which);
    }

    fn give(&self, bytes: &[u8]) -> Result<(), Fault> {
        let mut stdin = self.stdin.lock().unwrap_or_else(PoisonError::into_inner);
        match stdin.as_mut().map(|stdin| stdin.write_all(bytes)) {
            Some(Ok(())) => Ok(()),
            Some(Err(e)) => Err(format!("its standard input: {e}")),
            None => Err("its standard input is closed".to_string()),
        }
    }

    /// One kick, and that it wakes the guest.
    fn wake(&self) -> Result<(), Fault> {
        let before = self.heard.counts().woken;
        let answer = ask(&self.socket, WAKE)?;
        if answer["delivered"] != true {
            return Err(format!("a kick: {answer}"));
        }
        match self.heard.until(LIMIT, |counts| counts.woken > before) {
            true => Ok(()),
            false => Err(format!(
                "a kick was lost: the guest, woken {before} times before, has not been in {LIMIT:?}"
            )),
        }
    }

    /// The guest's side: letters and kicks, for as long as the soak goes on.
    pub(crate) fn converse(&self, watch: &Watch) -> Result<(), Fault> {
        let mut random = Rand32::new(u64::from(self.id));
        let (mut given, mut looked) = (0, 0);
        while !watch.is_over() {
            if let Some(wrong) = self.heard.wrong() {
                return Err(wrong);
            }
            if self.kind.is_woken() {
                let letters: Vec<u8> = (0..random.rand_range(0..200))
                    .map(|n| letter(given + u64::from(n)))
                    .collect();
                self.give(&letters)?;
                given += letters.len() as u64;
                self.finish_letters(given)?;
                watch.done("letters and kicks");
            } else {
                let moved = |before| self.heard.until(LIMIT, |counts| counts.bytes > before);
                if !moved(looked) {
                    return Err(format!("it has printed {looked} bytes, and stands still"));
                }
                looked = self.heard.counts().bytes;
            }
            watch.sleep(Duration::from_millis(u64::from(random.rand_range(0..20))));
        }
        if self.kind.is_woken() {
            self.finish_letters(given)?;
        }
        Ok(())
    }

    /// Kicks until so many letters have come.
    fn finish_letters(&self, given: u64) -> Result<(), Fault> {
        let mut patience = Patience::new(LIMIT);
        while self.heard.counts().letters < given {
            self.wake()?;
            if patience.is_over() {
                let letters = self.heard.counts().letters;
                return Err(format!("given {given} letters, printed {letters}"));
            }
        }
        Ok(())
    }

    /// The operator's side.
    pub(crate) fn operate(&self, watch: &Watch) -> Result<(), Fault> {
        let mut random = Rand32::new(u64::from(self.id) + 1);
        let mut clients = BadClients::default();
        let mut exits = 0;
        if self.kind.is_woken() {
            // What needs memory when it is done for the first time.
            self.save_and_restore(watch, &mut random)?;
        }
        while !watch.is_over() {
            match random.rand_range(0..14) {
                0..3 => self.pause(watch, &mut random)?,
                12.. => {
                    clients = BadClients::default();
                    self.sample(watch);
                }
                3..5 => {
                    let stats = ask(&self.socket, r#"{"request":"stats"}"#)?;
                    if stats["unclaimed"] != 0 {
                        return Err(format!("accesses that nothing answered: {stats}"));
                    }
                    let now = stats["vmm"]["exit_pio"].as_u64().unwrap_or(0);
                    if now < exits {
                        return Err(format!("exit_pio went from {exits} to {now}"));
                    }
                    exits = now;
                    watch.done("stats");
                }
                5 => {
                    self.signal(Signal::STOP);
                    watch.sleep(Duration::from_millis(random.rand_range(0..300).into()));
                    self.signal(Signal::CONT);
                    watch.done("SIGSTOP");
                }
                6 => {
                    let before = self.said().len();
                    self.signal(Signal::USR1);
                    let mut patience = Patience::new(LIMIT);
                    while self.said().len() == before {
                        if patience.is_over() {
                            return Err("SIGUSR1 brought no line".to_string());
                        }
                        std::thread::sleep(Duration::from_millis(10));
                    }
                    watch.done("SIGUSR1");
                }
                7 if self.kind.is_woken() => self.save_and_restore(watch, &mut random)?,
                _ => {
                    let what = clients.add(&self.socket, &mut random)?;
                    watch.done(what);
                }
            }
            watch.sleep(Duration::from_millis(random.rand_range(0..200).into()));
        }
        Ok(())
    }

    /// What the process has, without clients.
    fn sample(&self, watch: &Watch) {
        // For it to see that they are gone. If it does not in time, a sample is too
        // large, and the least ones count.
        watch.sleep(Duration::from_millis(50));
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        // One that is gone is a fault that is found elsewhere.
        samples.extend(Usage::of(self.id));
        watch.done("looks at memory, descriptors, threads");
    }

    /// What it had in the second quarter, and in the last.
    pub(crate) fn usage(&self) -> Option<(Usage, Usage)> {
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        samples.ends()
    }

    /// What has grown, if anything has.
    pub(crate) fn growth(&self) -> Option<String> {
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        samples.growth()
    }

    fn pause(&self, watch: &Watch, random: &mut Rand32) -> Result<(), Fault> {
        match ask(&self.socket, r#"{"request":"pause"}"#) {
            Ok(_) => {
                let status = ask(&self.socket, r#"{"request":"status"}"#)?;
                let states = status["vcpus"].as_array();
                if !states.is_some_and(|all| all.iter().all(|state| state == "paused")) {
                    return Err(format!("paused, and {status}"));
                }
                watch.sleep(Duration::from_millis(random.rand_range(0..100).into()));
                watch.done("pause and resume");
            }
            // A vCPU that waits for the reader of its output can't.
            Err(_) if !self.kind.is_woken() => watch.done("pause refused"),
            Err(e) => return Err(e),
        }
        ask(&self.socket, r#"{"request":"resume"}"#).map(|_| ())
    }

    fn save_and_restore(&self, watch: &Watch, random: &mut Rand32) -> Result<(), Fault> {
        let path = self.snapshot.display().to_string();
        let request = serde_json::json!({"request": "snapshot", "path": path});
        ask(&self.socket, &request.to_string())?;
        let copy = self.restored(watch)?;
        let outcome = (|| {
            copy.give(&[MARK])?;
            let mut patience = Patience::new(LIMIT);
            while copy.heard.counts().marks == 0 {
                copy.wake()?;
                if patience.is_over() {
                    return Err("its guest does not print what it is given".to_string());
                }
            }
            match random.rand_range(0..3) {
                0 => {
                    // Its socket is left, and the next one takes its place.
                    copy.signal(Signal::KILL);
                    copy.ended(None)?;
                    watch.done("snapshot, restore, SIGKILL");
                }
                1 => {
                    ask(&copy.socket, r#"{"request":"stop"}"#)?;
                    copy.ended(Some(0))?;
                    watch.done("snapshot, restore, stop");
                }
                _ => {
                    copy.signal(Signal::TERM);
                    copy.ended(Some(0))?;
                    watch.done("snapshot, restore, SIGTERM");
                }
            }
            copy.heard.wrong().map_or(Ok(()), Err)
        })();
        outcome.map_err(|e| format!("restored: {e}; {:?}", copy.said()))
    }

    /// It ends, with this status.
    fn ended(&self, status: Option<i32>) -> Result<(), Fault> {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        match wait(&mut process, LIMIT) {
            Some(ended) if ended.code() == status => Ok(()),
            Some(ended) => Err(format!("it ended: {ended}; {:?}", self.said())),
            None => Err(format!("it did not end in {LIMIT:?}")),
        }
    }

    /// Ends it by SIGTERM, and looks at all that it has left.
    pub(crate) fn end(&self) -> Result<(), Fault> {
        self.signal(Signal::TERM);
        self.ended(Some(0))?;
        if !self.heard.until(LIMIT, |counts| counts.over) {
            return Err("its output has no end".to_string());
        }
        if exists(&self.socket) {
            return Err("its socket's file is left".to_string());
        }
        let said = self.said();
        // On a loaded host KVM may take longer to take a VM down than an orderly end has:
        // the end by force is there for that. It is told, and no fault.
        let by_force = |line: &&String| line.ends_with(": ended by force");
        if let Some(line) = said.iter().find(by_force) {
            eprintln!("soak: VM \"{}\": {line}", self.kind.name);
        }
        let strange = said
            .iter()
            .find(|line| !line.starts_with("vmm-reference: stats: ") && !by_force(line));
        if let Some(line) = strange {
            return Err(format!("it said: {line}"));
        }
        self.heard.wrong().map_or(Ok(()), Err)
    }
}

fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
