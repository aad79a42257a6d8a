//! From rows to programs of the kernel's filter machine, by seccompiler.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};

use super::call::{Call, Number, When};
use super::request::Request;
use super::{JailError, ThreadKind, filters};

/// The two programs of a kind. The kernel runs both on each system call, and what
/// is stricter counts: ending by SIGSYS, then failing, then allowing.
#[derive(Clone, Debug)]
pub(super) struct Programs {
    /// Lets some calls fail and all others pass. First, as the other one takes the
    /// system call away that installs programs.
    fails: BpfProgram,
    /// Lets what is in a row pass, and ends the process at all others.
    allows: BpfProgram,
}

impl Programs {
    /// For the calling thread, and those that it will start.
    pub(super) fn install(&self) -> Result<(), JailError> {
        for program in [&self.fails, &self.allows] {
            apply_filter(program).map_err(|e| JailError::Refused {
                what: "install a seccomp filter",
                why: e.to_string(),
            })?;
        }
        Ok(())
    }
}

/// The programs of this kind, made at their first use.
pub(super) fn of(kind: ThreadKind) -> Result<&'static Programs, JailError> {
    static PROGRAMS: [OnceLock<Result<Programs, JailError>>; ThreadKind::ALL.len()] =
        [const { OnceLock::new() }; ThreadKind::ALL.len()];
    let wrong = |why: String| JailError::Filter {
        kind: kind.name(),
        why,
    };
    let place = PROGRAMS.get(kind.index());
    let place = place.ok_or_else(|| wrong("it has no place".to_string()))?;
    let made = place.get_or_init(|| compile(filters::of(kind)).map_err(|e| wrong(e.to_string())));
    made.as_ref().map_err(Clone::clone)
}

type Rules = BTreeMap<Number, Vec<SeccompRule>>;

fn compile(calls: impl Iterator<Item = &'static Call>) -> Result<Programs, seccompiler::Error> {
    let (mut allowed, mut refused) = (Rules::new(), Rules::new());
    for call in calls {
        let always = || allowed_rules(call.when);
        // No rule is: with any arguments.
        allowed.entry(call.number).or_default().extend(always()?);
        match call.when {
            // No rule, as above.
            When::Refused => drop(refused.insert(call.number, Vec::new())),
            When::RefusedIf(when) => {
                let rules = refused.entry(call.number).or_default();
                rules.extend(allowed_rules(*when)?);
            }
            _ => {}
        }
    }
    let access_denied = SeccompAction::Errno(libc::EACCES.cast_unsigned());
    Ok(Programs {
        fails: program(refused, SeccompAction::Allow, access_denied)?,
        allows: program(allowed, SeccompAction::Trap, SeccompAction::Allow)?,
    })
}

fn program(
    rules: Rules,
    otherwise: SeccompAction,
    matched: SeccompAction,
) -> Result<BpfProgram, seccompiler::Error> {
    let filter = SeccompFilter::new(rules, otherwise, matched, TargetArch::x86_64)?;
    Ok(BpfProgram::try_from(filter)?)
}

/// One of these has to hold.
fn allowed_rules(when: When) -> Result<Vec<SeccompRule>, seccompiler::Error> {
    let bits = |argument, mask: u64, is| {
        let same = SeccompCmpOp::MaskedEq(mask);
        let len = match u32::try_from(mask) {
            Ok(_) => SeccompCmpArgLen::Dword,
            Err(_) => SeccompCmpArgLen::Qword,
        };
        SeccompCondition::new(argument, len, same, is)
    };
    let is_request = |request: Request| bits(1, request.mask.into(), request.number.into());
    Ok(match when {
        // What is refused passes here: the other program refuses it.
        When::Always | When::Refused => Vec::new(),
        When::RefusedIf(when) => return allowed_rules(*when),
        When::Bits {
            argument, mask, is, ..
        } => vec![SeccompRule::new(vec![bits(argument, mask, is)?])?],
        When::OwnProcess => {
            let own = u64::from(std::process::id());
            vec![SeccompRule::new(vec![bits(0, u32::MAX.into(), own)?])?]
        }
        When::Requests(requests) => {
            let rule = |&request: &Request| SeccompRule::new(vec![is_request(request)?]);
            requests.iter().map(rule).collect::<Result<_, _>>()?
        }
        When::OnStdin(request) => {
            let stdin = bits(0, u32::MAX.into(), 0)?;
            vec![SeccompRule::new(vec![stdin, is_request(request)?])?]
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_programs() {
        for kind in ThreadKind::ALL {
            let programs = of(kind).unwrap();
            assert!(programs.allows.len() > programs.fails.len(), "{kind:?}");
            // The kernel's limit.
            assert!(programs.allows.len() <= 4096, "{kind:?}");
        }
    }

    /// Rows of one call add up; one without conditions among others would be lost.
    #[test]
    fn no_row_hides_another() {
        for kind in ThreadKind::ALL {
            let calls: Vec<_> = filters::of(kind).collect();
            for (i, a) in calls.iter().enumerate() {
                for b in calls.iter().skip(i + 1).filter(|b| b.number == a.number) {
                    let conditional = |call: &Call| {
                        let plain = matches!(call.when, When::Always | When::Refused);
                        !plain
                    };
                    assert!(
                        conditional(a) && conditional(b),
                        "{kind:?}: {}",
                        super::super::call::name(a.number)
                    );
                }
            }
        }
    }
}
