//! Another user for the threads of the jail.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::JailError;

/// A user and a group by their numbers, `UID:GID`; neither is root's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    uid: u32,
    gid: u32,
}

/// What is wrong with a `UID:GID`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not two numbers from 1 to 4294967294 with a colon between")]
pub struct NoUser;

impl FromStr for User {
    type Err = NoUser;

    fn from_str(text: &str) -> Result<Self, NoUser> {
        // u32::MAX is what leaves an id as it is.
        let id = |text: &str| text.parse().ok().filter(|id| (1..u32::MAX).contains(id));
        let (uid, gid) = text.split_once(':').ok_or(NoUser)?;
        Ok(Self {
            uid: id(uid).ok_or(NoUser)?,
            gid: id(gid).ok_or(NoUser)?,
        })
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.uid, self.gid)
    }
}

static CHOSEN: OnceLock<User> = OnceLock::new();

/// Each thread that enters the jail from now on becomes this user. The first one
/// chosen stays.
pub fn choose(user: User) {
    // It was chosen before.
    let _ = CHOSEN.set(user);
}

/// The calling thread is the user that was chosen, if one was.
pub(super) fn become_chosen() -> Result<(), JailError> {
    CHOSEN.get().map_or(Ok(()), become_user)
}

/// The kernel has an identity for each thread. The C library's calls, which change all
/// threads at once, do so by signals, in threads that may be in the jail already.
fn become_user(user: &User) -> Result<(), JailError> {
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    // The user last: who is not root any more can change no group.
    set_thread_groups(&[])
        .and_then(|()| set_thread_res_gid(gid, gid, gid))
        .and_then(|()| set_thread_res_uid(uid, uid, uid))
        .map_err(|e| JailError::User {
            user: *user,
            why: std::io::Error::from(e).to_string(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_two_numbers_and_not_root() {
        assert_eq!(
            "1000:100".parse(),
            Ok(User {
                uid: 1000,
                gid: 100
            })
        );
        let wrong = [
            "",
            "1000",
            "0:0",
            "0:1",
            "1:0",
            "1:",
            ":1",
            "root:root",
            "-1:1",
            "4294967295:1",
            "1:2:3",
        ];
        for wrong in wrong {
            assert_eq!(wrong.parse::<User>(), Err(NoUser), "{wrong}");
        }
    }

    #[test]
    fn who_may_not_is_told_so() {
        // Capabilities are a thread's.
        let thread = std::thread::spawn(|| {
            crate::jail::capabilities::drop_all().unwrap();
            become_user(&"65534:65533".parse().unwrap())
        });
        let refused = thread.join().unwrap().unwrap_err();
        assert_eq!(
            refused.to_string(),
            "jail: can't become user 65534:65533: Operation not permitted (os error 1)"
        );
    }
}
